"""What becomes of a job when an attempt ends (a pure rule), and the one writer of moves and their events."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, update
from sqlalchemy.engine import Connection

from orchestrator.core import dependencies, history, jobs, retry, specs, states
from orchestrator.store import dependencies as stored
from orchestrator.store import jobmodels, tellings

#: Values of a job that wait for the next claim afresh.
NO_PROGRESS: dict[str, Any] = {
    "progress_done": 0,
    "progress_total": None,
    "progress_unit": "steps",
    "progress_epoch": None,
    "progress_epochs": None,
    "progress_rate": None,
    "progress_at": None,
}


#: Values of a job of which nothing is wished.
NO_WISH: dict[str, Any] = {"wish": states.Wish.RUN, "yields_to": None}


@dataclass(frozen=True, kw_only=True)
class Move:
    """A change of a job's state, with its event."""

    state: states.JobState
    kind: str
    detail: str | None = None
    reason: states.Reason | None = None  #: of the event; the job keeps one only where it fails
    values: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Before:
    """How a job stood, where its row as it was is not at hand."""

    state: states.JobState
    stage: states.Stage


def after(job: Row[Any], outcome: jobs.Outcome, *, now: datetime) -> Move:
    """Return the move of a running job whose attempt ended with `outcome`.

    A wish wins over everything but an end: who asked for one must not see the job start again.
    """
    following = states.NEXT_STAGE[job.stage]
    if outcome.kind == "done" and following is None:
        return _ended(states.JobState.SUCCEEDED, now, detail=outcome.error)
    if outcome.kind == "cancelled" or job.wish is states.Wish.CANCEL:
        return _ended(states.JobState.CANCELLED, now, detail=outcome.error)
    move = _going_on(job, outcome, following, now=now)
    if move.state is states.JobState.QUEUED and job.wish is states.Wish.PAUSE:
        return replace(move, state=states.JobState.PAUSED, values=move.values | {"not_before": None, "blocked": False})
    return move


def _going_on(job: Row[Any], outcome: jobs.Outcome, following: states.Stage | None, *, now: datetime) -> Move:
    if outcome.kind == "done":
        return _queued("stage_done", stage=following, retries=0, **NO_PROGRESS)
    if outcome.kind == "yielded":
        to = "to nobody: that was taken back too late" if job.yields_to is None else f"to {job.yields_to}"
        return _queued(history.YIELDED, detail=f"{to}. {outcome.error}" if outcome.error else to)
    if outcome.kind in {"drained", "paused"}:
        return _queued(outcome.kind, detail=outcome.error)
    return _after_failure(job, outcome, now=now)


def cancelled(now: datetime) -> Move:
    """Return the move of a waiting job that a person cancels."""
    return _ended(states.JobState.CANCELLED, now, detail=None)


def paused() -> Move:
    """Return the move of a waiting job that a person sets aside."""
    return Move(state=states.JobState.PAUSED, kind="paused", values={"not_before": None})


def resumed(blocking: dict[str, Any]) -> Move:
    """Return the move of a paused job that a person lets go on; `blocking` are the values of what stands before it."""
    return _queued("resumed", **blocking)


def new_run(job: Row[Any], blocking: dict[str, Any], *, from_start: bool = False) -> Move:
    """Return the move of a failed or cancelled job that a person starts again: at its stage, from its checkpoints.

    `blocking` are the values of what stands before it. `from_start`: at its first stage, wherever its checkpoints lie.
    """
    fresh: dict[str, Any] = dict.fromkeys(("reason", "error", "hint", "started_at", "finished_at"))
    if from_start:
        root = None if job.start_step is None else job.artifact_root  # where its parent's checkpoint lies
        fresh |= {"stage": states.FIRST_STAGE, "artifact_root": root, "furthest_step": 0}
    return _queued("new_run", run=job.run + 1, retries=0, total_retries=0, **blocking, **fresh, **NO_PROGRESS)


def extended(job: Row[Any], blocking: dict[str, Any], spec: specs.JobSpec) -> Move:
    """Return the move of a job that has ended and gets more epochs: to its training, which goes on.

    `blocking` are the values of what stands before it, `spec` is its own with the new number.
    """
    again = new_run(job, blocking)
    values: dict[str, Any] = {"spec": spec.model_dump(mode="json"), "spec_hash": spec.digest()}
    values |= {"spec_version": specs.SPEC_VERSION}
    if job.stage is states.Stage.EVALUATE:
        values |= {"stage": states.Stage.TRAIN}
    detail = f"epochs {job.spec['epochs']} to {spec.epochs}"
    return replace(again, kind=history.EXTENDED, detail=detail, values=again.values | values)


def failed_by_another(job: Row[Any], broken: dependencies.Dependency, *, now: datetime) -> Move:
    """Return the move of a job that waited for the success of another, which ended otherwise."""
    said = {states.Ended.FAILED: "has failed", states.Ended.CANCELLED: "was cancelled"}
    error = f"Job {broken.needs}, which it waited for, {said.get(broken.ended or states.Ended.DELETED, 'was deleted')}."
    hint = f"`orch retry {broken.needs}`, then `orch retry {job.id}`."
    if broken.ended is states.Ended.DELETED:
        hint = f"`orch clone {job.id}` makes a job that waits for none."
    reason = states.Reason.DEPENDENCY
    return _ended(states.JobState.FAILED, now, detail=error, reason=reason, error=error, hint=hint)


def apply(connection: Connection, job: Row[Any], move: Move, *, actor: str, now: datetime) -> Row[Any]:
    """Write a move and its event, and return the job's new row. The caller holds the row's lock."""
    if not states.may_move(job.state, move.state):
        raise ValueError(f"{job.state} to {move.state} is no legal move")
    moved = connection.execute(
        update(jobmodels.jobs)
        .where(jobmodels.jobs.c.id == job.id)
        .values({"state": move.state, "worker": None, "blocked": False, **NO_WISH, **move.values})
        .returning(jobmodels.jobs)
    ).one()
    record(connection, moved, kind=move.kind, actor=actor, now=now, old=job, reason=move.reason, detail=move.detail)
    tellings.move(connection, moved, reason=move.reason, detail=move.detail, now=now)
    if move.state in states.FINAL:
        stored.tell(connection, job.id, states.Ended(move.state.value))
    elif job.state in states.FINAL:
        stored.take_back(connection, job.id)
    return moved


def record(
    connection: Connection,
    job: Row[Any],
    *,
    kind: str,
    actor: str,
    now: datetime,
    old: Row[Any] | Before | None = None,
    reason: states.Reason | None = None,
    detail: str | None = None,
) -> None:
    """Add a line to the history of `job` (its row after the change; `old` is how it stood before)."""
    changed = old is None or old.state is not job.state
    connection.execute(
        jobmodels.events.insert().values(
            job_id=job.id,
            run=job.run,
            attempt=job.attempt,
            at=now,
            actor=actor,
            kind=kind,
            old_state=old.state if old is not None and changed else None,
            new_state=job.state if changed else None,
            stage=old.stage if old is not None else job.stage,
            reason=reason,
            detail=detail,
        )
    )


def _after_failure(job: Row[Any], outcome: jobs.Outcome, *, now: datetime) -> Move:
    reason = outcome.reason or states.Reason.INTERNAL
    own = job.spec.get("retries", {})  # a job of an earlier version has none
    decision = retry.decide(reason=reason, retries=job.retries, total=job.total_retries, limits=own)
    detail = f"{outcome.error} ({decision.why})" if outcome.error else decision.why
    if decision.delay is None:
        error, hint = outcome.error or decision.why, outcome.hint
        if reason is states.Reason.LOST and job.total_retries:
            # One worker after the other vanished with this job: it is the job that kills them.
            reason, hint = states.Reason.POISON, f"`orch logs {job.id}` shows how far it came each time."
        return _ended(states.JobState.FAILED, now, detail=detail, reason=reason, error=error, hint=hint)
    return _queued(
        "lost" if reason is states.Reason.LOST else "retried",
        detail=detail,
        because=reason,
        retries=job.retries + 1,
        total_retries=job.total_retries + 1,
        not_before=now + decision.delay if decision.delay > timedelta(0) else None,
        blocked=decision.delay > timedelta(0),
    )


def _queued(kind: str, *, detail: str | None = None, because: states.Reason | None = None, **values: Any) -> Move:
    return Move(
        state=states.JobState.QUEUED, kind=kind, detail=detail, reason=because, values={"not_before": None, **values}
    )


def _ended(state: states.JobState, now: datetime, *, detail: str | None, **values: Any) -> Move:
    return Move(
        state=state,
        kind=state.value,
        detail=detail,
        reason=values.get("reason"),
        values={"finished_at": now, "not_before": None, **values},
    )
