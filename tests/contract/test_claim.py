import pytest

from orchestrator.core import jobs, ordering, specs, states
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts

STAGE = states.Stage


def test_claim_takes_the_job_and_opens_an_attempt(any_store: sql.SqlStore, clock: HandClock) -> None:
    job = parts.submit(any_store)
    clock.move(seconds=5)
    held = any_store.claim(
        worker=parts.identity("worker-b", host="host-b"), device="GPU-1", stages=(STAGE.DOWNLOAD,), artifact_root="r"
    )
    assert held is not None
    assert (held.id, held.attempt, held.job.state, held.job.worker) == (job.id, 1, states.JobState.RUNNING, "worker-b")
    assert held.job.started_at == clock.now()
    assert held.checkpoints == ()
    (attempt,) = any_store.attempts(job.id)
    assert (attempt.attempt, attempt.worker, attempt.host, attempt.device) == (1, "worker-b", "host-b", "GPU-1")
    assert (attempt.stage, attempt.started_at, attempt.ended_at, attempt.outcome) == (
        STAGE.DOWNLOAD,
        clock.now(),
        None,
        None,
    )
    event = any_store.events(job.id)[-1]
    assert (event.kind, event.old_state, event.new_state, event.attempt, event.actor) == (
        "claimed",
        states.JobState.QUEUED,
        states.JobState.RUNNING,
        1,
        "worker-b",
    )


def test_nothing_waits(any_store: sql.SqlStore) -> None:
    assert parts.claim(any_store) is None
    parts.submit(any_store)
    assert parts.claim(any_store, STAGE.TRAIN, STAGE.EVALUATE) is None
    parts.claimed(any_store)
    assert parts.claim(any_store) is None


def test_jobs_are_claimed_in_order_of_submission(any_store: sql.SqlStore) -> None:
    submitted = [parts.submit(any_store).id for _ in range(5)]
    assert [parts.claimed(any_store).id for _ in range(5)] == submitted


def test_priority_is_worth_an_hour_a_point(any_store: sql.SqlStore, clock: HandClock) -> None:
    old = parts.submit(any_store)
    clock.move(seconds=ordering.PRIORITY_BONUS.total_seconds() - 1)
    urgent = parts.submit(any_store, priority=1)
    clock.move(seconds=2)
    late = parts.submit(any_store, priority=1)
    assert [parts.claimed(any_store).id for _ in range(3)] == [urgent.id, old.id, late.id]


def test_first_stage_that_has_a_job_wins(any_store: sql.SqlStore) -> None:
    first = parts.submit(any_store)
    any_store.finish(parts.claimed(any_store), parts.DONE)
    second = parts.submit(any_store)
    assert parts.claimed(any_store, STAGE.EVALUATE, STAGE.DOWNLOAD, STAGE.TRAIN).id == second.id
    assert parts.claimed(any_store, STAGE.EVALUATE, STAGE.DOWNLOAD, STAGE.TRAIN).id == first.id


def test_job_that_backs_off_is_passed_over(any_store: sql.SqlStore, clock: HandClock) -> None:
    tired, fresh = parts.submit(any_store), parts.submit(any_store)
    any_store.finish(parts.claimed(any_store), parts.failed(states.Reason.UNREACHABLE))
    assert parts.claimed(any_store).id == fresh.id
    assert parts.claim(any_store) is None
    clock.move(minutes=10)
    assert parts.claimed(any_store).id == tired.id


def test_newer_spec_is_left_to_newer_workers(any_store: sql.SqlStore) -> None:
    newer, ours = parts.submit(any_store), parts.submit(any_store)
    parts.overwrite(any_store, newer.id, spec_version=specs.SPEC_VERSION + 1)
    assert parts.claimed(any_store).id == ours.id
    assert parts.claim(any_store) is None


def test_checkpoints_bind_a_job_to_their_root(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    any_store.record_checkpoint(held, parts.checkpoint(held, 10))
    any_store.finish(held, parts.DRAINED)
    assert parts.claim(any_store, root="root-b") is None
    again = parts.claimed(any_store, root=parts.ROOT)
    assert again.job.artifact_root == parts.ROOT
    assert [point.step for point in again.checkpoints] == [10]


def test_job_without_checkpoints_goes_to_any_root(any_store: sql.SqlStore) -> None:
    parts.submit(any_store)
    any_store.finish(parts.claimed(any_store, root="root-a"), parts.DONE)
    assert parts.claim(any_store, root="root-b") is not None


def test_claim_names_the_newest_checkpoint_first(any_store: sql.SqlStore) -> None:
    held = parts.training(any_store)
    for step in (10, 20):
        any_store.record_checkpoint(held, parts.checkpoint(held, step))
    any_store.finish(held, parts.DRAINED)
    assert [point.step for point in parts.claimed(any_store).checkpoints] == [20, 10]


def test_claim_knows_how_long_its_run_has_run_already(any_store: sql.SqlStore, clock: HandClock) -> None:
    held = parts.training(any_store)
    clock.move(minutes=3)
    any_store.pause(held.id, actor="ada")
    any_store.finish(held, parts.PAUSED)
    clock.move(days=3)
    any_store.resume(held.id, actor="ada")
    clock.move(minutes=1)
    again = parts.claimed(any_store)
    assert again.ran.total_seconds() == 180
    any_store.finish(again, parts.failed(states.Reason.DIVERGED))
    any_store.retry(again.id, actor="ada")
    assert parts.claimed(any_store).ran.total_seconds() == 0


def test_claim_knows_how_often_its_trainings_ran_out_of_memory(any_store: sql.SqlStore, clock: HandClock) -> None:
    held = parts.training(any_store)
    counts = [held.out_of_memory]
    for ended in (parts.failed(states.Reason.OOM), parts.DRAINED, parts.failed(states.Reason.OOM)):
        any_store.finish(held, ended)
        clock.move(seconds=3600)
        held = parts.claimed(any_store, states.Stage.TRAIN)
        counts.append(held.out_of_memory)
    assert counts == [0, 1, 1, 2]
    any_store.finish(held, parts.DONE)
    assert parts.claimed(any_store, states.Stage.EVALUATE).out_of_memory == 2


def test_every_stage_in_turn_leads_to_success(any_store: sql.SqlStore, clock: HandClock) -> None:
    job = parts.submit(any_store)
    for stage in (STAGE.DOWNLOAD, STAGE.TRAIN, STAGE.EVALUATE):
        held = parts.claimed(any_store)
        assert held.job.stage is stage
        clock.move(seconds=1)
        ended = any_store.finish(held, parts.DONE)
    assert (ended.state, ended.attempt, ended.worker) == (states.JobState.SUCCEEDED, 3, None)
    assert ended.finished_at == clock.now()
    assert [attempt.outcome for attempt in any_store.attempts(job.id)] == ["done"] * 3
    assert parts.kinds(any_store, job.id) == [
        "submitted",
        *["claimed", "stage_done"] * 2,
        "claimed",
        "succeeded",
    ]


def test_beat_moves_the_lease_and_tells_the_wish(any_store: sql.SqlStore) -> None:
    parts.submit(any_store)
    held = parts.claimed(any_store)
    (before,) = any_store.leases()
    assert any_store.beat(held) is states.Wish.RUN
    (after,) = any_store.leases()
    assert (after.attempt, after.beat, after.worker) == (before.attempt, before.beat + 1, "worker-a")
    any_store.cancel(held.id, actor="ada")
    assert any_store.beat(held) is states.Wish.CANCEL
    assert any_store.wish(held) is states.Wish.CANCEL


def test_stage_begins_without_the_progress_of_the_one_before(any_store: sql.SqlStore) -> None:
    parts.submit(any_store)
    held = parts.claimed(any_store)
    any_store.record_progress(held, jobs.Progress(done=5, total=9, unit="bytes", rate=2.5))
    assert any_store.get(held.id).progress.done == 5
    assert any_store.finish(held, parts.DONE).progress == jobs.Progress()


@pytest.mark.parametrize("stage", list(STAGE))
def test_stage_keeps_its_place_after_a_drain(any_store: sql.SqlStore, stage: states.Stage) -> None:
    parts.submit(any_store)
    while (held := parts.claimed(any_store)).job.stage is not stage:
        any_store.finish(held, parts.DONE)
    drained = any_store.finish(held, parts.DRAINED)
    assert (drained.state, drained.stage, drained.retries) == (states.JobState.QUEUED, stage, 0)
