import pytest

from orchestrator import errors
from orchestrator.core import jobs, states
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts

Reason, State, Stage, Wish = states.Reason, states.JobState, states.Stage, states.Wish


def test_waiting_job_is_paused_at_once_and_claimed_by_nobody(any_store: sql.SqlStore) -> None:
    job = any_store.pause(parts.submit(any_store).id, actor="ada")
    assert (job.state, job.attempt) == (State.PAUSED, 0)
    event = any_store.events(job.id)[-1]
    assert (event.kind, event.actor, event.old_state, event.new_state) == ("paused", "ada", State.QUEUED, State.PAUSED)
    assert parts.claim(any_store) is None
    assert any_store.counts().eligible[Stage.DOWNLOAD] == 0


def test_running_job_is_paused_by_its_worker(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    job = any_store.pause(held.id, actor="ada")
    assert (job.state, job.wish, any_store.beat(held)) == (State.RUNNING, Wish.PAUSE, Wish.PAUSE)
    any_store.record_checkpoint(held, parts.checkpoint(held, 7))
    job = any_store.finish(held, parts.PAUSED)
    assert (job.state, job.stage, job.wish, job.worker) == (State.PAUSED, Stage.TRAIN, Wish.RUN, None)
    assert (job.retries, job.total_retries) == (0, 0)
    assert any_store.attempts(job.id)[-1].outcome == "paused"
    assert parts.kinds(any_store, job.id)[-2:] == ["pause_requested", "paused"]
    assert parts.claim(any_store) is None


def test_resumed_job_goes_on_at_its_checkpoint(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_checkpoint(held, parts.checkpoint(held, 7))
    any_store.pause(held.id, actor="ada")
    any_store.finish(held, parts.PAUSED)
    job = any_store.resume(held.id, actor="bob")
    assert (job.state, job.stage, job.run, job.retries) == (State.QUEUED, Stage.TRAIN, 1, 0)
    assert any_store.events(job.id)[-1].kind == "resumed"
    again = parts.claimed(any_store)
    assert (again.attempt, again.checkpoints[0].step) == (held.attempt + 1, 7)


@pytest.mark.parametrize("waiting", [True, False])
def test_second_pause_changes_nothing(any_store: sql.SqlStore, waiting: bool) -> None:
    job_id = parts.submit(any_store).id if waiting else parts.training(any_store).id
    job = any_store.pause(job_id, actor="ada")
    before = parts.kinds(any_store, job_id)
    assert any_store.pause(job_id, actor="bob") == job
    assert parts.kinds(any_store, job_id) == before


def test_pause_that_is_taken_back_in_time_costs_nothing(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.pause(held.id, actor="ada")
    job = any_store.resume(held.id, actor="ada")
    assert (job.state, job.wish, job.worker) == (State.RUNNING, Wish.RUN, "worker-a")
    assert any_store.events(held.id)[-1].kind == "pause_taken_back"


def test_pause_that_is_taken_back_too_late_queues_the_job(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.pause(held.id, actor="ada")
    any_store.resume(held.id, actor="ada")
    job = any_store.finish(held, parts.PAUSED)  # its process had been asked already
    assert (job.state, any_store.attempts(job.id)[-1].outcome) == (State.QUEUED, "paused")


def test_cancel_wins_over_pause_at_any_time(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.pause(held.id, actor="ada")
    assert any_store.cancel(held.id, actor="ada").wish is Wish.CANCEL
    with pytest.raises(errors.IllegalMove, match="being cancelled"):
        any_store.pause(held.id, actor="ada")
    assert any_store.finish(held, parts.PAUSED).state is State.CANCELLED
    waiting = any_store.pause(parts.submit(any_store).id, actor="ada")
    assert any_store.cancel(waiting.id, actor="ada").state is State.CANCELLED


@pytest.mark.parametrize(
    ("outcome", "stage", "retries"),
    [
        (parts.DRAINED, Stage.TRAIN, 0),
        (parts.DONE, Stage.EVALUATE, 0),  # of a stage that is not the last
        (parts.failed(Reason.GPU_ERROR), Stage.TRAIN, 1),  # a failure counts, whatever is wished
    ],
)
def test_job_to_be_paused_never_starts_again_by_itself(
    any_store: sql.SqlStore, clock: HandClock, outcome: jobs.Outcome, stage: states.Stage, retries: int
) -> None:
    held = parts.training(any_store)
    any_store.pause(held.id, actor="ada")
    job = any_store.finish(held, outcome)
    assert (job.state, job.stage, job.retries, job.not_before) == (State.PAUSED, stage, retries, None)
    clock.move(hours=1)
    assert parts.claim(any_store) is None


def test_lost_job_that_was_to_be_paused_is_paused(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.pause(held.id, actor="ada")
    job = any_store.take_back(any_store.leases()[0], actor="r", detail="silent")
    assert job is not None
    assert (job.state, job.retries, any_store.attempts(held.id)[-1].outcome) == (State.PAUSED, 1, "lost")


def test_end_comes_before_a_pause(any_store: sql.SqlStore) -> None:
    hopeless = parts.training(any_store)
    any_store.pause(hopeless.id, actor="ada")
    assert any_store.finish(hopeless, parts.failed(Reason.BAD_INPUT)).state is State.FAILED
    held = parts.training(any_store)
    any_store.finish(held, parts.DONE)
    last = parts.claimed(any_store, Stage.EVALUATE)
    any_store.pause(last.id, actor="ada")
    assert any_store.finish(last, parts.DONE).state is State.SUCCEEDED
    for verb in (any_store.pause, any_store.resume):
        with pytest.raises(errors.IllegalMove, match="succeeded"):
            verb(last.id, actor="ada")


def test_only_what_is_paused_can_be_resumed(any_store: sql.SqlStore) -> None:
    job = parts.submit(any_store)
    with pytest.raises(errors.IllegalMove, match="is queued"):
        any_store.resume(job.id, actor="ada")
    held = parts.claimed(any_store)
    with pytest.raises(errors.IllegalMove, match="is running"):
        any_store.resume(held.id, actor="ada")
    any_store.cancel(held.id, actor="ada")
    any_store.finish(held, jobs.Outcome(kind="cancelled"))
    with pytest.raises(errors.IllegalMove) as caught:
        any_store.resume(held.id, actor="ada")
    assert f"orch retry {held.id}" in str(caught.value.hint)
