"""The store's side for people: submit and look up."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select, tuple_, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from orchestrator import errors
from orchestrator.core import clock, history, ids, ordering, provenance, specs, states
from orchestrator.core.jobs import (
    Attempt,
    Checkpoint,
    Counts,
    Dataset,
    EpochMetric,
    Evaluation,
    Event,
    Job,
    JobFilter,
    LogChunk,
    NewJob,
    StepMetric,
)
from orchestrator.store import (
    attemptmodels,
    claims,
    dependencies,
    engine,
    hostmodels,
    jobmodels,
    line,
    moves,
    peoplebase,
    rows,
    sources,
    starts,
    tellings,
    waiting,
)

#: Tries of a submit: an id may be taken (one collision in 2^40 per stored job is already rare), an answer be lost.
TRIES = 5

#: Ids in one query: both databases bound the number of a statement's values.
IDS_AT_ONCE = 1000

#: Candidates that an ambiguous text names, and jobs of the same spec that are returned.
MAX_CANDIDATES = 10

#: As good as no limit: larger numbers are none of a database.
_ALL = 2**31

#: Words that stand for whichever job is the newest, and the one that failed last.
LATEST, LAST_FAILED = "@latest", "@last-failed"

_jobs = jobmodels.jobs.c


class People(peoplebase.People):
    """What people do, in SQL."""

    database: engine.Database
    clock: clock.Clock

    def submit(self, new: NewJob) -> tuple[Job, bool]:
        """Store a job, or return the earlier one with its idempotency key."""
        job_id, now, again = ids.new_id(), self.clock.now(), False
        for _ in range(TRIES):
            try:
                return self._submit(new, job_id, now, again=again)
            except IntegrityError:  # the id is taken, or another submit with this key has just committed
                job_id = job_id if again else ids.new_id()
            except errors.DatabaseUnavailable as error:
                if again:
                    error.hint = f"Job {job_id} may have been stored all the same: `orch status {job_id}` tells."
                if again or not error.unheard:
                    raise
                again = True
        raise errors.OrchError("No free job id was found.", hint="Submit again.")

    @engine.writes
    def _submit(
        self, connection: Connection, new: NewJob, job_id: str, now: datetime, *, again: bool
    ) -> tuple[Job, bool]:
        digest = new.spec.digest()
        mine = select(jobmodels.jobs).where(_jobs.id == job_id, _jobs.submitted_at == now, _jobs.spec_hash == digest)
        if again and (stored := connection.execute(mine).first()) is not None:
            return rows.job(stored), True
        if (earlier := known(connection, new)) is not None:
            return rows.job(earlier), False
        stored = insert(connection, new, job_id=job_id, now=now)
        tellings.add(connection, job_id, new.notify)
        sources.add(connection, job_id, new.provenance)
        moves.record(connection, stored, kind="submitted", actor=new.user, now=now)
        return rows.job(stored), True

    @engine.reads
    def find(self, connection: Connection, text: str) -> Job:
        """Return the one job that `text` means."""
        found = _search(connection, text.strip())
        if not found:
            raise _missing(connection, text)
        if len(found) > 1:
            raise errors.Ambiguous(f"{text!r} is ambiguous.", candidates=tuple(row.id for row in found))
        return rows.job(found[0])

    @engine.reads
    def get(self, connection: Connection, job_id: str) -> Job:
        """Return the job with exactly this id."""
        return rows.job(row(connection, job_id))

    @engine.reads_at_length
    def jobs(self, connection: Connection, which: JobFilter) -> list[Job]:
        """Return jobs, the newest first unless the filter says otherwise."""
        limit = None if which.limit is None else min(which.limit, _ALL)
        order = _jobs.seq if which.oldest_first else _jobs.seq.desc()
        chosen = select(jobmodels.jobs).where(*_conditions(connection, which)).order_by(order).limit(limit)
        if not which.states:
            return [rows.job(row) for row in connection.execute(chosen)]
        # Or a job that moves on between two queries would be there twice, or not at all.
        engine.at_one_moment(connection)
        # One query a state: each walks its own stretch of the index (state, seq) and stops at the limit.
        found = [row for state in which.states for row in connection.execute(chosen.where(_jobs.state == state))]
        found.sort(key=lambda row: row.seq, reverse=not which.oldest_first)
        return [rows.job(row) for row in found[: which.limit]]

    @engine.reads
    def results(self, connection: Connection, spec_hash: str) -> list[Job]:
        """Return the last jobs that have succeeded with this spec; the index has them in this order."""
        alike = (_jobs.spec_hash == spec_hash, _jobs.state == states.JobState.SUCCEEDED)
        newest = select(jobmodels.jobs).where(*alike).order_by(_jobs.seq.desc()).limit(MAX_CANDIDATES)
        return [rows.job(row) for row in connection.execute(newest)]

    @engine.reads
    def counts(self, connection: Connection, *, eligible: bool = True) -> Counts:
        """Count jobs by state and, where that is wished, what could be claimed by stage; from the index alone."""
        could_begin = (_jobs.state == states.JobState.QUEUED, claims.eligible(self.clock.now()))
        by_stage = select(_jobs.stage, func.count()).where(*could_begin).group_by(_jobs.stage)
        ready = connection.execute(by_stage).all() if eligible else ()
        return Counts(
            states=_by_state(connection),
            eligible=dict.fromkeys(states.Stage, 0) | dict(ready) if eligible else {},
        )

    def deleted(self, job_ids: Iterable[str]) -> set[str]:
        """Return which of these ids are those of deleted jobs."""
        ids = sorted(set(job_ids))
        portions = [ids[start : start + IDS_AT_ONCE] for start in range(0, len(ids), IDS_AT_ONCE)]
        return {job_id for portion in portions for job_id in self._deleted(portion)}

    @engine.reads
    def _deleted(self, connection: Connection, job_ids: list[str]) -> list[str]:
        noted = jobmodels.deleted_jobs.c.id
        living = select(_jobs.id).where(_jobs.id == noted).exists()
        return list(connection.execute(select(noted).where(noted.in_(job_ids), ~living)).scalars())

    @engine.reads
    def attempts(self, connection: Connection, job_id: str) -> list[Attempt]:
        """Return the job's attempts, oldest first."""
        of_job = (
            select(attemptmodels.attempts)
            .where(attemptmodels.attempts.c.job_id == job_id)
            .order_by(attemptmodels.attempts.c.attempt)
        )
        return [rows.attempt(row) for row in connection.execute(of_job)]

    @engine.reads
    def provenance(self, connection: Connection, job_id: str) -> provenance.Provenance:
        """Return where the job comes from."""
        return sources.of(connection, job_id)

    @engine.reads
    def events(self, connection: Connection, job_id: str, *, after: int = 0) -> list[Event]:
        """Return the job's history past `after`, oldest first."""
        event = jobmodels.events.c
        past = select(jobmodels.events).where(event.job_id == job_id, event.seq > after).order_by(event.seq)
        return [rows.event(row) for row in connection.execute(past)]

    @engine.reads
    def epochs(self, connection: Connection, job_id: str) -> list[EpochMetric]:
        """Return the epoch metrics on the winning line, by epoch, train before val."""
        metric = attemptmodels.epoch_metrics.c
        ordered = line.on_line(attemptmodels.epoch_metrics, job_id).order_by(metric.epoch, metric.split)
        return [rows.epoch_metric(row) for row in connection.execute(ordered)]

    @engine.reads_at_length
    def steps(self, connection: Connection, job_id: str, *, name: str = "loss", after: int = 0) -> list[StepMetric]:
        """Return the named step metric on the winning line, past `after`, by step."""
        metric = attemptmodels.step_metrics.c
        named = line.on_line(attemptmodels.step_metrics, job_id).where(metric.name == name, metric.step > after)
        return [rows.step_metric(row) for row in connection.execute(named.order_by(metric.step))]

    @engine.reads
    def checkpoints(self, connection: Connection, job_id: str) -> list[Checkpoint]:
        """Return the checkpoints on the winning line, newest first."""
        return list(line.checkpoints(connection, job_id))

    @engine.reads
    def evaluation(self, connection: Connection, job_id: str) -> Evaluation | None:
        """Return the newest evaluation of the job."""
        made = attemptmodels.evaluations.c
        newest = select(attemptmodels.evaluations).where(made.job_id == job_id).order_by(made.attempt.desc()).limit(1)
        found = connection.execute(newest).first()
        return rows.evaluation(found) if found else None

    @engine.reads_at_length
    def logs(self, connection: Connection, job_id: str, *, after: tuple[int, int] | None = None) -> list[LogChunk]:
        """Return log chunks past (attempt, sequence), all attempts in order."""
        chunk = attemptmodels.log_chunks.c
        ordered = select(attemptmodels.log_chunks).where(chunk.job_id == job_id).order_by(chunk.attempt, chunk.sequence)
        if after is not None:
            ordered = ordered.where(tuple_(chunk.attempt, chunk.sequence) > tuple_(*after))
        return [rows.log_chunk(row) for row in connection.execute(ordered)]

    @engine.reads
    def dataset(self, connection: Connection, content_hash: str) -> Dataset | None:
        """Return what is known of a data set."""
        by_hash = select(hostmodels.datasets).where(hostmodels.datasets.c.hash == content_hash)
        found = connection.execute(by_hash).first()
        return rows.dataset(found) if found else None


def known(connection: Connection, new: NewJob) -> Row[Any] | None:
    """Return the earlier job with the same key, None where there is none; raises `IdempotencyConflict`."""
    if new.idempotency_key is None:
        return None
    earlier = connection.execute(select(jobmodels.jobs).where(_jobs.idempotency_key == new.idempotency_key)).first()
    if earlier is not None:
        _require_same_spec(connection, earlier, new.spec)
    return earlier


def insert(connection: Connection, new: NewJob, *, job_id: str, now: datetime) -> Row[Any]:
    """Store the row of a new job, with what it is to wait for."""
    fresh = _fresh(new, new.spec.digest(), now) | {"id": job_id, "artifact_root": _root_of_start(connection, new)}
    stored = connection.execute(jobmodels.jobs.insert().values(fresh).returning(jobmodels.jobs)).one()
    return _put_behind(connection, stored, new, now) if new.after or new.not_before else stored


def _fresh(new: NewJob, digest: str, now: Any) -> dict[str, Any]:
    return {
        "name": new.name,
        "submitted_by": new.user,
        "tags": list(new.tags),
        "priority": new.priority,
        "rank": ordering.rank(submitted_at=now, priority=new.priority),
        "spec": new.spec.model_dump(mode="json"),
        "spec_hash": digest,
        "spec_version": specs.SPEC_VERSION,
        "idempotency_key": new.idempotency_key,
        "state": states.JobState.QUEUED,
        "stage": states.FIRST_STAGE,
        "wish": states.Wish.RUN,
        "run": 1,
        "submitted_at": now,
        "parent": new.parent,
        "start_step": new.start_step,
        "demand": new.demand.text,
        **dict.fromkeys(("attempt", "beat", "retries", "total_retries", "furthest_step"), 0),
        **moves.NO_PROGRESS,
    }


def _root_of_start(connection: Connection, new: NewJob) -> str | None:
    """Return the root of the checkpoint that the job starts from: the job is for workers that reach it."""
    if new.parent is None or new.start_step is None:
        return None
    parent = row(connection, new.parent, lock=True)  # so that nobody deletes it, or what it keeps, meanwhile
    starts.require_there(connection, parent, new.start_step)
    root: str | None = parent.artifact_root
    return root


def _put_behind(connection: Connection, job: Row[Any], new: NewJob, now: datetime) -> Row[Any]:
    """Let a new job wait for what it is to wait for, and return its row."""
    dependencies.add(connection, job.id, new.after)
    blocking = waiting.blocking(dependencies.of(connection, job.id), new.not_before, now=now)
    behind = update(jobmodels.jobs).where(_jobs.id == job.id).values(start_after=new.not_before, **blocking)
    return connection.execute(behind.returning(jobmodels.jobs)).one()


def _require_same_spec(connection: Connection, earlier: Row[Any], spec: specs.JobSpec) -> None:
    """Raise `IdempotencyConflict` unless the earlier job has this spec, or had it before it was extended."""
    event = jobmodels.events.c
    was_extended = select(event.seq).where(event.job_id == earlier.id, event.kind == history.EXTENDED).limit(1)
    same = earlier.spec_hash == spec.digest() or (
        specs.is_extension(rows.job(earlier).spec, spec) and connection.execute(was_extended).first() is not None
    )
    if not same:
        raise errors.IdempotencyConflict(
            why=f"Job {earlier.id} has the key {earlier.idempotency_key!r}.",
            hint="Use a new key, or submit the same spec.",
        )


def row(connection: Connection, job_id: str, *, lock: bool = False) -> Row[Any]:
    """Return the row of the job with exactly this id, locked where that is asked for; raises NotFound."""
    exactly = select(jobmodels.jobs).where(_jobs.id == job_id)
    found = connection.execute(exactly.with_for_update() if lock else exactly).first()
    if found is None:
        raise _missing(connection, job_id)
    return found


def _by_state(connection: Connection) -> dict[states.JobState, int]:
    """Count the jobs of each state."""
    if connection.dialect.name == "sqlite":
        # One by one: to compare each row with the one before it, as GROUP BY does, takes longer than to count it.
        of_each = (select(func.count()).where(_jobs.state == state).scalar_subquery() for state in states.JobState)
        return dict(zip(states.JobState, connection.execute(select(*of_each)).one(), strict=True))
    # A server would read the whole table for each common state where it has not been vacuumed since it grew.
    found = connection.execute(select(_jobs.state, func.count()).group_by(_jobs.state)).all()
    return dict.fromkeys(states.JobState, 0) | dict(found)


def _missing(connection: Connection, text: str) -> errors.NotFound:
    noted = jobmodels.deleted_jobs
    note = connection.execute(select(noted).where(noted.c.id == ids.normalise(text.strip()))).first()
    if note is None:
        return errors.NotFound(
            f"There is no job {text!r}.", why=_unfound(text.strip()), hint="`orch list -a` shows every job."
        )
    return errors.NotFound(
        f"Job {note.id} was deleted.", why=f"{note.deleted_by} did so at {note.deleted_at:%Y-%m-%d %H:%M:%S} UTC."
    )


def _unfound(text: str) -> str | None:
    """Return why a text cannot mean any job, or means none of them; None where it might as well be another one's."""
    if text == LATEST:
        return "No job has been submitted yet."
    if text == LAST_FAILED:
        return "No job is failed."
    if text.startswith("@"):
        return f"With an @ there are {LATEST} and {LAST_FAILED}."
    return f"An id is named by {ids.SHORTEST_PREFIX} or more of its characters." if ids.is_too_short(text) else None


def _search(connection: Connection, text: str) -> list[Row[Any]]:
    """Return the jobs that `text` means, in the first of its meanings that has any."""
    newest_first = select(jobmodels.jobs).order_by(_jobs.seq.desc())
    failed = _jobs.state == states.JobState.FAILED
    if text == LATEST:
        return list(connection.execute(newest_first.limit(1)))
    if text == LAST_FAILED:
        last_end = select(jobmodels.jobs).where(failed).order_by(_jobs.finished_at.desc(), _jobs.seq.desc())
        return list(connection.execute(last_end.limit(1)))
    prefix = ids.normalise(text)
    meanings = [_jobs.id == prefix, _jobs.name == text]
    if ids.is_prefix(prefix):
        meanings.append(_jobs.id.between(prefix, prefix + "~"))  # ~ sorts behind every character of an id
    for meaning in meanings:
        if found := list(connection.execute(newest_first.where(meaning).limit(MAX_CANDIDATES))):
            return found
    return []


def _conditions(connection: Connection, which: JobFilter) -> list[ColumnElement[bool]]:
    conditions = [claims.has_tag(connection.dialect.name, tag) for tag in which.tags]
    if which.user is not None:
        conditions.append(_jobs.submitted_by == which.user)
    if which.ids:
        conditions.append(_jobs.id.in_(which.ids))
    if which.reasons:
        conditions.append(_jobs.reason.in_(which.reasons))
    if which.data_hash is not None:
        conditions.append(_jobs.data_hash == which.data_hash)
    return conditions
