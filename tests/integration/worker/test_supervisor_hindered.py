"""The supervisor where others hinder it: database or fork server are away, a folder cannot be, the job is lost."""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from orchestrator import config, errors
from orchestrator.core import clock as clocks
from orchestrator.core import jobs, layout, specs, states
from orchestrator.store import sql
from tests.integration.worker.conftest import Bench
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def test_an_end_whose_answer_was_lost_is_said_again(
    bench: Bench, stage: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage("succeed")
    finish, lost = bench.store.finish, iter([True])

    def cut(claim: jobs.Claim, outcome: jobs.Outcome) -> jobs.Job:
        job = finish(claim, outcome)
        for _ in lost:
            raise errors.DatabaseUnavailable(why="the connection was cut during the commit")
        return job

    monkeypatch.setattr(bench.store, "finish", cut)
    job = bench.run()
    assert job is not None
    assert (job.stage, job.state) == (states.Stage.TRAIN, states.JobState.QUEUED)


def test_a_job_that_was_taken_back_is_let_go_and_nothing_more_is_written(
    bench: Bench, stage: Callable[[str], None]
) -> None:
    stage("ignore_stop")

    def take_back() -> None:
        while not any(
            bench.store.take_back(lease, actor="reconciler", detail="a test") for lease in bench.store.leases()
        ):
            pass

    assert bench.run_beside(take_back) is None
    after = bench.store.events(bench.job.id)
    assert after[-1].kind == "lost"
    assert bench.attempt.outcome == "lost"


class _Jumping(clocks.SystemClock):
    """A clock that is set forward; it counts how often it was looked at since."""

    ahead, looks = 0.0, 0

    def monotonic(self) -> float:
        self.looks += 1
        return super().monotonic() + self.ahead


def test_time_in_which_a_supervisor_was_frozen_is_left_out(
    settings: config.Settings,
    store: sql.SqlStore,
    cold_fork_server: Path,
    stage: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when a container is paused: the process could not move either, and it has run no longer."""
    bench = Bench(settings, store, cold_fork_server, spec=specs.JobSpec(max_duration=1.0))
    clock = _Jumping()
    monkeypatch.setattr(bench.supervisor, "_clock", clock)
    monkeypatch.setattr("worker.supervisor._TICK_SECONDS", 0.05)
    stage("wait_for_stop")

    def freeze_and_cancel() -> None:
        clock.ahead, clock.looks = 3700 + settings.stall, 0
        until(lambda: clock.looks > 20 or bench.attempt.outcome)  # some of them at each look at the process
        bench.cancel()

    bench.run_beside(freeze_and_cancel)
    assert bench.attempt.outcome == "cancelled"


def test_a_directory_that_cannot_be_made_fails_the_job_and_not_the_slot(
    bench: Bench, stage: Callable[[str], None], settings: config.Settings
) -> None:
    stage("succeed")
    settings.artifact_dir.mkdir(parents=True)
    (settings.artifact_dir / bench.job.id).write_text("in the way", encoding="utf-8")
    job = bench.run()
    assert job is not None
    assert bench.attempt.reason is states.Reason.INTERNAL


def test_writes_wait_for_a_database_that_is_away(
    bench: Bench, stage: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage("succeed")
    refusals = iter(range(2))
    finish = bench.store.finish

    def away(claim: jobs.Claim, outcome: jobs.Outcome) -> jobs.Job:
        if next(refusals, None) is not None:
            raise errors.DatabaseUnavailable(why="a test")
        return finish(claim, outcome)

    monkeypatch.setattr(bench.store, "finish", away)
    monkeypatch.setattr("worker.supervisor._TICK_SECONDS", 0.05)
    job = bench.run()
    assert job is not None
    assert job.stage is states.Stage.TRAIN


def test_a_process_does_not_wait_for_a_database_that_is_away(
    bench: Bench, stage: Callable[[str], None], settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage("talk")
    log = settings.artifact_dir / bench.job.id / "attempt-0001" / layout.LOG
    record = bench.store.record_steps

    def slowly_away(claim: jobs.Claim, steps: Iterable[jobs.StepMetric]) -> None:
        if "all is said" not in log.read_text(encoding="utf-8"):
            time.sleep(0.2)
            raise errors.DatabaseUnavailable(why="a test")
        record(claim, steps)

    monkeypatch.setattr(bench.store, "record_steps", slowly_away)
    monkeypatch.setattr("worker.supervisor._TICK_SECONDS", 0.05)
    assert bench.run() is not None
    assert len(bench.store.steps(bench.job.id)) == 500


def test_a_write_that_can_never_succeed_fails_the_attempt_and_not_the_slot(
    bench: Bench, stage: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage("succeed")

    def refuse(_claim: jobs.Claim, _progress: jobs.Progress) -> None:
        raise ValueError("by design")

    monkeypatch.setattr(bench.store, "record_progress", refuse)
    assert bench.run() is not None
    assert bench.attempt.reason is states.Reason.INTERNAL


def test_an_end_that_cannot_be_written_fails_the_attempt_at_once(
    bench: Bench, stage: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage("succeed")
    finish, refused = bench.store.finish, iter([True])

    def refuse(claim: jobs.Claim, outcome: jobs.Outcome) -> jobs.Job:
        if next(refused, False):
            raise ValueError("by design")
        return finish(claim, outcome)

    monkeypatch.setattr(bench.store, "finish", refuse)
    assert bench.run() is not None
    assert bench.attempt.reason is states.Reason.INTERNAL


def test_a_beat_that_fails_is_not_the_last(
    bench: Bench, stage: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage("wait_for_stop")
    wish, failures = bench.store.wish, iter([ValueError("by design")])

    def fail_once(claim: jobs.Claim) -> states.Wish:
        for error in failures:
            raise error
        return wish(claim)

    monkeypatch.setattr(bench.store, "wish", fail_once)
    monkeypatch.setattr(bench.store, "beat", fail_once)
    job = bench.run_beside(bench.cancel)
    assert job is not None
    assert job.state is states.JobState.CANCELLED


@pytest.mark.parametrize(
    ("act", "state"), [("drain", "queued"), ("cancel", "cancelled"), ("pause", "paused"), ("take_back", "queued")]
)
def test_who_waits_for_a_fork_server_that_never_comes_still_hears_what_is_wished(
    act: str, state: str, settings: config.Settings, store: sql.SqlStore, tmp_path: Path
) -> None:
    bench = Bench(settings, store, tmp_path / "nobody")
    claim = bench.claim()
    beside = threading.Thread(target=bench.supervisor.run, args=(claim,), daemon=True)
    beside.start()
    until((settings.artifact_dir / claim.id / "attempt-0001" / "log.txt").exists)
    getattr(bench, act)()
    beside.join(timeout=60)
    assert not beside.is_alive()
    job = store.get(bench.job.id)
    assert (job.state, job.total_retries) == (state, int(act == "take_back"))
