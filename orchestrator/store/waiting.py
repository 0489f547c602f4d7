"""What stands before a job: its hour, its backoff, and the jobs that it waits for.

Such a job is `blocked`, and its `not_before` says when it is looked at again: at its hour; as soon as a job that it
waits for has ended, and until then (NULL) never. Once it has begun, nothing but a backoff stands before it.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, exists, select, true, update
from sqlalchemy.engine import Connection

from orchestrator.core import clock, dependencies
from orchestrator.store import dependencies as stored
from orchestrator.store import jobmodels, moves

#: Jobs that one transaction looks at again, and seconds after which it leaves the others to the next: a claim waits.
BATCH = 200
SECONDS = 1.0

_jobs = jobmodels.jobs.c


def blocking(
    waits_for: Sequence[dependencies.Dependency], start_after: datetime | None, *, now: datetime
) -> dict[str, Any]:
    """Return the values of a job that is queued with these before it."""
    if dependencies.broken(waits_for):
        return {"blocked": True, "not_before": clock.AT_ONCE}  # to fail as soon as it is looked at
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

    Each may be claimed from now on, or fails for want of another job's success, or waits on. Those that wait for one
    that fails so come at once: of a chain none waits for the next round.
    """
    until, count = time.monotonic() + SECONDS, 0
    waits = exists().where(jobmodels.dependencies.c.job_id == _jobs.id) & ~stored.begun()
    due = _due(now).add_columns(waits.label("waits")).with_for_update(skip_locked=True, of=jobmodels.jobs)
    while found := connection.execute(due.limit(BATCH - count)).all():
        count += _look(connection, found, actor=actor, now=now, until=until)
        if count == BATCH or time.monotonic() >= until:
            break
    return count


def _look(connection: Connection, found: Sequence[Row[Any]], *, actor: str, now: datetime, until: float) -> int:
    """Look at these jobs, whose rows are locked, or at some of them, and return at how many."""
    waits_for = stored.of_each(connection, [row.id for row in found if row.waits])
    broken = [(row, one) for row in found if (one := dependencies.broken(waits_for.get(row.id, ())))]
    if broken:  # by themselves: another one of these may wait for the end of one of them
        return _fail(connection, broken, actor=actor, now=now, until=until)
    alike = defaultdict[tuple[bool, datetime | None], list[int]](list)
    for row in found:
        values = blocking(waits_for.get(row.id, ()), row.start_after if row.waits else None, now=now)
        alike[values["blocked"], values["not_before"]].append(row.seq)
    for (blocked, not_before), seqs in alike.items():
        these = update(jobmodels.jobs).where(_jobs.seq.in_(seqs))
        connection.execute(these.values(blocked=blocked, not_before=not_before))
    return len(found)


def _fail(
    connection: Connection,
    broken: Sequence[tuple[Row[Any], dependencies.Dependency]],
    *,
    actor: str,
    now: datetime,
    until: float,
) -> int:
    """Fail jobs for want of others' success until a moment of the monotonic clock, and return how many."""
    for number, (job, one) in enumerate(broken, start=1):
        moves.apply(connection, job, moves.failed_by_another(job, one, now=now), actor=actor, now=now)
        if time.monotonic() >= until:
            return number
    return len(broken)


def _due(now: datetime) -> Any:
    return (
        select(jobmodels.jobs)
        .where(_jobs.blocked == true(), _jobs.not_before <= now)
        .order_by(_jobs.not_before, _jobs.rank, _jobs.seq)
    )
