"""The store's side for audits: a job's rows as they lie, without the store's own idea of the winning line."""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from orchestrator import errors
from orchestrator.core import history
from orchestrator.store import attemptmodels, engine, jobmodels, peoplebase, rows, starts


class Audits(peoplebase.Audits):
    """What audits read, in SQL."""

    database: engine.Database

    @engine.reads_at_length
    def history(self, connection: Connection, job_id: str) -> history.History:
        """Return every row of the job from one moment."""
        engine.at_one_moment(connection)
        job = connection.execute(select(jobmodels.jobs).where(jobmodels.jobs.c.id == job_id)).first()
        if job is None:
            raise errors.NotFound(f"There is no job {job_id!r}.")

        def found(table: Any, *order: Any) -> Any:
            return connection.execute(select(table).where(table.c.job_id == job_id).order_by(*order))

        epoch, point = attemptmodels.epoch_metrics.c, attemptmodels.checkpoints.c
        return history.History(
            job=rows.job(job),
            events=tuple(map(rows.event, found(jobmodels.events, jobmodels.events.c.seq))),
            attempts=tuple(map(rows.attempt, found(attemptmodels.attempts, attemptmodels.attempts.c.attempt))),
            epochs=tuple(
                map(rows.epoch_metric, found(attemptmodels.epoch_metrics, epoch.attempt, epoch.epoch, epoch.split))
            ),
            steps=tuple(rows.step_span(row) for row in connection.execute(_spans(job_id))),
            checkpoints=tuple(map(rows.checkpoint, found(attemptmodels.checkpoints, point.attempt, point.step))),
            evaluations=tuple(
                map(rows.evaluation, found(attemptmodels.evaluations, attemptmodels.evaluations.c.attempt))
            ),
            held=frozenset(starts.held(connection, job_id)),
        )


def _spans(job_id: str) -> Any:
    metric = attemptmodels.step_metrics.c
    first, last, count = func.min(metric.step), func.max(metric.step), func.count()
    return (
        select(metric.attempt, metric.name, first.label("first"), last.label("last"), count.label("count"))
        .where(metric.job_id == job_id)
        .group_by(metric.attempt, metric.name)
        .order_by(metric.attempt, metric.name)
    )
