"""What stands before a job: its hour, its backoff, and the jobs that it waits for.

Such a job is `blocked`, and its `not_before` says when it is looked at again: at its hour; as soon as a job that it
waits for has ended, and until then (NULL) never. Once it has begun, nothing but a backoff stands before it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, exists, null, select, true, update
from sqlalchemy.engine import Connection

from orchestrator.core import dependencies
from orchestrator.store import dependencies as stored
from orchestrator.store import jobmodels, moves

#: Jobs that one transaction looks at again.
BATCH = 200

_jobs = jobmodels.jobs.c


def blocking(
    waits_for: Sequence[dependencies.Dependency], start_after: datetime | None, *, now: datetime
) -> dict[str, Any]:
    """Return the values of a job that is queued with these before it."""
    if dependencies.broken(waits_for):
        return {"blocked": True, "not_before": now}  # to fail as soon as it is looked at
    if not dependencies.met(waits_for):
        return {"blocked": True, "not_before": None}
    if start_after is not None and start_after > now:
        return {"blocked": True, "not_before": start_after}
    return {"blocked": False, "not_before": None}


def is_any_due(connection: Connection, now: datetime) -> bool:
    """Whether a blocked job is to be looked at."""
    return connection.execute(_due(now).with_only_columns(_jobs.seq).limit(1)).first() is not None


def unblock(connection: Connection, *, actor: str, now: datetime) -> int:
    """Look at blocked jobs whose time has come, `BATCH` at most, and return how many there were.

    Each may be claimed from now on, or fails for want of another job's success, or waits on.
    """
    waits = exists().where(jobmodels.dependencies.c.job_id == _jobs.id) & ~stored.begun()
    due = _due(now).add_columns(waits.label("waits")).limit(BATCH).with_for_update(skip_locked=True, of=jobmodels.jobs)
    found = connection.execute(due).all()
    free = [row.seq for row in found if not row.waits]
    if free:
        connection.execute(update(jobmodels.jobs).where(_jobs.seq.in_(free)).values(blocked=False, not_before=null()))
    for row in found:
        if row.waits:
            _look(connection, row, actor=actor, now=now)
    return len(found)


def _due(now: datetime) -> Any:
    return (
        select(jobmodels.jobs)
        .where(_jobs.blocked == true(), _jobs.not_before <= now)
        .order_by(_jobs.not_before, _jobs.rank, _jobs.seq)
    )


def _look(connection: Connection, job: Row[Any], *, actor: str, now: datetime) -> None:
    waits_for = stored.of(connection, job.id)
    broken = dependencies.broken(waits_for)
    if broken is not None:
        moves.apply(connection, job, moves.failed_by_another(job, broken, now=now), actor=actor, now=now)
        return
    values = blocking(waits_for, job.start_after, now=now)
    connection.execute(update(jobmodels.jobs).where(_jobs.id == job.id).values(values))
