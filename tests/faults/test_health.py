"""Workers that are the trouble themselves: one that cannot train, one on which everything fails; and a job that is."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.core import clock as clocks
from orchestrator.core import jobs, specs, states
from orchestrator.store import sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.integration.cli.conftest import OrchIn
from tests.support import oracle, pictures, running
from tests.support.waiting import until
from worker import identity, protocol
from worker.launcher import Launcher
from worker.permits import Permits
from worker.slot import Slot
from worker.supervisor import Place, Supervisor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LIMIT = 2


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[running.Installation]:
    with running.installation(tmp_path / "home", devices="cpu", lease=30, unhealthy_after=LIMIT) as installation:
        yield installation


@pytest.fixture
def spec(tmp_path: Path) -> specs.JobSpec:
    data = pictures.write(tmp_path / "data", pictures.members(size=(16, 16)))
    # Until a busy machine takes notice, some may fail again.
    retries = {states.Reason.INTERNAL: 3}
    recipe = {"network": "densenet_tiny", "image_size": 8, "epochs": 1, "loader_workers": 0}
    return specs.parse({"data": str(data), **recipe, "retries": retries})


def test_a_worker_without_a_torch_that_works_takes_no_job_and_says_why(
    installed: running.Installation, orch_in: OrchIn, spec: specs.JobSpec, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "torch.py").write_text("raise ImportError('libcudart.so.13: no such file')\n", encoding="ascii")
    installed.environment["PYTHONPATH"] = str(broken)
    job = installed.submit(spec)
    assert installed.start_node().wait(timeout=120) == 1
    said = (installed.settings.home / "node-0.log").read_text(encoding="utf-8")
    assert "ImportError: libcudart.so.13: no such file" in said
    assert "cannot be imported" in said
    assert "cannot be imported" in orch_in(installed)("up", "-d", code=1).err
    assert installed.store.attempts(job.id) == []
    installed.store.cancel(job.id, actor="tester")
    oracle.holds(installed, promised=[job.id])


def _obstruct(installed: running.Installation, job: jobs.Job) -> Path:
    """Put a file where the job's folder is to be: a fault of the host, which fails the job as internal."""
    installed.settings.artifact_dir.mkdir(parents=True, exist_ok=True)
    path = installed.settings.artifact_dir / job.id
    path.write_text("in the way", encoding="ascii")
    return path


def test_a_worker_on_which_every_job_fails_takes_no_more_until_it_is_started_anew(
    installed: running.Installation, orch_in: OrchIn, spec: specs.JobSpec
) -> None:
    orch = orch_in(installed)
    doomed = [installed.submit(spec.model_copy(update={"seed": seed})) for seed in range(LIMIT)]
    obstacles = [_obstruct(installed, job) for job in doomed]
    installed.start_node()
    worker = until(
        lambda: next((w for w in installed.store.workers() if w.state is states.WorkerState.UNHEALTHY), None),
        seconds=180,
    )
    later = installed.submit(spec)
    said = orch("doctor", code=1).out
    assert f"It failed {LIMIT} jobs in a row" in said
    assert all(f"{job.id} (internal)" in said for job in doomed)
    assert installed.store.attempts(later.id) == []
    assert "unhealthy" in orch("status").out
    assert "unhealthy" in (installed.settings.home / "node-0.log").read_text(encoding="utf-8")

    for obstacle in obstacles:
        obstacle.unlink()
    installed.nodes[-1].terminate()
    assert installed.nodes[-1].wait(timeout=60) == 1
    installed.start_node()
    for job in (*doomed, later):
        installed.wait(job.id, states.JobState.SUCCEEDED)
    assert worker.id not in {attempt.worker for attempt in installed.store.attempts(later.id)}
    oracle.holds(installed, promised=[job.id for job in (*doomed, later)])


HEALTHY = 3
POISON_SEED = 13


def test_a_job_that_kills_every_process_is_quarantined_and_the_others_succeed(
    settings: config.Settings,
    store: sql.SqlStore,
    clock: HandClock,
    cold_fork_server: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stage in states.Stage:
        monkeypatch.setitem(protocol.ENTRY_POINTS, stage, "tests.support.stages:succeed_or_die")
    me = identity.mine("test")
    store.register(_worker(me))
    draining = threading.Event()
    supervisor = Supervisor(
        store=store,
        settings=settings,
        launcher=Launcher(cold_fork_server),
        place=Place(threads=1, artifact_dir=settings.artifact_dir, data_dir=settings.data_dir),
        draining=draining,
        clock=clocks.SystemClock(),
    )
    slot = Slot(
        store=store,
        supervisor=supervisor,
        worker=me,
        device="CPU",
        artifact_root="root",
        stages=tuple(states.Stage),
        permits=Permits(None, store=store, worker=me.id),
        ring=lambda _: None,
        ready=cold_fork_server.exists,
        draining=draining,
    )
    poison = store.submit(jobs.NewJob(spec=specs.JobSpec(seed=POISON_SEED), user="tester"))[0]
    healthy = [store.submit(jobs.NewJob(spec=specs.JobSpec(), user="tester"))[0] for _ in range(HEALTHY)]
    while not store.get(poison.id).final:
        slot.serve()
        clock.move(hours=1)  # past the pause before the next try
    assert store.get(poison.id).reason is states.Reason.POISON
    assert len(store.attempts(poison.id)) == 1 + 5
    assert {store.get(job.id).state for job in healthy} == {states.JobState.SUCCEEDED}
    assert {attempt.outcome for job in healthy for attempt in store.attempts(job.id)} == {"done"}
    shutil.rmtree(settings.artifact_dir)


def _worker(me: jobs.WorkerIdentity) -> jobs.Worker:
    now = clocks.SystemClock().now()
    return parts.worker(me, now=now)
