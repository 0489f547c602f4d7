import pytest

from orchestrator import errors
from orchestrator.core import jobs, retry, specs, states
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts

Reason, State, Stage = states.Reason, states.JobState, states.Stage


@pytest.mark.parametrize("reason", [Reason.BAD_INPUT, Reason.DIVERGED, Reason.NO_VALID_CHECKPOINT, Reason.TIMEOUT])
def test_hopeless_failure_ends_the_job(any_store: sql.SqlStore, clock: HandClock, reason: states.Reason) -> None:
    held = parts.training(any_store)
    clock.move(seconds=3)
    job = any_store.finish(held, parts.failed(reason))
    assert (job.state, job.reason, job.error, job.hint) == (State.FAILED, reason, f"it was {reason}", "look at the log")
    assert (job.finished_at, job.worker, job.stage) == (clock.now(), None, Stage.TRAIN)
    event = any_store.events(job.id)[-1]
    assert (event.kind, event.old_state, event.new_state, event.reason) == (
        "failed",
        State.RUNNING,
        State.FAILED,
        reason,
    )
    attempt = any_store.attempts(job.id)[-1]
    assert (attempt.outcome, attempt.reason, attempt.ended_at) == ("failed", reason, clock.now())


def test_passing_failure_waits_and_tries_again(any_store: sql.SqlStore, clock: HandClock) -> None:
    held = parts.training(any_store)
    job = any_store.finish(held, parts.failed(Reason.GPU_ERROR))
    assert (job.state, job.reason, job.retries, job.total_retries) == (State.QUEUED, None, 1, 1)
    assert job.not_before is not None
    assert retry.FIRST_BACKOFF / 2 <= job.not_before - clock.now() <= retry.FIRST_BACKOFF
    event = any_store.events(job.id)[-1]
    assert (event.kind, event.reason, event.new_state) == ("retried", Reason.GPU_ERROR, State.QUEUED)
    assert parts.claim(any_store) is None
    clock.move(seconds=5)
    again = parts.claimed(any_store)
    assert (again.job.not_before, again.attempt) == (None, held.attempt + 1)


def test_retries_run_out(any_store: sql.SqlStore, clock: HandClock) -> None:
    held = parts.training(any_store)
    for _ in range(retry.LIMITS[Reason.GPU_ERROR]):
        assert any_store.finish(held, parts.failed(Reason.GPU_ERROR)).state is State.QUEUED
        clock.move(minutes=10)
        held = parts.claimed(any_store)
    job = any_store.finish(held, parts.failed(Reason.GPU_ERROR))
    assert (job.state, job.reason) == (State.FAILED, Reason.GPU_ERROR)
    assert "used up" in str(any_store.events(job.id)[-1].detail)


@pytest.mark.parametrize(("reason", "count"), [(Reason.LOST, 0), (Reason.LOST, 6), (Reason.DIVERGED, 2)])
def test_a_job_may_say_itself_how_often_it_is_tried_again(
    any_store: sql.SqlStore, clock: HandClock, reason: states.Reason, count: int
) -> None:
    held = parts.training(any_store, spec=specs.JobSpec(retries={reason: count}))
    for _ in range(count):
        assert any_store.finish(held, parts.failed(reason)).state is State.QUEUED
        clock.move(minutes=10)
        held = parts.claimed(any_store)
    job = any_store.finish(held, parts.failed(reason))
    poisonous = reason is Reason.LOST and count > 0  # one loss alone proves nothing of the job
    assert (job.state, job.reason) == (State.FAILED, Reason.POISON if poisonous else reason)


def test_job_that_kills_every_worker_is_poison(any_store: sql.SqlStore, clock: HandClock) -> None:
    held = parts.training(any_store)
    for _ in range(retry.LIMITS[Reason.LOST]):
        any_store.finish(held, parts.failed(Reason.LOST))
        clock.move(minutes=10)
        held = parts.claimed(any_store)
    job = any_store.finish(held, parts.failed(Reason.LOST))
    assert (job.reason, job.error) == (Reason.POISON, "it was lost")
    assert f"orch logs {job.id}" in str(job.hint)
    assert any_store.attempts(held.id)[-1].reason is Reason.LOST


def test_progress_resets_retries_up_to_the_absolute_limit(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    for step in range(1, retry.ABSOLUTE_LIMIT + 1):
        any_store.record_checkpoint(held, parts.checkpoint(held, step))
        job = any_store.finish(held, parts.failed(Reason.LOST))
        assert (job.state, job.retries, job.total_retries) == (State.QUEUED, 1, step)
        held = parts.claimed(any_store)
    any_store.record_checkpoint(held, parts.checkpoint(held, retry.ABSOLUTE_LIMIT + 1))
    assert any_store.finish(held, parts.failed(Reason.LOST)).state is State.FAILED


def test_checkpoint_behind_an_earlier_one_is_no_progress(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_checkpoint(held, parts.checkpoint(held, 10))
    any_store.record_checkpoint(held, parts.checkpoint(held, 20))
    held = parts.resume(any_store, held, step=10, ended=parts.failed(Reason.LOST))
    any_store.record_checkpoint(held, parts.checkpoint(held, 20))
    assert any_store.get(held.id).retries == 1
    any_store.record_checkpoint(held, parts.checkpoint(held, 21))
    assert any_store.get(held.id).retries == 0


def test_drains_cost_nothing(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    for _ in range(20):
        job = any_store.finish(held, parts.DRAINED)
        assert (job.state, job.retries, job.total_retries, job.not_before) == (State.QUEUED, 0, 0, None)
        held = parts.claimed(any_store)
    assert any_store.attempts(held.id)[2].outcome == "drained"


def test_waiting_job_is_cancelled_at_once(any_store: sql.SqlStore) -> None:
    job = any_store.cancel(parts.submit(any_store).id, actor="ada")
    assert (job.state, job.reason) == (State.CANCELLED, None)
    event = any_store.events(job.id)[-1]
    assert (event.kind, event.actor, event.old_state, event.new_state) == (
        "cancelled",
        "ada",
        State.QUEUED,
        State.CANCELLED,
    )
    assert any_store.cancel(job.id, actor="ada") == job
    assert parts.kinds(any_store, job.id) == ["submitted", "cancelled"]


def test_running_job_is_asked_to_cancel_once(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    job = any_store.cancel(held.id, actor="ada")
    assert (job.state, job.wish, job.worker) == (State.RUNNING, states.Wish.CANCEL, "worker-a")
    assert any_store.cancel(held.id, actor="bob") == job
    assert parts.kinds(any_store, held.id).count("cancel_requested") == 1


@pytest.mark.parametrize(
    "outcome",
    [
        jobs.Outcome(kind="cancelled"),
        parts.DRAINED,
        parts.DONE,  # of a stage that is not the last
        parts.failed(Reason.LOST),
        parts.failed(Reason.BAD_INPUT),
    ],
)
def test_job_to_be_cancelled_never_starts_again(any_store: sql.SqlStore, outcome: jobs.Outcome) -> None:
    held = parts.training(any_store)
    any_store.cancel(held.id, actor="ada")
    job = any_store.finish(held, outcome)
    assert (job.state, job.reason, job.wish) == (State.CANCELLED, None, states.Wish.RUN)
    assert parts.claim(any_store) is None


def test_cancel_after_the_last_step_comes_too_late(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.finish(held, parts.DONE)
    last = parts.claimed(any_store, Stage.EVALUATE)
    any_store.cancel(last.id, actor="ada")
    assert any_store.finish(last, parts.DONE).state is State.SUCCEEDED
    with pytest.raises(errors.IllegalMove):
        any_store.cancel(last.id, actor="ada")


def test_failed_job_cannot_be_cancelled(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.finish(held, parts.failed(Reason.BAD_INPUT))
    with pytest.raises(errors.IllegalMove, match="failed"):
        any_store.cancel(held.id, actor="ada")


def test_retry_begins_a_new_run_from_the_last_checkpoint(any_store: sql.SqlStore, clock: HandClock) -> None:
    held = parts.training(any_store)
    any_store.record_checkpoint(held, parts.checkpoint(held, 10, accuracy=0.6))
    any_store.finish(held, parts.failed(Reason.LOST))
    held = parts.claimed(any_store)
    any_store.finish(held, parts.failed(Reason.DIVERGED))
    clock.move(hours=1)
    job = any_store.retry(held.id, actor="bob")
    assert (job.state, job.stage, job.run, job.attempt) == (State.QUEUED, Stage.TRAIN, 2, 3)
    assert (job.retries, job.total_retries, job.reason, job.error, job.hint) == (0, 0, None, None, None)
    assert (job.started_at, job.finished_at, job.not_before) == (None, None, None)
    assert job.best_accuracy == 0.6
    event = any_store.events(job.id)[-1]
    assert (event.kind, event.actor, event.run, event.old_state) == ("new_run", "bob", 2, State.FAILED)
    again = parts.claimed(any_store)
    assert (again.checkpoints[0].step, again.attempt, any_store.attempts(job.id)[-1].run) == (10, 4, 2)


def test_cancelled_job_can_be_retried(any_store: sql.SqlStore) -> None:
    job = any_store.cancel(parts.submit(any_store).id, actor="ada")
    assert any_store.retry(job.id, actor="ada").state is State.QUEUED
    assert parts.claimed(any_store).job.run == 2


def test_only_an_ended_run_can_be_retried(any_store: sql.SqlStore) -> None:
    job = parts.submit(any_store)
    with pytest.raises(errors.IllegalMove, match="queued"):
        any_store.retry(job.id, actor="ada")
    held = parts.claimed(any_store)
    with pytest.raises(errors.IllegalMove, match="running"):
        any_store.retry(job.id, actor="ada")
    for _ in Stage:
        any_store.finish(held, parts.DONE)
        held = parts.claim(any_store) or held
    with pytest.raises(errors.IllegalMove, match="succeeded"):
        any_store.retry(job.id, actor="ada")


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry", "delete"])
def test_unknown_job_cannot_be_steered(any_store: sql.SqlStore, verb: str) -> None:
    with pytest.raises(errors.NotFound):
        getattr(any_store, verb)("nothere0", actor="ada")


def test_attempts_of_events_never_go_back(any_store: sql.SqlStore, clock: HandClock) -> None:
    held = parts.training(any_store)
    any_store.take_back(any_store.leases()[0], actor="reconciler", detail="silent")
    held = parts.claimed(any_store)
    any_store.note(held, kind="threads", detail="2 instead of 4")
    any_store.finish(held, parts.failed(Reason.BAD_INPUT))
    clock.move(seconds=1)
    any_store.retry(held.id, actor="ada")
    seen = [event.attempt for event in any_store.events(held.id)]
    assert seen == sorted(seen)
    assert [event.at for event in any_store.events(held.id)] == sorted(e.at for e in any_store.events(held.id))
