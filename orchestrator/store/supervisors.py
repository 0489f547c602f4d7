"""The store's side for supervisors: the claim, and writes with the attempt as the fence."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, case, exists, func, select, update
from sqlalchemy.engine import Connection

from orchestrator import errors
from orchestrator.core import clock, gangs, jobs, provenance, retention, states
from orchestrator.core import limits as core_limits
from orchestrator.store import (
    attemptmodels,
    claims,
    copies,
    engine,
    hostmodels,
    jobmodels,
    line,
    moves,
    people,
    rows,
    starts,
    waiting,
    workerbase,
)

_jobs = jobmodels.jobs.c
_attempts = attemptmodels.attempts.c


class Supervisors(workerbase.Supervisors):
    """What supervisors do, in SQL."""

    database: engine.Database
    clock: clock.Clock
    unheard: list[tuple[jobs.Claim, datetime]]  #: claims, and when they began, of whose commits nobody has heard

    def claim(
        self,
        *,
        worker: jobs.WorkerIdentity,
        device: str,
        stages: Sequence[states.Stage],
        artifact_root: str,
        limits: core_limits.Limits = core_limits.NONE,
        pool: gangs.Pool = gangs.ALONE,
    ) -> jobs.Claim | None:
        """Claim the job that is next for the first of `stages` that has one."""
        if (claimed := self._claimed_unheard(worker, stages, pool)) is not None:
            return claimed
        asker = claims.Asker(worker=worker.id, root=artifact_root, limits=limits, pool=pool)
        # Idle slots ask every few seconds: where others wait for a claim, a look comes first, for which nobody waits.
        if (self.database.file or limits) and not self._is_worth_it(asker, stages):
            return None
        made: list[jobs.Claim] = []
        began = self.clock.now()
        try:
            return self._claim(asker, worker, device, stages, now=began, made=made)
        except errors.DatabaseUnavailable as error:
            if error.unheard:
                self.unheard += [(claim, began) for claim in made[-1:]]
            raise

    def _claimed_unheard(
        self, worker: jobs.WorkerIdentity, stages: Sequence[states.Stage], pool: gangs.Pool
    ) -> jobs.Claim | None:
        """Return a claim of the worker's whose commit took place, though its answer was lost.

        Its devices are held anew; while another job has them, it waits, until its lease has stood still.
        """
        for entry in list(self.unheard):
            claim, began = entry
            if claim.job.worker == worker.id and claim.job.stage in stages:
                held = self._is_held(claim, began)
                devices = pool.hold(claim.job.demand.at(claim.job.stage)) if held else ()
                if not held or devices:
                    self.unheard.remove(entry)
                if devices:
                    return replace(claim, devices=devices)
        return None

    @engine.reads
    def _is_held(self, connection: Connection, claim: jobs.Claim, began: datetime) -> bool:
        # Another slot of the same worker may have made the same attempt, where ours was undone: not at the same moment.
        this = (_attempts.job_id == claim.id, _attempts.attempt == claim.attempt, _attempts.started_at == began)
        return connection.execute(select(_jobs.id).where(*_fence(claim), exists().where(*this))).first() is not None

    @engine.reads
    def for_another(
        self,
        connection: Connection,
        *,
        worker: jobs.WorkerIdentity,
        stages: Sequence[states.Stage],
        artifact_root: str,
        limits: core_limits.Limits = core_limits.NONE,
        pool: gangs.Pool = gangs.ALONE,
    ) -> states.Stage | None:
        """Return the stage of what is next for a worker, where it lets one of another host begin that."""
        asker = claims.Asker(worker=worker.id, root=artifact_root, limits=limits, pool=pool)
        return copies.for_another(connection, asker, worker.host, stages, self.clock.now())

    @engine.reads
    def _is_worth_it(self, connection: Connection, asker: claims.Asker, stages: Sequence[states.Stage]) -> bool:
        now = self.clock.now()
        return waiting.is_any_due(connection, now) or any(
            True for stage in stages for _ in claims.takeable(connection, asker, stage, now)
        )

    @engine.writes
    def _claim(
        self,
        connection: Connection,
        asker: claims.Asker,
        worker: jobs.WorkerIdentity,
        device: str,
        stages: Sequence[states.Stage],
        *,
        now: datetime,
        made: list[jobs.Claim],
    ) -> jobs.Claim | None:
        engine.plan_once(connection)  # to plan a claim takes as long as to make it
        waiting.unblock(connection, actor=worker.id, now=now)
        for stage in stages:
            first = claims.take_next(connection, asker, stage, now)
            if first is not None:
                on = device if len(first.devices) == 1 else gangs.named(first.devices)
                place: dict[str, Any] = {
                    "worker": worker.id,
                    "host": worker.host,
                    "device": on,
                    "artifact_root": asker.root,
                }
                if stage is not states.Stage.DOWNLOAD:
                    place["devices"] = [one.id for one in first.devices]
                _begin_attempt(connection, first.row, place, now=now)
                made.append(replace(_claimed(connection, first.row), devices=first.devices))
                return made[-1]
        return None

    @engine.writes
    def beat(self, connection: Connection, claim: jobs.Claim) -> states.Wish:
        """Advance the lease's beat counter and return what is wished of the job."""
        return states.Wish(_own(connection, claim, beat=_jobs.beat + 1).wish)

    @engine.reads
    def wish(self, connection: Connection, claim: jobs.Claim) -> states.Wish:
        """Return what is wished of the job, without a write."""
        wished: states.Wish | None = connection.execute(select(_jobs.wish).where(*_fence(claim))).scalar_one_or_none()
        if wished is None:
            raise _stale(claim)
        return wished

    @engine.writes
    def record_progress(self, connection: Connection, claim: jobs.Claim, progress: jobs.Progress) -> None:
        """Store how far the stage is."""
        values = {f"progress_{name}": value for name, value in asdict(progress).items()}
        _own(connection, claim, **values | {"progress_at": progress.at or self.clock.now()})

    @engine.writes
    def record_resumed(self, connection: Connection, claim: jobs.Claim, *, attempt: int | None, step: int) -> None:
        """Store where training goes on: what earlier attempts did past that step leaves the line."""
        _own(connection, claim)
        mine = (_attempts.job_id == claim.id, _attempts.attempt == claim.attempt)
        connection.execute(update(attemptmodels.attempts).where(*mine).values(resumed_from=attempt, first_step=step))
        line.cut(connection, claim.id, attempt=claim.attempt, source=attempt, step=step)
        line.mark(connection, claim.id)

    @engine.writes
    def record_environment(
        self, connection: Connection, claim: jobs.Claim, environment: provenance.Environment
    ) -> None:
        """Store what this attempt trains with."""
        _own(connection, claim)
        mine = (_attempts.job_id == claim.id, _attempts.attempt == claim.attempt)
        connection.execute(update(attemptmodels.attempts).where(*mine).values(environment=asdict(environment)))

    @engine.writes
    def record_steps(self, connection: Connection, claim: jobs.Claim, steps: Iterable[jobs.StepMetric]) -> None:
        """Store step metrics; a row that exists stays as it is."""
        _own(connection, claim)
        values = [{"step": step.step, "name": step.name, "value": step.value} for step in steps]
        _add(connection, attemptmodels.step_metrics, claim, values)

    @engine.writes
    def record_checkpoint(
        self,
        connection: Connection,
        claim: jobs.Claim,
        checkpoint: jobs.Checkpoint,
        metrics: Iterable[jobs.EpochMetric] = (),
    ) -> tuple[jobs.Checkpoint, ...]:
        """Store a checkpoint and the epoch that it closes; return all that are kept then."""
        root = select(_attempts.artifact_root).where(_attempts.job_id == claim.id, _attempts.attempt == claim.attempt)
        further = _jobs.furthest_step < checkpoint.step
        job = _own(
            connection,
            claim,
            artifact_root=root.scalar_subquery(),
            retries=case((further, 0), else_=_jobs.retries),
            furthest_step=case((further, checkpoint.step), else_=_jobs.furthest_step),
        )
        stored = asdict(checkpoint) | {"best": False, "last": False}
        stored |= {"created_at": checkpoint.created_at or self.clock.now()}
        _add(connection, attemptmodels.checkpoints, claim, [stored])
        closed = [asdict(metric) | {"step": checkpoint.step} for metric in metrics]
        _add(connection, attemptmodels.epoch_metrics, claim, closed)
        held = starts.held(connection, claim.id)
        keep = job.spec.get("keep", retention.USUAL)  # a job of an earlier version does not say it
        return line.prune(connection, claim.id, line.mark(connection, claim.id), held=held, keep=keep)

    @engine.writes
    def record_epoch(
        self, connection: Connection, claim: jobs.Claim, metrics: Iterable[jobs.EpochMetric], *, step: int
    ) -> None:
        """Store an epoch that ended with `step`, whose checkpoint has gone already."""
        _own(connection, claim)
        _add(connection, attemptmodels.epoch_metrics, claim, [asdict(metric) | {"step": step} for metric in metrics])

    @engine.writes
    def record_dataset(self, connection: Connection, claim: jobs.Claim, dataset: jobs.Dataset) -> None:
        """Store the data set and fix the job to its content hash."""
        job = _own(connection, claim, data_hash=dataset.hash)
        copies.keep(connection, job, dataset.hash, now=self.clock.now())
        values = asdict(dataset) | {"created_at": dataset.created_at or self.clock.now()}
        adding = engine.insert(connection, hostmodels.datasets).values(values)
        where_it_is = {"source": dataset.source, "path": dataset.path}
        connection.execute(adding.on_conflict_do_update(index_elements=["hash"], set_=where_it_is))

    @engine.writes
    def record_evaluation(self, connection: Connection, claim: jobs.Claim, evaluation: jobs.Evaluation) -> None:
        """Store an evaluation."""
        _own(connection, claim)
        values = asdict(evaluation) | {"created_at": evaluation.created_at or self.clock.now()}
        _add(connection, attemptmodels.evaluations, claim, [values])

    @engine.writes
    def record_log(self, connection: Connection, claim: jobs.Claim, chunk: jobs.LogChunk) -> None:
        """Store a piece of the log; one that exists stays as it is."""
        _own(connection, claim)
        _add(connection, attemptmodels.log_chunks, claim, [asdict(chunk)])

    @engine.writes
    def note(self, connection: Connection, claim: jobs.Claim, *, kind: str, detail: str) -> None:
        """Add a line to the job's history that changes no state; an attempt says the same only once."""
        job = _own(connection, claim)
        same = {"job_id": claim.id, "attempt": claim.attempt, "kind": kind, "detail": detail}
        if connection.execute(select(jobmodels.events).filter_by(**same).limit(1)).first() is None:
            moves.record(connection, job, old=job, kind=kind, actor=job.worker, now=self.clock.now(), detail=detail)

    @engine.writes_an_end
    def finish(self, connection: Connection, claim: jobs.Claim, outcome: jobs.Outcome) -> jobs.Job:
        """End the attempt and move the job on, once."""
        try:
            job = _own(connection, claim)
        except errors.Stale:
            if _ended_so(connection, claim, outcome):
                return rows.job(people.row(connection, claim.id))
            raise
        return rows.job(end(connection, job, outcome, how=outcome.kind, actor=job.worker, clock=self.clock))


def end(
    connection: Connection, job: Row[Any], outcome: jobs.Outcome, *, how: str, actor: str, clock: clock.Clock
) -> Row[Any]:
    """End the attempt of a job whose row is locked, and return the row after its move."""
    now = clock.now()
    mine = (_attempts.job_id == job.id, _attempts.attempt == job.attempt)
    last_step = _last_step(connection, job, outcome)
    ended = {"ended_at": now, "outcome": how, "reason": outcome.reason, "last_step": last_step}
    connection.execute(update(attemptmodels.attempts).where(*mine).values(ended))
    if how == "done" and job.stage is states.Stage.TRAIN and job.data_hash is not None:
        copies.keep(connection, job, job.data_hash, now=now)  # what was not there it has fetched
    return moves.apply(connection, job, moves.after(job, outcome, now=now), actor=actor, now=now)


def _begin_attempt(connection: Connection, job: Row[Any], place: dict[str, Any], *, now: datetime) -> None:
    begun = {"job_id": job.id, "attempt": job.attempt, "run": job.run, "stage": job.stage, "started_at": now}
    connection.execute(attemptmodels.attempts.insert().values(**begun, **place, submitted_by=job.submitted_by))
    detail = f"attempt {job.attempt} on {place['device']}"
    before = moves.Before(state=states.JobState.QUEUED, stage=job.stage)
    moves.record(connection, job, old=before, kind="claimed", actor=place["worker"], now=now, detail=detail)


def _last_step(connection: Connection, job: Row[Any], outcome: jobs.Outcome) -> int | None:
    """Return the last step that is known of the attempt: who vanished did not say, but its losses are there."""
    loss = attemptmodels.step_metrics.c
    mine = (loss.job_id == job.id, loss.attempt == job.attempt, loss.name == "loss")
    known: int | None = connection.execute(select(func.max(loss.step)).where(*mine)).scalar_one()
    return max((step for step in (known, outcome.last_step) if step is not None), default=None)


def _fence(claim: jobs.Claim) -> tuple[ColumnElement[bool], ...]:
    return (_jobs.id == claim.id, _jobs.attempt == claim.attempt, _jobs.state == states.JobState.RUNNING)


def _own(connection: Connection, claim: jobs.Claim, **values: Any) -> Row[Any]:
    """Update, and so lock, the row of a job that `claim` still holds; return it.

    Every fenced write begins with this: an INSERT alone could slip in behind a successor.
    """
    owning = update(jobmodels.jobs).where(*_fence(claim)).values(values or {"attempt": claim.attempt})
    job = connection.execute(owning.returning(jobmodels.jobs)).first()
    if job is None:
        raise _stale(claim)
    return job


def _stale(claim: jobs.Claim) -> errors.Stale:
    return errors.Stale(why=f"Job {claim.id} is no longer in attempt {claim.attempt}.")


def _add(connection: Connection, table: Any, claim: jobs.Claim, values: list[dict[str, Any]]) -> None:
    """Insert rows of the claim's attempt; those whose key exists stay as they are."""
    if values:
        mine = [row | {"job_id": claim.id, "attempt": claim.attempt} for row in values]
        connection.execute(engine.insert(connection, table).on_conflict_do_nothing(), mine)


def _ended_so(connection: Connection, claim: jobs.Claim, outcome: jobs.Outcome) -> bool:
    """Whether the claim's attempt has ended with this very outcome: its commit's answer may have been lost."""
    mine = (_attempts.job_id == claim.id, _attempts.attempt == claim.attempt)
    so = (_attempts.outcome == outcome.kind, _attempts.reason.is_not_distinct_from(outcome.reason))
    return connection.execute(select(_attempts.attempt).where(*mine, *so)).first() is not None


def _claimed(connection: Connection, job: Row[Any]) -> jobs.Claim:
    earlier = (_attempts.job_id == job.id, _attempts.run == job.run, _attempts.ended_at.is_not(None))
    columns = (_attempts.started_at, _attempts.ended_at, _attempts.stage, _attempts.reason)
    ended = connection.execute(select(*columns).where(*earlier)).all() if job.attempt > 1 else ()
    return jobs.Claim(
        job=rows.job(job),
        attempt=job.attempt,
        checkpoints=() if job.artifact_root is None else line.checkpoints(connection, job.id),
        start=starts.checkpoint(connection, job),
        # A clock that was set back meanwhile must not give hours away.
        ran=sum((max(row.ended_at - row.started_at, timedelta()) for row in ended), timedelta()),
        out_of_memory=sum((row.stage, row.reason) == (states.Stage.TRAIN, states.Reason.OOM) for row in ended),
    )
