"""The store's side for steering: one job, or many in one transaction; and deleting."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.engine import Connection

from orchestrator import errors
from orchestrator.core import clock, history, jobs, ordering, specs, states, stopping, verbs
from orchestrator.store import (
    attemptmodels,
    dependencies,
    engine,
    jobmodels,
    line,
    moves,
    people,
    peoplebase,
    rows,
    starts,
    waiting,
)

#: Jobs that are steered in one transaction, and seconds after which it leaves the others to the next: the beats of
#: those that run wait for it.
BATCH = 200
SECONDS = 1.0

_jobs = jobmodels.jobs.c
_Verb = verbs.Verb


class Steering(peoplebase.Steering):
    """How jobs are steered, in SQL."""

    database: engine.Database
    clock: clock.Clock

    @engine.writes_an_end
    def cancel(self, connection: Connection, job_id: str, *, actor: str) -> jobs.Job:
        """Cancel: a waiting job at once, a running one by wish."""
        return self._one(connection, job_id, verbs.Change(verb=_Verb.CANCEL), actor)

    @engine.writes
    def pause(self, connection: Connection, job_id: str, *, actor: str) -> jobs.Job:
        """Set aside: a waiting job at once, a running one by wish."""
        return self._one(connection, job_id, verbs.Change(verb=_Verb.PAUSE), actor)

    @engine.writes
    def resume(self, connection: Connection, job_id: str, *, actor: str) -> jobs.Job:
        """Let a paused job go on, or take back the wish to pause a running one."""
        return self._one(connection, job_id, verbs.Change(verb=_Verb.RESUME), actor)

    def retry(self, job_id: str, *, actor: str, from_start: bool = False) -> jobs.Job:
        """Begin a new run of a failed or cancelled job, with its checkpoints or without."""
        return self._begin_anew(job_id, verbs.Change(verb=_Verb.RETRY, from_start=from_start), actor)

    def extend(self, job_id: str, *, epochs: int, actor: str) -> jobs.Job:
        """Begin a new run of a job that has ended, with so many epochs in all."""
        return self._begin_anew(job_id, verbs.Change(verb=_Verb.EXTEND, epochs=epochs), actor)

    @engine.writes
    def _begin_anew(self, connection: Connection, job_id: str, change: verbs.Change, actor: str) -> jobs.Job:
        return self._one(connection, job_id, change, actor)

    def steer(self, change: verbs.Change, job_ids: Iterable[str], *, actor: str) -> Iterator[verbs.Changed]:
        """Do the same to many jobs, a batch in a transaction; what is refused stays as it is and says why."""
        ids, done = list(dict.fromkeys(job_ids)), 0
        while left := ids[done : done + BATCH]:
            changed = self._steer(change, left, actor)
            done += len(changed)
            yield from changed

    @engine.writes_at_length
    def _steer(
        self, connection: Connection, change: verbs.Change, job_ids: Sequence[str], actor: str
    ) -> list[verbs.Changed]:
        """Do it to the first ones, as many as there is time for."""
        until, changed = time.monotonic() + SECONDS, list[verbs.Changed]()
        for job_id in job_ids:
            changed.append(self._tried(connection, job_id, change, actor))
            if time.monotonic() >= until:
                break
        return changed

    def _tried(self, connection: Connection, job_id: str, change: verbs.Change, actor: str) -> verbs.Changed:
        try:
            return verbs.Changed(job_id=job_id, job=self._one(connection, job_id, change, actor))
        except (
            errors.IllegalMove,
            errors.NotFound,
            errors.InvalidSpec,
        ) as refused:  # before anything of it was written
            return verbs.Changed(job_id=job_id, job=None, refused=refused.message, hint=refused.hint)

    def _one(self, connection: Connection, job_id: str, change: verbs.Change, actor: str) -> jobs.Job:
        job = people.row(connection, job_id, lock=True)
        hand = _Hand(connection=connection, actor=actor, now=self.clock.now())
        return rows.job(_ACTS[change.verb](hand, job, change))

    @engine.writes_at_length
    def delete(self, connection: Connection, job_id: str, *, actor: str) -> tuple[str, ...]:
        """Remove every row of a job but for the note that it was deleted."""
        job = people.row(connection, job_id, lock=True)
        if job.state is states.JobState.RUNNING:
            raise errors.IllegalMove(
                f"Job {job_id} is running: it cannot be deleted.",
                hint=f"`orch cancel {job_id}` ends it; delete it then.",
            )
        starts.require_free(connection, job_id, doing="deleted")
        attempt, deleted = attemptmodels.attempts.c, jobmodels.deleted_jobs.c
        roots = connection.execute(select(attempt.artifact_root).where(attempt.job_id == job_id).distinct())
        held = tuple(sorted(roots.scalars()))
        note = {"id": job.id, "state": job.state, "run": job.run, "attempt": job.attempt}
        note |= {"deleted_by": actor, "deleted_at": self.clock.now()}
        # An id may come twice in an age.
        connection.execute(jobmodels.deleted_jobs.delete().where(deleted.id == job_id))
        connection.execute(jobmodels.deleted_jobs.insert().values(note))
        if job.state not in states.FINAL:
            dependencies.tell(connection, job_id, states.Ended.DELETED)
        connection.execute(jobmodels.jobs.delete().where(_jobs.id == job_id))
        return held


@dataclass(frozen=True, kw_only=True)
class _Hand:
    """Who steers, and when. The row that is steered is locked."""

    connection: Connection
    actor: str
    now: datetime

    def move(self, job: Row[Any], move: moves.Move) -> Row[Any]:
        """Move the job and return its new row."""
        return moves.apply(self.connection, job, move, actor=self.actor, now=self.now)

    def change(self, job: Row[Any], *, kind: str, detail: str | None = None, **values: Any) -> Row[Any]:
        """Change what is no state, with its event, and return the new row."""
        changing = update(jobmodels.jobs).where(_jobs.id == job.id).values(values)
        changed = self.connection.execute(changing.returning(jobmodels.jobs)).one()
        moves.record(self.connection, changed, old=job, kind=kind, actor=self.actor, now=self.now, detail=detail)
        return changed

    def behind(self, job: Row[Any]) -> dict[str, Any]:
        """Return the values of what stands before a job that is queued again."""
        begun = select(dependencies.begun()).select_from(jobmodels.jobs).where(_jobs.id == job.id)
        if self.connection.execute(begun).scalar_one():
            return waiting.blocking((), None, now=self.now)
        return waiting.blocking(dependencies.look_anew(self.connection, job.id), job.start_after, now=self.now)


def _cancel(hand: _Hand, job: Row[Any], _change: verbs.Change) -> Row[Any]:
    if job.state is states.JobState.CANCELLED or job.wish is states.Wish.CANCEL:
        return job
    if job.state is states.JobState.RUNNING:
        return hand.change(job, wish=states.Wish.CANCEL, yields_to=None, kind="cancel_requested")
    if not states.may_move(job.state, states.JobState.CANCELLED):
        raise errors.IllegalMove(f"Job {job.id} has {_ended(job)}: there is nothing to cancel.")
    return hand.move(job, moves.cancelled(hand.now))


def _pause(hand: _Hand, job: Row[Any], _change: verbs.Change) -> Row[Any]:
    if job.state is states.JobState.PAUSED or job.wish is states.Wish.PAUSE:
        return job
    if job.wish is states.Wish.CANCEL:
        raise errors.IllegalMove(f"Job {job.id} is being cancelled: it cannot be paused.")
    if job.state is states.JobState.RUNNING:
        return hand.change(job, wish=states.Wish.PAUSE, yields_to=None, kind="pause_requested")
    if not states.may_move(job.state, states.JobState.PAUSED):
        raise errors.IllegalMove(f"Job {job.id} has {_ended(job)}: there is nothing to pause.")
    return hand.move(job, moves.paused())


def _resume(hand: _Hand, job: Row[Any], _change: verbs.Change) -> Row[Any]:
    if job.wish is states.Wish.PAUSE:
        return hand.change(job, wish=states.Wish.RUN, kind="pause_taken_back")
    if job.state is not states.JobState.PAUSED:
        again = job.state in verbs.OF_USE[_Verb.RETRY]
        raise errors.IllegalMove(
            f"Job {job.id} is {job.state}: only a paused job can be resumed.",
            hint=f"`orch retry {job.id}` queues it again." if again else None,
        )
    return hand.move(job, moves.resumed(hand.behind(job)))


def _retry(hand: _Hand, job: Row[Any], change: verbs.Change) -> Row[Any]:
    if job.state not in verbs.OF_USE[_Verb.RETRY]:
        succeeded = job.state is states.JobState.SUCCEEDED
        raise errors.IllegalMove(
            f"Job {job.id} is {job.state}: only a failed or cancelled job can be retried.",
            hint=f"`orch extend {job.id}` gives it more epochs, `orch clone` makes a new job." if succeeded else None,
        )
    if change.from_start:
        starts.require_free(hand.connection, job.id, doing="trained anew")
        starts.require_own(hand.connection, job)
    queued = hand.move(job, moves.new_run(job, hand.behind(job), from_start=change.from_start))
    if change.from_start:
        detail = f"{line.forget(hand.connection, job.id)} checkpoints: the training begins anew"
        moves.record(
            hand.connection, queued, old=queued, kind=history.FORGOTTEN, actor=hand.actor, now=hand.now, detail=detail
        )
    return queued


def _extend(hand: _Hand, job: Row[Any], change: verbs.Change) -> Row[Any]:
    if job.state not in states.FINAL:
        raise errors.IllegalMove(
            f"Job {job.id} is {job.state}: only a job that has ended can be extended.",
            hint=f"`orch wait {job.id}` returns when it has.",
        )
    if job.spec_version > specs.SPEC_VERSION:  # what this orch does not know of its spec would be gone
        raise errors.IllegalMove(
            f"Job {job.id} cannot be extended by this orch, which is older.",
            why=f"It knows jobs up to version {specs.SPEC_VERSION}, this is one of version {job.spec_version}.",
            hint="Extend it with an orch like that of who submitted it.",
        )
    old = rows.job(job).spec
    if change.epochs <= old.epochs:
        raise errors.IllegalMove(
            f"Job {job.id} has {old.epochs} epochs: {change.epochs} are no more.",
            why="The number is that of all its epochs.",
            hint=f"`orch extend {job.id} --epochs {old.epochs + 1}`, or a larger number.",
        )
    spec = specs.extended(old, change.epochs)
    _require_not_over(hand.connection, job, spec)
    return hand.move(job, moves.extended(job, hand.behind(job), spec))


def _require_not_over(connection: Connection, job: Row[Any], spec: specs.JobSpec) -> None:
    """Raise `IllegalMove` where patience ends the training with the epochs that it has, however many there may be."""
    of_job = line.on_line(attemptmodels.epoch_metrics, job.id).order_by(attemptmodels.epoch_metrics.c.epoch)
    watched = stopping.watched(spec, [rows.epoch_metric(row) for row in connection.execute(of_job)])
    goes_on = bool(line.checkpoints(connection, job.id))  # else it begins anew, whatever was measured before
    if goes_on and watched and stopping.last_epoch(spec, watched) <= len(watched):
        raise errors.IllegalMove(
            f"Job {job.id} would not train any more: patience has ended it with epoch {len(watched)}.",
            hint=f"`orch clone {job.id} --epochs {spec.epochs} --patience {(spec.patience or 0) + 5}` trains it anew.",
        )


def _prioritise(hand: _Hand, job: Row[Any], change: verbs.Change) -> Row[Any]:
    if job.state in states.FINAL:
        raise errors.IllegalMove(f"Job {job.id} has {_ended(job)}: it waits for nothing.")
    if job.priority == change.priority:
        return job
    rank = ordering.rank(submitted_at=job.submitted_at, priority=change.priority)
    detail = f"priority {job.priority} to {change.priority}"
    return hand.change(job, kind="prioritised", detail=detail, priority=change.priority, rank=rank)


def _tag(hand: _Hand, job: Row[Any], change: verbs.Change) -> Row[Any]:
    tags = [tag for tag in dict.fromkeys([*job.tags, *change.add]) if tag not in change.remove]
    if tags == list(job.tags):
        return job
    return hand.change(job, kind="tagged", detail=f"tags: {', '.join(tags) or 'none'}", tags=tags)


def _note(hand: _Hand, job: Row[Any], change: verbs.Change) -> Row[Any]:
    return job if job.note == change.note else hand.change(job, kind="noted", detail=change.note, note=change.note)


def _ended(job: Row[Any]) -> str:
    return f"been {job.state}" if job.state is states.JobState.CANCELLED else f"{job.state} already"


_ACTS: dict[verbs.Verb, Callable[[_Hand, Row[Any], verbs.Change], Row[Any]]] = {
    _Verb.CANCEL: _cancel,
    _Verb.PAUSE: _pause,
    _Verb.RESUME: _resume,
    _Verb.RETRY: _retry,
    _Verb.EXTEND: _extend,
    _Verb.PRIORITY: _prioritise,
    _Verb.TAG: _tag,
    _Verb.NOTE: _note,
}
