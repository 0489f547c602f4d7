"""What changes in the rows of a backup where they come to another place, in the transaction that puts them there.

Workers of the old place may live on and reach the new one, with claims from after the backup: a claim made here must
never have the number of one of theirs. So every job counts on from some thousands further, and its history says so.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Row, func, inspect, literal, select, update
from sqlalchemy.engine import Connection

from orchestrator import errors
from orchestrator.core import clock, history, jobs, states
from orchestrator.store import (
    attemptmodels,
    columns,
    engine,
    hostmodels,
    jobmodels,
    line,
    migrations,
    moves,
    people,
    supervisors,
)

#: How far the attempts of a job are counted on: more than it has anywhere, and another number at each restore.
_AHEAD = range(1_000, 10_000)

#: Tables in the way that are named.
_NAMED = 3

_jobs = jobmodels.jobs.c
_workers = hostmodels.workers.c


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What comes, and where to."""

    actor: str  #: who restores it
    made_at: datetime  #: when the backup was made
    old_root: str | None  #: id of the artifact root whose files are in the backup; None: no files are
    new_root: str | None  #: id of the one that they are in now
    paths: frozenset[str]  #: of the checkpoints that came along


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What became of the rows."""

    states: Mapping[str, int]  #: jobs by their state now
    requeued: tuple[str, ...]  #: ids of the jobs that ran
    forgotten: tuple[str, ...]  #: ids of the jobs of whose checkpoints some are missing


def require_vacant(connection: Connection, name: str, *, silence: float) -> None:
    """Raise where something in the database would be lost, or somebody works on it. `name` is the database's.

    A worker counts that has been heard of within `silence` seconds.

    Raises:
        SchemaMismatch: it is of a newer orch.
        IllegalMove: it has jobs, or a worker that lives, or it is another application's.

    """
    found = migrations.version_of(connection)
    there = set(inspect(connection).get_table_names())
    if found is None or not migrations.is_ours(connection, found):
        _require_no_table(there, name)
        return
    if not migrations.is_older(found):
        migrations.require_head(found, name=name)
    count = connection.execute(select(func.count()).select_from(jobmodels.jobs)).scalar_one() if "jobs" in there else 0
    if count:
        raise errors.IllegalMove(
            f"The database {name} has {count} {'job' if count == 1 else 'jobs'}.",
            why="A backup is restored where there is none, so that nothing is mixed or lost.",
            hint="Set ORCH_HOME to a new folder, or ORCH_DATABASE_URL to an empty database.",
        )
    if "workers" not in there:
        return
    since = engine.shared_time(connection) - timedelta(seconds=silence)
    living = select(_workers.id).where(_workers.ended_at.is_(None), _workers.beat_at > since).limit(1)
    worker = connection.execute(living).scalar()
    if worker is not None:
        raise errors.IllegalMove(
            f"Worker {worker} runs on the database {name}.",
            why="It would claim jobs while they are being restored.",
            hint=f"`orch down`, or stop that worker; one that was killed counts for {silence:g} seconds more.",
        )


def _require_no_table(there: set[str], name: str) -> None:
    """Raise where a database that has no schema of orch's has any table: `jobs` and `events` are common names."""
    if there:
        raise errors.IllegalMove(
            f"The database {name} has tables that are not orch's: {', '.join(sorted(there)[:_NAMED])}.",
            why="They may be another application's, and be lost.",
            hint="Set ORCH_DATABASE_URL to another, empty database, or ORCH_HOME to a new folder.",
        )


def settle(connection: Connection, arrival: Arrival, time: clock.Clock) -> Settled:
    """Let the rows fit to where they are now, and return what became of them."""
    # Who lives there beats there; what waits to be told was told there.
    connection.execute(hostmodels.workers.delete().where(_workers.ended_at.is_(None)))
    connection.execute(update(jobmodels.notices).where(jobmodels.notices.c.told_at.is_(None)).values(due_at=None))
    requeued = _end_what_runs(connection, arrival, time)
    incomplete = _forget_what_is_missing(connection, arrival)
    _move_root(connection, arrival)
    now = time.now()
    _count_on(connection, arrival, now)
    for job in incomplete:
        if job.state not in states.FINAL:
            moves.record(
                connection,
                people.row(connection, job.id),
                old=people.row(connection, job.id),
                kind=history.FORGOTTEN,
                actor=arrival.actor,
                now=now,
                detail="some of its checkpoints were not in the backup: gone or unusable when it was made",
            )
    counts = select(_jobs.state, func.count()).group_by(_jobs.state)
    return Settled(
        states={str(state): count for state, count in connection.execute(counts)},
        requeued=requeued,
        forgotten=tuple(job.id for job in incomplete),
    )


def _end_what_runs(connection: Connection, arrival: Arrival, time: clock.Clock) -> tuple[str, ...]:
    """Take the jobs that ran from their workers, which are elsewhere: each stands where its wish leads."""
    running = select(jobmodels.jobs).where(_jobs.state == states.JobState.RUNNING).order_by(_jobs.seq)
    found = connection.execute(running).all()
    why = "it ran when the backup was made: its worker belongs to another installation"
    for job in found:
        gone = jobs.Outcome(kind="drained", error=why)
        supervisors.end(connection, job, gone, how="lost", actor=arrival.actor, clock=time)
    return tuple(job.id for job in found)


def _forget_what_is_missing(connection: Connection, arrival: Arrival) -> list[Row[tuple[object, ...]]]:
    """Delete the rows of checkpoints that should have come along and have not; return the jobs that had them."""
    if arrival.old_root is None:
        return []
    point, attempt = attemptmodels.checkpoints.c, attemptmodels.attempts.c
    listed = (
        select(point.job_id, point.attempt, point.step, point.path)
        .join(attemptmodels.attempts, (point.job_id == attempt.job_id) & (point.attempt == attempt.attempt))
        .where(attempt.artifact_root == arrival.old_root)
    )
    missing = [row for row in connection.execute(listed) if row.path not in arrival.paths]
    for row in missing:
        this = (point.job_id == row.job_id, point.attempt == row.attempt, point.step == row.step)
        connection.execute(attemptmodels.checkpoints.delete().where(*this))
    for job_id in dict.fromkeys(row.job_id for row in missing):
        best = people.row(connection, job_id).best_accuracy
        left = line.mark(connection, job_id)
        # What was measured stays true; without any checkpoint it begins anew, wherever that may be.
        values = {"best_accuracy": best} | ({} if left else {"artifact_root": None, "furthest_step": 0})
        connection.execute(update(jobmodels.jobs).where(_jobs.id == job_id).values(values))
    return [people.row(connection, job_id) for job_id in dict.fromkeys(row.job_id for row in missing)]


def _move_root(connection: Connection, arrival: Arrival) -> None:
    if arrival.old_root is not None and arrival.new_root != arrival.old_root:
        for table in (jobmodels.jobs, attemptmodels.attempts):
            moved = update(table).where(table.c.artifact_root == arrival.old_root)
            connection.execute(moved.values(artifact_root=arrival.new_root))


def _count_on(connection: Connection, arrival: Arrival, now: datetime) -> None:
    ahead = secrets.choice(_AHEAD)
    connection.execute(update(jobmodels.jobs).values(attempt=_jobs.attempt + ahead))
    said = f"from the backup of {arrival.made_at:%Y-%m-%dT%H:%M:%SZ}; its attempts count on from there"
    restored = select(
        _jobs.id,
        _jobs.run,
        _jobs.attempt,
        literal(now, columns.UtcDateTime),
        literal(arrival.actor),
        literal(history.RESTORED),
        _jobs.stage,
        literal(said),
    ).order_by(_jobs.seq)
    names = ["job_id", "run", "attempt", "at", "actor", "kind", "stage", "detail"]
    connection.execute(jobmodels.events.insert().from_select(names, restored))
