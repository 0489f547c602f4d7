"""Which job a worker claims next, and its taking: `core.ordering`, over the index `ix_jobs_claim`.

A claim looks at users and at what their jobs demand, not at jobs: it seeks what runs of each user, and the first of
each demand; whether the asker meets that is `core.resources`' rule. Its cost does not grow with the number of jobs,
neither of those that wait nor of those that are blocked.
"""

import functools
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    Row,
    Select,
    Text,
    bindparam,
    cast,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import ReturningUpdate

from orchestrator.core import gangs, ordering, resources, specs, states
from orchestrator.core import limits as core_limits
from orchestrator.store import attemptmodels, columns, held, hostmodels, jobmodels, rows

_jobs = jobmodels.jobs.c
_workers = hostmodels.workers.c

#: Key of PostgreSQL's advisory lock under which claims are made while there are limits: "clai" in ASCII.
_ADVISORY_KEY = 0x636C6169

# An UPDATE would set the columns that are named like the values it is given: none of these is.
_STAGE = bindparam("at_stage", type_=jobmodels.jobs.c.stage.type)
_NOW = bindparam("now", type_=columns.UtcDateTime)


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who asks for a job."""

    worker: str  #: its id
    root: str  #: id of the artifact root that it reaches
    limits: core_limits.Limits
    pool: gangs.Pool


@dataclass(frozen=True, kw_only=True)
class Head:
    """The first of a user's jobs that demand the same and are all bound to the asker's root, or all to none."""

    contender: ordering.Contender
    demand: resources.Demand  #: as a whole
    rooted: bool


@dataclass(frozen=True, kw_only=True)
class First:
    """A job that was next, its row as it runs, and the devices that are held for it."""

    row: Row[Any]
    devices: tuple[resources.Device, ...]


def asker(row: Row[Any]) -> Asker:
    """Return the worker of a row of `workers` as one that asks, of whose slots it is not known which one does."""
    pool = gangs.Alone(rows.offer(row))
    return Asker(worker=row.id, root=row.artifact_root or "", limits=rows.limits_of(row), pool=pool)


def eligible(now: datetime | ColumnElement[datetime]) -> ColumnElement[bool]:
    """Return the condition that a queued job's time has come and that no other job stands before it."""
    return or_(_jobs.not_before <= now, _jobs.not_before.is_(None) & (_jobs.blocked == false()))


def heads(
    connection: Connection, who: Asker, stage: states.Stage, now: datetime, *, but_for: Row[Any] | None = None
) -> list[Head]:
    """Return the jobs of which a worker could take one, in turn: of each user the first of each kind.

    Limits are kept to as if the job `but_for` did not run.
    """
    limits = who.limits if stage is states.Stage.TRAIN else core_limits.NONE
    found = connection.execute(
        _contenders(connection.dialect.name, _full_tags(connection, limits, but_for)), _values(who, stage, now)
    )
    passing = but_for.submitted_by if but_for is not None else None
    there = {
        ordering.Contender(user=row.name, running=row.running, served_at=row.served_at, rank=row.rank, seq=row.seq): row
        for row in found
        if row.seq is not None
        and not limits.user_is_full(row.name, row.running - (row.name == passing))
        and not resources.of(row.demand).unmet(stage, who.pool.offer)
    }
    return [
        Head(contender=contender, demand=resources.of(there[contender].demand), rooted=there[contender].rooted)
        for contender in ordering.in_turn(there)
    ]


def takeable(
    connection: Connection, who: Asker, stage: states.Stage, now: datetime
) -> Iterator[tuple[Head, tuple[resources.Device, ...]]]:
    """Yield the jobs that a worker may begin now, in turn, each with the devices that it holds for it.

    They end with one for which it holds its devices back.
    """
    for head in heads(connection, who, stage, now):
        devices = who.pool.hold(head.demand.at(stage))
        if devices:
            yield head, devices
        elif (
            stage is states.Stage.TRAIN
            and head.demand.gpus > 1
            and who.pool.serves(head.demand)
            and held.holds_back(connection, who.worker, head.demand, seq=head.contender.seq)
        ):
            return


def take_next(connection: Connection, who: Asker, stage: states.Stage, now: datetime) -> First | None:
    """Let the job that is next run, and return it. Of two claimers at once the second one gets the one after it."""
    if who.limits and connection.dialect.name == "postgresql":  # on SQLite every writer waits anyway
        # None of two claims may overlook what the other one begins.
        connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_KEY)))
    limits = who.limits if stage is states.Stage.TRAIN else core_limits.NONE
    full = _full_tags(connection, limits)
    for head, devices in takeable(connection, who, stage, now):
        one = {"user": head.contender.user, "demanding": head.demand.text}
        taking = _taking(connection.dialect.name, rooted=head.rooted, full=full)
        row = connection.execute(taking, {**_values(who, stage, now), **one}).first()
        if row is not None:
            return First(row=row, devices=devices)
    return None


def within(
    connection: Connection, who: Asker, found: Iterable[Head], room: tuple[resources.Device, ...]
) -> Iterator[Head]:
    """Yield those of the jobs in turn for which these free devices are enough: `takeable`, as the database has it.

    For the others that the worker holds back for, the devices of their kind are in use.
    """
    for head in found:
        if gangs.chosen(head.demand, room):
            yield head
        elif (
            head.demand.gpus > 1
            and gangs.different(head.demand, room)
            and held.holds_back(connection, who.worker, head.demand, seq=head.contender.seq)
        ):
            room = tuple(device for device in room if not head.demand.fits(device))


def of_training(connection: Connection, training: Row[Any], now: datetime) -> Head:
    """Return a training that runs as if it waited as well: its user as they stand, with it as their first job."""
    stage, user = states.Stage.TRAIN, training.submitted_by
    standing = select(
        _running(bindparam("user")).scalar_subquery().label("running"),
        _served_at(bindparam("user")).scalar_subquery().label("served_at"),
    )
    own = connection.execute(standing, {"at_stage": stage, "user": user, "now": now}).one()
    contender = ordering.Contender(
        user=user, running=own.running, served_at=own.served_at, rank=training.rank, seq=training.seq
    )
    return Head(contender=contender, demand=resources.of(training.demand), rooted=True)


def demands(connection: Connection, stage: states.Stage) -> list[resources.Demand]:
    """Return what the jobs demand that wait for a stage, each demand once or more often."""
    kinds = _kinds(_users())
    found = connection.execute(select(kinds.c.demand).where(kinds.c.demand.is_not(None)), {"at_stage": stage})
    return [resources.of(text) for text in found.scalars()]


def standing(connection: Connection, job: Row[Any], now: datetime) -> ordering.Standing:
    """Return how a queued job stands among those at its stage; a blocked one as if it were not."""
    # Blocked or not, in so many words: behind that the index can be sought by user, and read by user without a sort.
    either = _jobs.blocked.in_([False, True])
    at_stage = (_jobs.state == job.state, _jobs.stage == job.stage, either, or_(eligible(now), _jobs.seq == job.seq))
    before = tuple_(_jobs.rank, _jobs.seq) < tuple_(job.rank, job.seq)
    own = select(func.count()).where(*at_stage, _jobs.submitted_by == job.submitted_by, before)
    name, count, rank = _jobs.submitted_by.label("name"), func.count().label("waiting"), func.min(_jobs.rank)
    part = select(name, count, rank.label("rank")).where(*at_stage).group_by(_jobs.blocked, name).subquery("part").c
    waiting = cast(func.sum(part.waiting), Integer).label("waiting")
    user = select(part.name, waiting, func.min(part.rank).label("rank")).group_by(part.name).subquery("everyone").c
    first = select(func.min(_jobs.seq)).where(*at_stage, _jobs.submitted_by == user.name, _jobs.rank == user.rank)
    everyone = [
        ordering.Contender(**row._mapping)  # noqa: SLF001 - the documented name of a row's mapping
        for row in connection.execute(
            select(
                user.name.label("user"),
                user.rank,
                user.waiting,
                _running(user.name).scalar_subquery().label("running"),
                _served_at(user.name).scalar_subquery().label("served_at"),
                first.correlate(user.name.table).scalar_subquery().label("seq"),
            ),
            {"at_stage": job.stage, "now": now},
        )
    ]
    mine = next((user for user in everyone if user.user == job.submitted_by), None)
    if mine is None:  # claimed since its row was read
        return ordering.NOWHERE
    others = [user for user in everyone if user is not mine]
    return ordering.standing(mine, others, own=connection.execute(own).scalar_one())


def of_user(connection: Connection, user: str, stage: states.Stage, now: datetime, limit: int) -> Sequence[Row[Any]]:
    """Return the first jobs of a user that wait for a stage and whose time has come."""
    waiting = (_jobs.state == states.JobState.QUEUED, _jobs.stage == stage, eligible(now), _jobs.submitted_by == user)
    first = select(jobmodels.jobs).where(*waiting).order_by(_jobs.rank, _jobs.seq).limit(limit)
    return connection.execute(first).all()


def at_stage(connection: Connection, stage: states.Stage) -> Sequence[Row[Any]]:
    """Return the jobs that run at a stage."""
    there = (_jobs.state == states.JobState.RUNNING, _jobs.stage == stage, _jobs.blocked == false())
    return connection.execute(select(jobmodels.jobs).where(*there).order_by(_jobs.seq)).all()


def has_tag(dialect: str, tag: str) -> ColumnElement[bool]:
    """Return the condition that a job has a tag, by the text of their JSON.

    Within a tag, as earlier versions let one be, each quote has a backslash before it: it cannot begin another one.
    """
    place = func.instr if dialect == "sqlite" else func.strpos
    text = cast(_jobs.tags, Text)
    found: ColumnElement[bool] = or_(*(place(text, f"{before}{json.dumps(tag)}") > 0 for before in ("[", ", ")))
    return found


def _values(who: Asker, stage: states.Stage, now: datetime) -> dict[str, Any]:
    return {"asker": who.worker, "root": who.root, "at_stage": stage, "now": now}


def _full_tags(connection: Connection, limits: core_limits.Limits, but_for: Row[Any] | None = None) -> tuple[str, ...]:
    if not limits.tags:
        return ()
    runs = literal(states.JobState.RUNNING, _jobs.state.type, literal_execute=True)  # `engine.plan_once` says why
    training = [_jobs.state == runs, _jobs.stage == states.Stage.TRAIN]
    if but_for is not None:
        training.append(_jobs.seq != but_for.seq)
    return tuple(sorted(limits.full_tags(connection.execute(select(_jobs.tags).where(*training)).scalars())))


@functools.lru_cache(maxsize=32)  # to build it takes longer than to run it
def _contenders(dialect: str, full: tuple[str, ...]) -> Select[Any]:
    """Return the SELECT of each user with the first job of each demand: of those without a root, and with the asker's.

    The recursions leap from one user, and then from one of their demands, to the next:
    https://wiki.postgresql.org/wiki/Loose_indexscan.
    """
    takes_none = (states.WorkerState.UNHEALTHY, states.WorkerState.DRAINING)  # its slots may not have heard of it yet
    barred = _workers.state.in_(takes_none) | (_workers.wish == states.WorkerWish.DRAIN)
    may_claim = ~exists().where(_workers.id == bindparam("asker"), barred)
    kinds = _kinds(_users(may_claim))
    firsts = union_all(*(_firsts(dialect, kinds, rooted=rooted, full=full) for rooted in (False, True))).subquery()
    # No join, which PostgreSQL would make a hash of all jobs for.
    rank = select(_jobs.rank).where(_jobs.seq == firsts.c.seq)
    return select(
        *firsts.c,
        rank.scalar_subquery().label("rank"),
        _running(firsts.c.name).scalar_subquery().label("running"),
        _served_at(firsts.c.name).scalar_subquery().label("served_at"),
    )


def _users(*conditions: ColumnElement[bool]) -> CTE:
    """Return the users with waiting jobs, where the conditions hold."""
    least = select(func.min(_jobs.submitted_by).label("name")).where(*_waiting(_jobs), *conditions)
    users = least.cte("users", recursive=True)
    later = jobmodels.jobs.alias("later").c
    following = select(func.min(later.submitted_by)).where(*_waiting(later), later.submitted_by > users.c.name)
    return users.union_all(select(following.correlate(users).scalar_subquery()).where(users.c.name.is_not(None)))


def _kinds(users: CTE) -> CTE:
    """Return each user with each thing that their waiting jobs demand."""
    least = select(func.min(_jobs.demand)).where(*_waiting(_jobs), _jobs.submitted_by == users.c.name)
    first = select(users.c.name, least.correlate(users).scalar_subquery().label("demand"))
    kinds = first.where(users.c.name.is_not(None)).cte("kinds", recursive=True)
    later = jobmodels.jobs.alias("other").c
    following = select(func.min(later.demand)).where(
        *_waiting(later), later.submitted_by == kinds.c.name, later.demand > kinds.c.demand
    )
    leap = select(kinds.c.name, following.correlate(kinds).scalar_subquery())
    return kinds.union_all(leap.where(kinds.c.demand.is_not(None)))


def _firsts(dialect: str, kinds: CTE, *, rooted: bool, full: tuple[str, ...]) -> Select[Any]:
    first = _first(dialect, kinds.c.name, kinds.c.demand, rooted=rooted, full=full).with_only_columns(_jobs.seq)
    seq = first.correlate(kinds).scalar_subquery().label("seq")
    one = select(kinds.c.name, kinds.c.demand, literal(rooted).label("rooted"), seq)
    return one.where(kinds.c.demand.is_not(None))


def _first(
    dialect: str, user: ColumnElement[str], demand: ColumnElement[str], *, rooted: bool, full: Collection[str]
) -> Select[Any]:
    """Return the SELECT of a user's first job of a demand that could be claimed; it walks the index in order.

    For PostgreSQL the order names the root, since it does not take IS NULL for a constant, and the time is no OR, which
    it would rather make a bitmap of.
    """
    root = _jobs.artifact_root == bindparam("root") if rooted else _jobs.artifact_root.is_(None)
    return (
        select(jobmodels.jobs)
        .where(
            *_waiting(_jobs),
            _jobs.submitted_by == user,
            _jobs.demand == demand,
            root,
            func.coalesce(_jobs.not_before, _NOW) <= _NOW,
            _jobs.spec_version <= specs.SPEC_VERSION,
            *(~has_tag(dialect, tag) for tag in full),
        )
        .order_by(_jobs.artifact_root, _jobs.rank, _jobs.seq)
        .limit(1)
    )


@functools.lru_cache(maxsize=32)
def _taking(dialect: str, *, rooted: bool, full: tuple[str, ...]) -> ReturningUpdate[Any]:
    """Return the compare-and-set that lets a user's first job of a demand run that no other claimer holds."""
    first = _first(dialect, bindparam("user"), bindparam("demanding"), rooted=rooted, full=full)
    free = first.with_only_columns(_jobs.seq).with_for_update(skip_locked=True).correlate(None).scalar_subquery()
    still = (_jobs.seq == free, _jobs.state == states.JobState.QUEUED)
    runs = {"state": states.JobState.RUNNING, "attempt": _jobs.attempt + 1, "worker": bindparam("asker"), "beat": 0}
    times = {"not_before": None, "started_at": func.coalesce(_jobs.started_at, _NOW)}
    return update(jobmodels.jobs).where(*still).values(**runs, **times).returning(jobmodels.jobs)


def _running(user: ColumnElement[str]) -> Select[Any]:
    """Return the SELECT of how many jobs of a user run at the stage that is bound."""
    job = jobmodels.jobs.alias("active").c
    at_it = (job.state == states.JobState.RUNNING, job.stage == _STAGE, job.blocked == false())
    return select(func.count(job.seq)).where(*at_it, job.submitted_by == user)


def _served_at(user: ColumnElement[str]) -> Select[Any]:
    """Return the SELECT of when a job of a user was last claimed for the stage that is bound.

    What a clock that was ahead has written does not count: until that moment its user would come last each time.
    """
    claimed = attemptmodels.attempts.alias("claimed").c
    own = (claimed.submitted_by == user, claimed.stage == _STAGE, claimed.started_at <= _NOW)
    return select(func.max(claimed.started_at)).where(*own)


def _waiting(job: Any) -> tuple[ColumnElement[bool], ...]:
    return job.state == states.JobState.QUEUED, job.stage == _STAGE, job.blocked == false()
