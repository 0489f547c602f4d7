import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.core import jobs, specs, states, telling
from orchestrator.core.findings import Kind
from orchestrator.store import base
from tests.faults.corpus import archives
from tests.integration.cli.conftest import OrchIn
from tests.support import asked, httpserver, oracle, pictures, running
from tests.support.waiting import until
from worker import health

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


#: Of the trainings, most of which are interrupted.
STEP_SECONDS = 0.03
#: Of nodes whose attempts are counted, and that nobody kills: longer than a busy machine holds up a beat.
LEASE = 60
#: Of one whose slot is killed, which is waited for: after a second loss the job would wait, and the other be taken.
SHORT_LEASE = 15
#: Of a process that is frozen: longer than a busy machine keeps one silent.
STALL = 8
#: Of a broker that never was there.
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Installation]:
    home = tmp_path_factory.mktemp("at-work") / "home"
    with running.installation(home, step_seconds=STEP_SECONDS, lease=LEASE) as installation:
        yield installation


@pytest.fixture
def at_work(standing: running.Installation) -> running.Installation:
    """An installation whose node runs, for the tests that can share one; who ends it leaves its start to the next."""
    if all(node.poll() is not None for node in standing.nodes):
        standing.start_node("--only-one")
    return standing


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(pictures.write(tmp_path_factory.mktemp("pictures"), pictures.members(size=(16, 16))))


def tiny(data: str, **fields: object) -> specs.JobSpec:
    given: dict[str, object] = {"network": "densenet_tiny", "image_size": 8, "epochs": 2, "loader_workers": 0}
    return specs.parse({"data": data, **given, **fields})


#: Trains for minutes, with a checkpoint at every step: something to interrupt.
LONG: dict[str, object] = {"epochs": 100_000, "checkpoint_steps": 1}


def _running(installed: running.Installation, job: jobs.Job) -> bool:
    now = installed.store.get(job.id)
    return now.state is states.JobState.RUNNING and now.stage is states.Stage.TRAIN


def _healthy(installed: running.Installation) -> bool:
    """Whether the health check of a container would find the node well, in this process."""
    with pytest.MonkeyPatch.context() as changing:
        for name, value in installed.environment.items():
            changing.setenv(name, value)
        return health.main() == 0


def _check_health(installed: running.Installation) -> int:
    """Run the health check as a container does; return its exit code."""
    check = [sys.executable, "-m", "worker.health"]
    return subprocess.run(check, env=installed.environment, cwd=running.ROOT, check=False).returncode


@pytest.mark.timeout(400)
def test_a_node_of_another_root_ends_what_stalls_and_drains_and_one_that_leaves_when_idle_needs_no_doorbell(
    tmp_path: Path, data: str
) -> None:
    with running.installation(
        tmp_path / "deaf", broker_url=NOWHERE, step_seconds=STEP_SECONDS, lease=LEASE
    ) as installed:
        elsewhere = installed.submit(tiny(data, **LONG))
        assert _check_health(installed) == 1
        _check_stall_and_drain(installed, elsewhere, root=tmp_path / "elsewhere")
        # A node that is to leave when idle waits for no job of another root.
        job = installed.submit(tiny(data))
        node = installed.start_node("--exit-when-idle")
        done = installed.wait(job.id, states.JobState.SUCCEEDED)
        assert node.wait(timeout=60) == 0
        _check_all_stages(installed.store, done)
        assert installed.store.get(elsewhere.id).state is states.JobState.QUEUED


def _check_stall_and_drain(installed: running.Installation, job: jobs.Job, *, root: Path) -> None:
    """Let another root's node train the job: it stalls, goes on, and is drained; health follows the node."""
    away = running.Installation(installed.settings.home, artifacts=root, broker_url=NOWHERE, lease=LEASE, stall=STALL)
    away.environment["ORCH_TEST_FAILPOINTS"] = installed.environment["ORCH_TEST_FAILPOINTS"]
    node = away.start_node(log="elsewhere.log")
    try:
        _check_stall(away, job)
        until(lambda: _check_health(installed) == 0)
    finally:
        for one in (signal.SIGTERM, signal.SIGHUP):  # as at a session's end: the second one means no hurry
            node.send_signal(one)
        assert node.wait(timeout=60) == 0
        away.store.close()
    until(lambda: not _healthy(installed))
    after = installed.store.get(job.id)
    assert (after.state, after.total_retries) == (states.JobState.QUEUED, len(_stalled(installed, job)))
    training = installed.store.attempts(job.id)[-1]
    assert (training.outcome, training.last_step) == ("drained", installed.store.checkpoints(job.id)[0].step)


def _check_stall(installed: running.Installation, job: jobs.Job) -> None:
    """Freeze the job's process: it is ended, and the job tried again."""
    until(lambda: installed.store.checkpoints(job.id))
    process = until(lambda: running.training_process(installed, installed.store.get(job.id)))
    process.suspend()
    stalled = until(lambda: _stalled(installed, job))[-1]
    until(lambda: running.gone(process))
    until(lambda: installed.store.checkpoints(job.id)[0].attempt > stalled.attempt)  # it goes on


def _stalled(installed: running.Installation, job: jobs.Job) -> list[jobs.Attempt]:
    return [attempt for attempt in installed.store.attempts(job.id) if attempt.reason is states.Reason.STALLED]


def _check_all_stages(store: base.Store, job: jobs.Job) -> None:
    assert [(row.epoch, row.split) for row in store.epochs(job.id)] == [
        (1, "train"),
        (1, "val"),
        (2, "train"),
        (2, "val"),
    ]
    assert job.data_hash is not None
    assert store.evaluation(job.id) is not None
    assert [attempt.stage for attempt in store.attempts(job.id)] == list(states.Stage)
    assert {checkpoint.best for checkpoint in store.checkpoints(job.id)} == {True, False}
    assert {worker.state for worker in store.workers()} == {states.WorkerState.STOPPED}


def test_a_training_that_gets_no_better_ends_early_and_succeeds(
    at_work: running.Installation, orch_in: OrchIn, data: str
) -> None:
    spec = tiny(data, epochs=100, patience=1, schedule="cosine", ema=0.5)
    with httpserver.Server() as server:
        tells = telling.Telling(targets=(server.on("/hook", httpserver.Reply()),))
        job, _ = at_work.store.submit(jobs.NewJob(spec=spec, user="tester", notify=tells))
        at_work.wait(job.id, states.JobState.SUCCEEDED)
        until(lambda: at_work.store.events(job.id)[-1].kind == "told")
    (heard,) = [json.loads(request.body) for request in server.asked("/hook")]
    assert (heard["event"], heard["job"]["id"], heard["job"]["state"]) == ("finished", job.id, "succeeded")
    report = json.loads(orch_in(at_work)("status", job.id, "--json").out)
    closed = len(report["epochs"]) // 2
    assert 2 <= closed < 20  # each epoch but the last found another of the few validation pictures
    said = f"after {closed} of 100 epochs: the validation accuracy has been no better than epoch {closed - 1}'s"
    assert report["stopped_early"].startswith(said)
    assert [event.detail for event in at_work.store.events(job.id) if event.kind == "stopped_early"] == [
        report["stopped_early"]
    ]
    assert {value.name for value in at_work.store.steps(job.id, name="lr")} == {"lr"}


def test_the_notebook_of_the_client_runs(
    at_work: running.Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.here(monkeypatch)  # processes of their own are asked in the walk through the failpoints
    for name, value in at_work.environment.items():
        monkeypatch.setenv(name, value)
    cells = json.loads((running.ROOT / "docs" / "client.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in code:
        exec(compile(cell, "docs/client.ipynb", "exec"), names)  # noqa: S102 - our own page
    said = capsys.readouterr().out
    assert "did you mean 'epochs'" in said
    assert "2 val   loss" in said
    assert len(names["prediction"].guesses) == 3
    assert [job.state for job in at_work.store.jobs(jobs.JobFilter(tags=("notebook",)))] == ["cancelled", "succeeded"]


def test_a_preemptible_training_yields_to_an_urgent_job_and_goes_on(at_work: running.Installation, data: str) -> None:
    store = at_work.store
    long = at_work.submit(tiny(data, **LONG, preemptible=True))
    until(lambda: _running(at_work, long) and store.checkpoints(long.id))
    urgent, _ = store.submit(jobs.NewJob(spec=tiny(data, epochs=1), user="tester", priority=5))
    at_work.wait(urgent.id, states.JobState.SUCCEEDED)
    until(lambda: store.attempts(long.id)[-1].first_step)  # it trains again
    store.cancel(long.id, actor="tester")
    at_work.wait(long.id, states.JobState.CANCELLED)
    before, after = store.attempts(long.id)[1:]
    (training,) = [attempt for attempt in store.attempts(urgent.id) if attempt.stage is states.Stage.TRAIN]
    assert (before.outcome, before.last_step) == ("yielded", after.first_step), "a step was repeated, or left out"
    assert before.ended_at is not None
    assert before.ended_at <= training.started_at < after.started_at, "another one than the urgent job was claimed"
    assert (store.get(long.id).total_retries, store.get(urgent.id).attempt) == (0, 3)
    details = {event.kind: event.detail for event in store.events(long.id)}
    assert details["yielded"] == f"to {urgent.id}"


def test_a_running_job_is_cancelled_and_its_process_group_with_it(at_work: running.Installation, data: str) -> None:
    job = at_work.submit(tiny(data, **LONG, loader_workers=2))
    until(lambda: _running(at_work, job))
    process = until(lambda: running.training_process(at_work, at_work.store.get(job.id)))
    at_work.store.cancel(job.id, actor="tester")
    at_work.wait(job.id, states.JobState.CANCELLED)
    until(lambda: running.gone(process))


def test_bad_data_fails_the_job_once_with_its_reason(at_work: running.Installation, tmp_path: Path) -> None:
    files = pictures.members(classes=("cats",))
    job = at_work.submit(tiny(str(pictures.write(tmp_path / "one", files))))
    failed = at_work.wait(job.id, states.JobState.FAILED)
    assert (failed.reason, failed.total_retries, failed.attempt) == (states.Reason.BAD_INPUT, 0, 1)
    assert failed.error is not None
    assert failed.hint is not None


def test_archives_that_are_malformed_fail_their_jobs_with_the_reason_and_leave_no_staging(
    at_work: running.Installation, orch_in: OrchIn, tmp_path: Path
) -> None:
    """A handful goes the whole way: submit, download stage, failed job, exit code, three lines."""
    chosen = [case for case in archives.CASES if case.name in {"parent", "link", "bomb", "crc", "html", "one byte"}]
    orch, sets = orch_in(at_work), at_work.settings.data_dir / "sets"
    before = set(sets.glob("*"))
    for case in chosen:
        path = tmp_path / f"{case.name}.zip"
        path.write_bytes(case.data)
        orch("submit", "--data", str(path), "--name", case.name)
    for case in chosen:
        ran = orch("wait", case.name, code=5)
        job = at_work.store.find(case.name)
        assert (job.state, job.reason) == (states.JobState.FAILED, states.Reason.BAD_INPUT)
        assert case.guard in f"{job.error} {ran.err}"
        assert case.hint in str(job.hint)
        assert "Traceback" not in ran.err + at_work.log(job.id)
    assert set(sets.glob("*")) == before
    oracle.holds(at_work)
    assert not [*tmp_path.rglob("evil*"), *at_work.settings.home.rglob("evil*")]


def test_a_job_goes_on_from_an_earlier_checkpoint_and_fails_with_none_left(
    at_work: running.Installation, orch_in: OrchIn, data: str
) -> None:
    store, root, orch = at_work.store, at_work.settings.artifact_dir, orch_in(at_work)
    job = at_work.submit(tiny(data, epochs=100_000, checkpoint_steps=10))
    until(lambda: len(store.checkpoints(job.id)) >= 2)
    process = until(lambda: _frozen(at_work, job))
    newest, earlier, *_ = store.checkpoints(job.id)
    (root / newest.path).write_bytes((root / earlier.path).read_bytes())
    process.kill()
    until(lambda: store.attempts(job.id)[-1].first_step)
    assert store.attempts(job.id)[-1].first_step == earlier.step
    events = orch("events", job.id).out
    assert "checkpoint_damaged" in events
    assert newest.path in events

    process = until(lambda: _frozen(at_work, job))
    for row in store.checkpoints(job.id):
        (root / row.path).write_bytes(b"")
    process.kill()
    failed = at_work.wait(job.id, states.JobState.FAILED)
    assert failed.reason is states.Reason.NO_VALID_CHECKPOINT
    assert orch("events", job.id).out.count("checkpoint_damaged") >= 2
    oracle.holds(at_work, promised=[job.id], but=[Kind.CHECKPOINT])  # those that lie there emptied
    orch("delete", "--yes", job.id)  # or other tests' audits would find them, too


def _frozen(installed: running.Installation, job: jobs.Job) -> psutil.Process | None:
    """Freeze the training where all that it has written is recorded; None where it is just writing."""
    process = running.training_process(installed, installed.store.get(job.id))
    if process is None:
        return None
    process.suspend()
    try:
        until(lambda: _on_disk(installed, job) == _recorded(installed, job), seconds=5)
    except AssertionError:
        process.resume()
        return None
    return process


def _on_disk(installed: running.Installation, job: jobs.Job) -> set[Path]:
    attempt = installed.store.get(job.id).attempt
    return set((installed.settings.artifact_dir / job.id / f"attempt-{attempt:04d}").rglob("*.safetensors*"))


def _recorded(installed: running.Installation, job: jobs.Job) -> set[Path]:
    rows, attempt = installed.store.checkpoints(job.id), installed.store.get(job.id).attempt
    return {installed.settings.artifact_dir / row.path for row in rows if row.attempt == attempt}


def test_beside_a_broker_that_hangs_a_node_for_one_job_goes_on_with_it_and_takes_no_other(
    tmp_path: Path, data: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with running.installation(
            tmp_path / "hung", broker_url=url, step_seconds=STEP_SECONDS, lease=SHORT_LEASE
        ) as installed:
            # One that runs, and one that waits and is rung for all the time.
            submitted = [installed.submit(tiny(data, seed=seed, **LONG)) for seed in (1, 2)]
            node = installed.start_node("--max-jobs", "1")
            # Their downloads run one after the other: any may be trained first.
            job = until(lambda: next((job for job in submitted if _running(installed, job)), None))
            (slot,) = [it for it in running.named(installed.settings.home, "worker.app") if "cpu.0" in it.cmdline()]
            slot.kill()
            until(lambda: installed.store.get(job.id).total_retries >= 1)
            until(lambda: _running(installed, job))
            installed.store.cancel(job.id, actor="tester")
            installed.wait(job.id, states.JobState.CANCELLED)
            silent.close()  # or the slots would wait for its answer before they go
            assert node.wait(timeout=100) == 0
            ends = sorted(installed.store.get(job.id).state for job in submitted)
            assert ends == [states.JobState.CANCELLED, states.JobState.QUEUED]


def test_a_second_node_of_the_same_home_is_refused_where_one_is_wanted(at_work: running.Installation) -> None:
    until((at_work.settings.run_dir / "node.pid").exists)
    assert at_work.start_node("--only-one", log="second.log").wait(timeout=60) == 1
    assert "up already" in (at_work.settings.home / "second.log").read_text(encoding="utf-8")


def test_a_signal_right_after_a_claim_loses_nothing(at_work: running.Installation, data: str) -> None:
    (node,) = [node for node in at_work.nodes if node.poll() is None]
    job = at_work.submit(tiny(data, **LONG))  # it has not ended when the signal comes, however late that is
    until(lambda: at_work.store.get(job.id).state is states.JobState.RUNNING, every=0.001)
    node.send_signal(signal.SIGHUP)  # its terminal was closed
    assert node.wait(timeout=100) == 0
    after = at_work.store.get(job.id)
    assert (after.state, after.total_retries) == (states.JobState.QUEUED, 0)
    at_work.store.cancel(job.id, actor="tester")
