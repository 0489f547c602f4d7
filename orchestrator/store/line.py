"""The winning line: which rows of which attempts make up the one training that counts.

A later attempt that resumes at step s leaves behind what earlier attempts did past s. `attempts.line_end` keeps the
lowest such s, so that a row counts exactly where its step is not beyond its attempt's `line_end`; one less where the
attempt had closed an epoch at s that the later one closes anew.
"""

from collections.abc import Container
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, exists, literal, or_, select, update
from sqlalchemy.engine import Connection

from orchestrator.core import jobs, retention, specfields
from orchestrator.store import attemptmodels, jobmodels, rows

_attempts = attemptmodels.attempts.c
_checkpoints = attemptmodels.checkpoints.c
_epochs = attemptmodels.epoch_metrics.c


def on_line(table: Any, job_id: str) -> Select[Any]:
    """Return the SELECT of a job's rows of `table` (with columns job_id, attempt, step) on its winning line."""
    same_attempt = and_(table.c.job_id == _attempts.job_id, table.c.attempt == _attempts.attempt)
    counts: ColumnElement[bool] = or_(_attempts.line_end.is_(None), table.c.step <= _attempts.line_end)
    return select(table).join(attemptmodels.attempts, same_attempt).where(_attempts.job_id == job_id, counts)


def checkpoints(connection: Connection, job_id: str) -> tuple[jobs.Checkpoint, ...]:
    """Return the checkpoints on the line, newest first."""
    newest_first = on_line(attemptmodels.checkpoints, job_id).order_by(
        _checkpoints.step.desc(), _checkpoints.attempt.desc()
    )
    return tuple(rows.checkpoint(row) for row in connection.execute(newest_first))


def cut(connection: Connection, job_id: str, *, attempt: int, source: int | None, step: int) -> None:
    """Take what attempts before `attempt` did past `step` off the line, and an epoch that is closed anew.

    One behind `source`, whose checkpoint is gone on from, may have closed it at that very step.
    """
    there = (_epochs.job_id == _attempts.job_id, _epochs.attempt == _attempts.attempt, _epochs.step == step)
    closed = exists().where(*there).correlate(attemptmodels.attempts)
    behind = _attempts.attempt > (attempt if source is None else source)
    here, earlier = (literal(one, _attempts.line_end.type) for one in (step, step - 1))
    end = case((and_(behind, closed), earlier), else_=here)
    before = (_attempts.job_id == job_id, _attempts.attempt < attempt)
    cutting = update(attemptmodels.attempts).where(*before, or_(_attempts.line_end.is_(None), _attempts.line_end > end))
    connection.execute(cutting.values(line_end=end))


def mark(connection: Connection, job_id: str) -> tuple[jobs.Checkpoint, ...]:
    """Let the flags `best` and `last` and the job's best accuracy follow the line, and return its checkpoints."""
    line = retention.marked(checkpoints(connection, job_id))
    best = next((checkpoint for checkpoint in line if checkpoint.best), None)
    connection.execute(
        update(attemptmodels.checkpoints)
        .where(_checkpoints.job_id == job_id)
        .values(best=_is(best), last=_is(line[0] if line else None))
    )
    connection.execute(
        update(jobmodels.jobs)
        .where(jobmodels.jobs.c.id == job_id)
        .values(best_accuracy=best.accuracy if best else None)
    )
    return line


def forget(connection: Connection, job_id: str) -> int:
    """Delete the rows of all checkpoints of a job, and return how many there were.

    The epochs stay on the line until the next training begins, at step 0, and cuts it.
    """
    return connection.execute(attemptmodels.checkpoints.delete().where(_checkpoints.job_id == job_id)).rowcount


def prune(
    connection: Connection,
    job_id: str,
    line: tuple[jobs.Checkpoint, ...],
    *,
    held: Container[int],
    keep: specfields.Keep,
) -> tuple[jobs.Checkpoint, ...]:
    """Delete the rows of the checkpoints that retention lets go, but those of `held` steps, and return the others."""
    let_go = [checkpoint for checkpoint in retention.superfluous(line, keep=keep) if checkpoint.step not in held]
    for checkpoint in let_go:
        connection.execute(attemptmodels.checkpoints.delete().where(_checkpoints.job_id == job_id, _is(checkpoint)))
    return tuple(checkpoint for checkpoint in line if checkpoint not in let_go)


def _is(checkpoint: jobs.Checkpoint | None) -> ColumnElement[bool]:
    if checkpoint is None:
        return _checkpoints.step < 0  # none of them
    return and_(_checkpoints.attempt == checkpoint.attempt, _checkpoints.step == checkpoint.step)
