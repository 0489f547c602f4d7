"""Who waits for whom, in SQL. The end of a job is noted with those that wait for it in the transaction that ends it."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import ColumnElement, case, exists, func, null, select, true, update
from sqlalchemy.engine import Connection

from orchestrator import errors
from orchestrator.core import clock, dependencies, states
from orchestrator.store import attemptmodels, jobmodels, rows

_jobs = jobmodels.jobs.c
_dependencies = jobmodels.dependencies.c


def add(connection: Connection, job_id: str, wanted: Sequence[dependencies.Dependency]) -> None:
    """Store what a new job waits for; raises NotFound where one of these is not there."""
    if not wanted:
        return
    # Locked: one that ended between this look and our commit would not know who waits for it.
    needed = select(_jobs.id, _jobs.state).where(_jobs.id.in_([one.needs for one in wanted])).order_by(_jobs.seq)
    there = {row.id: row.state for row in connection.execute(needed.with_for_update(read=True))}
    for one in wanted:
        if one.needs not in there:
            raise errors.NotFound(f"There is no job {one.needs!r} to wait for.", hint="`orch list -a` shows every job.")
    connection.execute(
        jobmodels.dependencies.insert(),
        [{"job_id": job_id, "needs": one.needs, "rule": one.rule, "ended": _ended(there[one.needs])} for one in wanted],
    )


def of(connection: Connection, job_id: str) -> list[dependencies.Dependency]:
    """Return what a job waits for, or has waited for."""
    found = select(jobmodels.dependencies).where(_dependencies.job_id == job_id).order_by(_dependencies.needs)
    return [rows.dependency(row) for row in connection.execute(found)]


def of_each(connection: Connection, job_ids: Sequence[str]) -> dict[str, list[dependencies.Dependency]]:
    """Return what each of these jobs waits for; a job that waits for none is left out."""
    needed = defaultdict[str, list[dependencies.Dependency]](list)
    if not job_ids:
        return needed
    found = select(jobmodels.dependencies).where(_dependencies.job_id.in_(job_ids)).order_by(_dependencies.needs)
    for row in connection.execute(found):
        needed[row.job_id].append(rows.dependency(row))
    return needed


def begun() -> ColumnElement[bool]:
    """Return the condition that a job of `jobs` was ever claimed: from then on it waits for no other.

    Its fencing token tells it not: a restored job counts on from far ahead.
    """
    return exists().where(attemptmodels.attempts.c.job_id == _jobs.id)


def look_anew(connection: Connection, job_id: str) -> list[dependencies.Dependency]:
    """Note how those that a job waits for stand now, as it is queued again, and return them.

    One that is no longer there has ended as was noted while it was.
    """
    needs = select(_dependencies.needs).where(_dependencies.job_id == job_id)
    # Locked, as in `add`.
    connection.execute(select(_jobs.id).where(_jobs.id.in_(needs)).order_by(_jobs.seq).with_for_update(read=True))
    state = select(_jobs.state).where(_jobs.id == _dependencies.needs).scalar_subquery()
    now = case(
        (state.is_(None), func.coalesce(_dependencies.ended, states.Ended.DELETED.value)),
        (state.in_(states.FINAL), state),
        else_=null(),
    )
    connection.execute(update(jobmodels.dependencies).where(_dependencies.job_id == job_id).values(ended=now))
    return of(connection, job_id)


def tell(connection: Connection, job_id: str, ended: states.Ended) -> None:
    """Note how a job has ended with those that wait for it, and have these looked at."""
    waits = _dependencies.needs == job_id
    noted = update(jobmodels.dependencies).where(waits, _dependencies.ended.is_(None)).values(ended=ended)
    if connection.execute(noted).rowcount:
        waiting = select(_dependencies.job_id).where(waits)
        looking = update(jobmodels.jobs).where(_jobs.id.in_(waiting), _jobs.blocked == true(), ~begun())
        connection.execute(looking.values(not_before=clock.AT_ONCE))


def take_back(connection: Connection, job_id: str) -> None:
    """Let those that wait for the success of a job wait on: it begins a new run. Who was let go by it goes on."""
    waits = (_dependencies.needs == job_id, _dependencies.rule == states.After.OK)
    waiting = exists().where(_jobs.id == _dependencies.job_id, _jobs.blocked == true(), ~begun())
    connection.execute(update(jobmodels.dependencies).where(*waits, waiting).values(ended=None))


def _ended(state: states.JobState) -> states.Ended | None:
    return states.Ended(state.value) if state in states.FINAL else None
