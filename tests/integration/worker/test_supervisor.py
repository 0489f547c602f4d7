"""The supervisor against stages that behave and misbehave; a real store, a real fork server, real processes."""

import dataclasses
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from orchestrator import config, draining
from orchestrator.core import history, jobs, specs, states
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.integration.worker.conftest import Bench
from tests.support import archives, httpserver, pictures
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def test_a_stage_that_ends_well_moves_the_job_on(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("succeed")
    job = bench.run()
    assert job is not None
    assert (job.state, job.stage) == (states.JobState.QUEUED, states.Stage.TRAIN)
    assert bench.attempt.outcome == "done"
    printed, diary = bench.log.splitlines()
    assert printed == f"attempt 1 of {bench.job.id}"
    assert diary.endswith("Z  done at step 1")


def test_each_end_for_want_of_memory_leads_to_a_leaner_training(bench: Bench, tmp_path: Path) -> None:
    claim = bench.claim()
    told = [
        bench.supervisor._assignment(dataclasses.replace(claim, out_of_memory=times), tmp_path).memory
        for times in range(3)
    ]
    assert told == ["plain", "balanced", "lean"]


def test_a_defect_fails_the_attempt_and_its_traceback_is_in_the_log(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("fail")
    job = bench.run()
    assert job is not None
    assert (job.state, job.total_retries) == (states.JobState.QUEUED, 1)
    assert bench.attempt.reason is states.Reason.INTERNAL
    assert "ZeroDivisionError: by design" in bench.log


def test_a_crash_is_a_lost_attempt_that_names_the_signal(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("crash")
    bench.run()
    assert bench.attempt.reason is states.Reason.LOST
    assert "SIGSEGV" in str(bench.store.events(bench.job.id)[-1].detail)


def test_a_process_that_lost_its_pipe_is_a_lost_attempt(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("lose_its_pipe")
    bench.run()
    assert bench.attempt.reason is states.Reason.LOST


def test_a_silent_end_keeps_its_last_words(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("leave_in_silence")
    bench.run()
    assert bench.attempt.reason is states.Reason.INTERNAL
    assert "code 3" in str(bench.store.events(bench.job.id)[-1].detail)
    assert bench.log == "the last words\n"


def test_a_drain_asks_and_the_job_goes_back_uncounted(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("wait_for_stop")
    job = bench.run_beside(bench.draining.set)
    assert job is not None
    assert (job.state, job.total_retries) == (states.JobState.QUEUED, 0)
    assert bench.attempt.outcome == "drained"


def test_a_drain_takes_as_long_as_its_node_was_told(
    settings: config.Settings, store: sql.SqlStore, cold_fork_server: Path, stage: Callable[[str], None]
) -> None:
    settings.run_dir.mkdir()
    bench = Bench(settings.model_copy(update={"drain": 0.2}), store, cold_fork_server)
    assert bench.supervisor._grace("drained") == 0.2
    draining.tell(settings, node=os.getpid() + 1, seconds=0.1)
    assert bench.supervisor._grace("drained") == 0.2  # that is said to another one
    draining.tell(settings, node=os.getpid(), seconds=60)
    stage("stop_late")
    bench.run_beside(bench.draining.set)
    assert bench.attempt.outcome == "drained"
    assert not history.unsaved(bench.store.events(bench.job.id), bench.attempt.attempt)


def test_what_did_not_stop_in_time_is_known_as_unsaved(
    settings: config.Settings, store: sql.SqlStore, cold_fork_server: Path, stage: Callable[[str], None]
) -> None:
    settings.run_dir.mkdir()
    bench = Bench(settings, store, cold_fork_server)
    draining.tell(settings, node=os.getpid(), seconds=0.2)
    stage("ignore_stop")
    bench.run_beside(bench.draining.set)
    assert bench.attempt.outcome == "drained"
    assert history.unsaved(bench.store.events(bench.job.id), bench.attempt.attempt)


def test_a_cancel_asks_first(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("wait_for_stop")
    job = bench.run_beside(bench.cancel)
    assert job is not None
    assert job.state is states.JobState.CANCELLED


def test_a_cancel_kills_what_does_not_listen(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("ignore_stop")
    job = bench.run_beside(bench.cancel)
    assert job is not None
    assert job.state is states.JobState.CANCELLED


def test_a_pause_asks_and_the_job_stands_aside_uncounted(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("wait_for_stop")
    job = bench.run_beside(bench.pause)
    assert job is not None
    assert (job.state, job.total_retries) == (states.JobState.PAUSED, 0)
    assert bench.attempt.outcome == "paused"


def test_a_paused_download_keeps_what_has_come_and_goes_on_from_there(
    settings: config.Settings, store: sql.SqlStore, cold_fork_server: Path
) -> None:
    archive = archives.zipped(pictures.members(size=(64, 64)))
    with httpserver.Server() as server:
        slow = httpserver.Reply(body=archive, rate=len(archive) / 60)
        url = server.on("/set.zip", slow, httpserver.Reply(body=archive))
        bench = Bench(settings, store, cold_fork_server, spec=specs.JobSpec(data=url))
        job = bench.run_beside(bench.pause)
        assert job is not None
        assert (job.state, job.stage) == (states.JobState.PAUSED, states.Stage.DOWNLOAD)
        (part,) = settings.data_dir.rglob("*.part")
        come = part.stat().st_size
        assert come > 0
        store.resume(bench.job.id, actor="tester")
        job = bench.run()
        assert job is not None
        assert job.stage is states.Stage.TRAIN
        assert server.asked("/set.zip")[-1].headers["range"] == f"bytes={come}-"


@pytest.mark.parametrize("another", [True, False])
def test_what_a_cancelled_download_has_fetched_goes_unless_another_job_wants_it(
    settings: config.Settings, store: sql.SqlStore, cold_fork_server: Path, *, another: bool
) -> None:
    archive = archives.zipped(pictures.members(size=(64, 64)))
    with httpserver.Server() as server:
        url = server.on("/set.zip", httpserver.Reply(body=archive, rate=len(archive) / 60))
        bench = Bench(settings, store, cold_fork_server, spec=specs.JobSpec(data=url))
        if another:
            store.submit(jobs.NewJob(spec=bench.job.spec, user="bob", priority=-1))
        job = bench.run_beside(bench.cancel)
        assert job is not None
        assert job.state is states.JobState.CANCELLED
        assert bool(list(settings.data_dir.rglob("*.part"))) is another


def test_a_yield_asks_and_the_job_goes_back_uncounted(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("wait_for_stop")
    wished = {"wish": states.Wish.YIELD, "yields_to": bench.job.id}
    job = bench.run_beside(lambda: parts.overwrite(bench.store, bench.job.id, **wished))
    assert job is not None
    assert (job.state, job.total_retries, bench.attempt.outcome) == (states.JobState.QUEUED, 0, "yielded")
    assert bench.attempt.last_step is None or bench.attempt.last_step == 7


@pytest.mark.parametrize("name", ["wait_for_stop", "ignore_stop"])
def test_a_pausing_job_can_be_cancelled(bench: Bench, stage: Callable[[str], None], name: str) -> None:
    stage(name)

    def pause_then_cancel() -> None:
        bench.pause()
        if name == "ignore_stop":  # the other one may have stood aside by then, and is cancelled there
            time.sleep(1.5)
            assert bench.store.get(bench.job.id).state is states.JobState.RUNNING
        bench.cancel()

    bench.run_beside(pause_then_cancel)
    assert bench.store.get(bench.job.id).state is states.JobState.CANCELLED


def test_a_pause_waits_longer_than_a_drain(
    settings: config.Settings, store: sql.SqlStore, cold_fork_server: Path, stage: Callable[[str], None]
) -> None:
    bench = Bench(settings.model_copy(update={"drain": 0.2}), store, cold_fork_server)
    stage("ignore_stop")

    def pause_and_stall() -> None:
        bench.pause()
        bench.supervisor._settings = bench.settings.model_copy(update={"stall": 5})  # not before it is paused

    job = bench.run_beside(pause_and_stall)
    assert job is not None
    assert (job.state, bench.attempt.reason) == (states.JobState.PAUSED, states.Reason.STALLED)


def test_a_drain_hurries_a_pause(
    settings: config.Settings, store: sql.SqlStore, cold_fork_server: Path, stage: Callable[[str], None]
) -> None:
    bench = Bench(settings.model_copy(update={"drain": 0.2}), store, cold_fork_server)
    stage("ignore_stop")

    def pause_then_drain() -> None:
        bench.pause()
        bench.draining.set()

    job = bench.run_beside(pause_then_drain)
    assert job is not None
    assert (job.state, bench.attempt.outcome) == (states.JobState.PAUSED, "drained")


def test_a_spec_that_cannot_be_run_any_more_fails_the_job_with_its_fault(
    bench: Bench, stage: Callable[[str], None]
) -> None:
    stage("succeed")
    parts.overwrite(bench.store, bench.job.id, spec=bench.job.spec.model_dump(mode="json") | {"image_size": 4})
    job = bench.run()
    assert job is not None
    assert (job.state, job.reason) == (states.JobState.FAILED, states.Reason.USER_ERROR)
    assert "image_size" in str(job.error)


def test_the_time_of_earlier_attempts_counts_and_that_of_a_pause_does_not(
    bench: Bench, stage: Callable[[str], None]
) -> None:
    stage("ignore_stop")
    spec = bench.job.spec.model_copy(update={"max_duration": 1.0})
    claim = bench.claim()
    claim = dataclasses.replace(
        claim, ran=timedelta(seconds=3599), job=dataclasses.replace(claim.job, spec=spec, started_at=None)
    )
    job = bench.supervisor.run(claim)  # a second later: alone it would have an hour
    assert job is not None
    assert (job.state, job.reason, job.total_retries) == (states.JobState.FAILED, states.Reason.TIMEOUT, 0)
    assert bench.attempt.reason is states.Reason.TIMEOUT


def test_a_stalled_stage_is_ended_with_that_reason(
    settings: config.Settings, store: sql.SqlStore, cold_fork_server: Path, stage: Callable[[str], None]
) -> None:
    bench = Bench(settings.model_copy(update={"stall": 1.5}), store, cold_fork_server)
    stage("ignore_stop")
    bench.run()
    assert bench.attempt.reason is states.Reason.STALLED


def test_a_stage_that_is_frozen_in_the_middle_of_a_message_is_ended_as_well(
    settings: config.Settings, store: sql.SqlStore, cold_fork_server: Path, stage: Callable[[str], None]
) -> None:
    bench = Bench(settings.model_copy(update={"stall": 1.5}), store, cold_fork_server)
    stage("stop_in_a_word")
    bench.run()
    assert bench.attempt.reason is states.Reason.STALLED
    assert "it goes on" not in bench.log


def test_a_stage_that_stalls_is_killed_with_its_children_and_tried_twice_more(
    settings: config.Settings,
    store: sql.SqlStore,
    cold_fork_server: Path,
    clock: HandClock,
    stage: Callable[[str], None],
) -> None:
    """The lease beats on all the while: it is the progress that stands still."""
    bench = Bench(settings.model_copy(update={"stall": 1}), store, cold_fork_server)
    stage("ignore_stop")
    job: jobs.Job | None = bench.job
    while job is not None and not job.final:
        job = bench.run()
        until(lambda: not any(_writes_below(settings.artifact_dir, each) for each in psutil.process_iter()))
        clock.move(hours=1)  # past the pause before the next try
    assert job is not None
    assert (job.state, job.reason, job.total_retries) == (states.JobState.FAILED, states.Reason.STALLED, 2)
    assert job.error == "Nothing moved for the stall time, though the process was alive."
    assert [attempt.reason for attempt in store.attempts(bench.job.id)] == [states.Reason.STALLED] * 3


def _writes_below(folder: Path, process: psutil.Process) -> bool:
    """Whether its standard output is a log of an attempt, as that of a stage and its children is."""
    try:
        return Path(f"/proc/{process.pid}/fd/1").readlink().is_relative_to(folder)
    except OSError:
        return False


def test_directories_of_earlier_attempts_go_unless_a_checkpoint_needs_them(
    bench: Bench, stage: Callable[[str], None], settings: config.Settings
) -> None:
    stage("succeed")
    old = settings.artifact_dir / bench.job.id / "attempt-0000"
    old.mkdir(parents=True)
    (old / "half a checkpoint").touch()
    bench.run()
    assert not old.exists()
