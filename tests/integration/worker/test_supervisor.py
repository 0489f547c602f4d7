"""The supervisor against stages that behave and misbehave; a real store, a real fork server, real processes."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from orchestrator import config, errors
from orchestrator.core import clock as clocks
from orchestrator.core import jobs, specs, states
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.support import archives, httpserver, pictures
from tests.support.waiting import until
from worker import identity, protocol
from worker.launcher import Launcher
from worker.remains import LOG_FILE
from worker.supervisor import Place, Supervisor

pytestmark = pytest.mark.slow

ME = identity.mine("test")


class Bench:
    """A supervisor, its store, and a job to run."""

    def __init__(
        self, settings: config.Settings, store: sql.SqlStore, fork_server: Path, *, spec: specs.JobSpec | None = None
    ) -> None:
        self.settings = settings
        self.store = store
        self.draining = threading.Event()
        self.supervisor = Supervisor(
            store=store,
            settings=settings,
            launcher=Launcher(fork_server, gpu=None),
            place=Place(device="cpu", threads=1, artifact_dir=settings.artifact_dir, data_dir=settings.data_dir),
            draining=self.draining,
            clock=clocks.SystemClock(),
        )
        self.job = store.submit(jobs.NewJob(spec=spec or specs.JobSpec(), user="tester"))[0]

    def claim(self) -> jobs.Claim:
        """Claim the job for a download."""
        claim = self.store.claim(worker=ME, device="CPU", stages=[states.Stage.DOWNLOAD], artifact_root="root")
        assert claim is not None
        return claim

    def run(self) -> jobs.Job | None:
        """Claim the job and run its stage to the end."""
        return self.supervisor.run(self.claim())

    def run_beside(self, act: Callable[[], None]) -> jobs.Job | None:
        """Run the stage, and `act` once its process has said that it works."""

        def when_it_works() -> None:
            until(lambda: self.store.get(self.job.id).progress.done)
            act()

        beside = threading.Thread(target=when_it_works)
        beside.start()
        try:
            return self.run()
        finally:
            beside.join()

    @property
    def log(self) -> str:
        """The job's log."""
        return "".join(chunk.text for chunk in self.store.logs(self.job.id))

    @property
    def attempt(self) -> jobs.Attempt:
        """The last attempt."""
        return self.store.attempts(self.job.id)[-1]


@pytest.fixture
def bench(settings: config.Settings, store: sql.SqlStore, fork_server: Path) -> Bench:
    return Bench(settings, store, fork_server)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def choose(name: str) -> None:
        monkeypatch.setitem(protocol.ENTRY_POINTS, states.Stage.DOWNLOAD, f"tests.support.stages:{name}")

    return choose


def test_a_stage_that_ends_well_moves_the_job_on(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("succeed")
    job = bench.run()
    assert job is not None
    assert (job.state, job.stage) == (states.JobState.QUEUED, states.Stage.TRAIN)
    assert bench.attempt.outcome == "done"
    assert bench.log == f"attempt 1 of {bench.job.id}\n"


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


def test_a_cancel_asks_first(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("wait_for_stop")
    job = bench.run_beside(lambda: _cancel(bench))
    assert job is not None
    assert job.state is states.JobState.CANCELLED


def test_a_cancel_kills_what_does_not_listen(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("ignore_stop")
    job = bench.run_beside(lambda: _cancel(bench))
    assert job is not None
    assert job.state is states.JobState.CANCELLED


def test_a_pause_asks_and_the_job_stands_aside_uncounted(bench: Bench, stage: Callable[[str], None]) -> None:
    stage("wait_for_stop")
    job = bench.run_beside(lambda: _pause(bench))
    assert job is not None
    assert (job.state, job.total_retries) == (states.JobState.PAUSED, 0)
    assert bench.attempt.outcome == "paused"


def test_a_paused_download_keeps_what_has_come_and_goes_on_from_there(
    settings: config.Settings, store: sql.SqlStore, fork_server: Path
) -> None:
    archive = archives.zipped(pictures.members(size=(64, 64)))
    with httpserver.Server() as server:
        slow = httpserver.Reply(body=archive, rate=len(archive) / 60)
        url = server.on("/set.zip", slow, httpserver.Reply(body=archive))
        bench = Bench(settings, store, fork_server, spec=specs.JobSpec(data=url))
        job = bench.run_beside(lambda: _pause(bench))
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


@pytest.mark.parametrize("name", ["wait_for_stop", "ignore_stop"])
def test_a_pausing_job_can_be_cancelled(bench: Bench, stage: Callable[[str], None], name: str) -> None:
    stage(name)

    def pause_then_cancel() -> None:
        _pause(bench)
        if name == "ignore_stop":  # the other one may have stood aside by then, and is cancelled there
            time.sleep(1.5)
            assert bench.store.get(bench.job.id).state is states.JobState.RUNNING
        _cancel(bench)

    bench.run_beside(pause_then_cancel)
    assert bench.store.get(bench.job.id).state is states.JobState.CANCELLED


def test_a_pause_waits_longer_than_a_drain(
    settings: config.Settings, store: sql.SqlStore, fork_server: Path, stage: Callable[[str], None]
) -> None:
    bench = Bench(settings.model_copy(update={"drain": 0.2, "stall": 2.5}), store, fork_server)
    stage("ignore_stop")
    job = bench.run_beside(lambda: _pause(bench))
    assert job is not None
    assert (job.state, bench.attempt.reason) == (states.JobState.PAUSED, states.Reason.STALLED)


def test_a_drain_hurries_a_pause(
    settings: config.Settings, store: sql.SqlStore, fork_server: Path, stage: Callable[[str], None]
) -> None:
    bench = Bench(settings.model_copy(update={"drain": 0.2}), store, fork_server)
    stage("ignore_stop")

    def pause_then_drain() -> None:
        _pause(bench)
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
    spec = bench.job.spec.model_copy(update={"max_duration": 1 / 3600 * 5})
    claim = bench.claim()
    claim = dataclasses.replace(
        claim, ran=timedelta(seconds=4), job=dataclasses.replace(claim.job, spec=spec, started_at=None)
    )
    began = time.monotonic()
    bench.supervisor.run(claim)
    assert bench.attempt.reason is states.Reason.TIMEOUT
    assert time.monotonic() - began < 4.5


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


def test_a_stalled_stage_is_ended_with_that_reason(
    settings: config.Settings, store: sql.SqlStore, fork_server: Path, stage: Callable[[str], None]
) -> None:
    bench = Bench(settings.model_copy(update={"stall": 1.5}), store, fork_server)
    stage("ignore_stop")
    bench.run()
    assert bench.attempt.reason is states.Reason.STALLED


def test_a_stage_that_stalls_is_killed_with_its_children_and_tried_twice_more(
    settings: config.Settings,
    store: sql.SqlStore,
    fork_server: Path,
    clock: HandClock,
    stage: Callable[[str], None],
) -> None:
    """The lease beats on all the while: it is the progress that stands still."""
    bench = Bench(settings.model_copy(update={"stall": 1}), store, fork_server)
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
    refusals = iter(range(5))
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
    log = settings.artifact_dir / bench.job.id / "attempt-0001" / LOG_FILE
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
    job = bench.run_beside(lambda: _cancel(bench))
    assert job is not None
    assert job.state is states.JobState.CANCELLED


def test_directories_of_earlier_attempts_go_unless_a_checkpoint_needs_them(
    bench: Bench, stage: Callable[[str], None], settings: config.Settings
) -> None:
    stage("succeed")
    old = settings.artifact_dir / bench.job.id / "attempt-0000"
    old.mkdir(parents=True)
    (old / "half a checkpoint").touch()
    bench.run()
    assert not old.exists()


def _pause(bench: Bench) -> None:
    bench.store.pause(bench.job.id, actor="tester")


def _cancel(bench: Bench) -> None:
    bench.store.cancel(bench.job.id, actor="tester")


def _drain(bench: Bench) -> None:
    bench.draining.set()


def _take_back(bench: Bench) -> None:
    until(lambda: bench.store.take_back(*bench.store.leases(), actor="tester", detail="it was silent"))


@pytest.mark.parametrize(
    ("act", "state"), [(_drain, "queued"), (_cancel, "cancelled"), (_pause, "paused"), (_take_back, "queued")]
)
def test_who_waits_for_a_fork_server_that_never_comes_still_hears_what_is_wished(
    act: Callable[[Bench], None], state: str, settings: config.Settings, store: sql.SqlStore, tmp_path: Path
) -> None:
    bench = Bench(settings, store, tmp_path / "nobody")
    claim = bench.claim()
    beside = threading.Thread(target=bench.supervisor.run, args=(claim,), daemon=True)
    beside.start()
    until((settings.artifact_dir / claim.id / "attempt-0001" / "log.txt").exists)
    act(bench)
    beside.join(timeout=20)
    assert not beside.is_alive()
    job = store.get(bench.job.id)
    assert (job.state, job.total_retries) == (state, int(act is _take_back))
