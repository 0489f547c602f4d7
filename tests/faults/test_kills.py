"""What a kill costs: the steps since the last checkpoint, never the job, and never a bit of its result."""

import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import psutil
import pytest

from orchestrator.core import jobs, specs, states
from orchestrator.queue import embedded
from tests.support import oracle, pictures, running
from tests.support import undisturbed as alone
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

EPOCHS = 8
#: Seconds that each of its 160 steps waits until the last blow has fallen: it must not end before.
STEP_SECONDS = 0.2
#: Steps of it between two blows.
STRIDE = 6
#: What a slot says that leaves by itself: for an answer of a broker that hangs it would wait half a minute.
LEFT = "left without the broker's goodbye"
#: What a node may take to start and to claim, beside other work on the machine.
NODE_SECONDS = 120


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    files = pictures.members(size=(16, 16), splits={"train": 20, "validation": 4})
    return str(pictures.write(tmp_path_factory.mktemp("pictures"), files))


@pytest.fixture(scope="module")
def spec(data: str) -> specs.JobSpec:
    """A training of 160 steps, with a checkpoint at every third."""
    return specs.JobSpec(
        data=data,
        network="densenet_tiny",
        image_size=8,
        epochs=EPOCHS,
        batch_size=2,
        checkpoint_steps=3,
        loader_workers=0,
    )


@pytest.fixture(scope="module")
def undisturbed(spec: specs.JobSpec, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of the same training in this process, where nobody disturbs it."""
    return alone.weights(tmp_path_factory.mktemp("undisturbed"), spec)


@pytest.fixture(scope="module")
def at_work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Installation]:
    """An installation whose node runs; a fault that it does not survive leaves another one there."""
    folder = tmp_path_factory.mktemp("at-work")
    with running.installation(folder / "home", lease=30, step_seconds=STEP_SECONDS) as installation:
        installation.start_node()
        yield installation


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):  # it went with another one
        process.kill()


def _kill_training(installed: running.Installation, job: jobs.Job) -> None:
    process = running.training_process(installed, job)
    assert process is not None
    process.kill()


def _kill_slot(installed: running.Installation, _job: jobs.Job) -> None:
    for process in running.named(installed.settings.home, "worker.app"):
        with suppress(psutil.NoSuchProcess):  # it went with another one
            if "cpu.0" in process.cmdline():
                process.kill()


def _kill_node_and_start_another(installed: running.Installation, _job: jobs.Job) -> None:
    installed.nodes[-1].kill()
    installed.nodes[-1].wait()
    installed.start_node()


def _kill_fork_server(installed: running.Installation, job: jobs.Job) -> None:
    training = running.training_process(installed, job)
    assert training is not None
    server = training.parents()[0]
    assert "worker.forkserver" in server.cmdline()
    server.kill()


def _kill_fork_server_and_training(installed: running.Installation, _job: jobs.Job) -> None:
    for process in running.named(installed.settings.home, "worker.forkserver"):
        _kill(process)


def _broker(installed: running.Installation) -> psutil.Process:
    """Return the process of the broker, which may be too busy to be asked."""
    return psutil.Process(int((installed.settings.home / "broker" / "server.pid").read_text(encoding="ascii")))


def _kill_broker(installed: running.Installation, _job: jobs.Job) -> None:
    _broker(installed).kill()


def _kill_everything_and_start_again(installed: running.Installation, _job: jobs.Job) -> None:
    for process in running.processes_of(installed.settings.home):
        _kill(process)
    installed.nodes[-1].wait()
    _broker(installed).kill()
    installed.start_node()


def _drain_beside_a_broker_that_hangs_and_start_another(installed: running.Installation, job: jobs.Job) -> None:
    _broker(installed).suspend()
    installed.nodes[-1].send_signal(signal.SIGTERM)
    assert installed.nodes[-1].wait(timeout=90) == 0
    assert LEFT in (installed.settings.home / f"node-{len(installed.nodes) - 1}.log").read_text("utf-8")
    store = installed.store
    assert store.get(job.id).state is states.JobState.QUEUED
    assert store.checkpoints(job.id)[0].step == store.attempts(job.id)[-1].last_step  # no step will be repeated
    assert embedded.stop(installed.settings)  # as `orch down` does
    installed.start_node()


def _pause_and_resume(installed: running.Installation, job: jobs.Job) -> None:
    store = installed.store
    retries = store.get(job.id).total_retries
    store.pause(job.id, actor="tester")
    paused = until(lambda: store.get(job.id) if store.get(job.id).state is states.JobState.PAUSED else None, seconds=60)
    other = installed.submit(job.spec.model_copy(update={"epochs": 1}))
    installed.wait(other.id, states.JobState.SUCCEEDED)  # the device is free, and nobody takes what is paused
    assert store.get(job.id) == paused
    assert paused.total_retries == retries
    assert store.attempts(job.id)[-1].last_step == store.checkpoints(job.id)[0].step
    store.resume(job.id, actor="tester")


def _freeze_until_another_has_it(installed: running.Installation, job: jobs.Job) -> None:
    """Freeze the whole worker: when it wakes up, it writes nothing of what another has taken over and ends."""
    before = installed.store.get(job.id).attempt
    frozen = until(lambda: _frozen(installed), seconds=60)
    other = running.Installation(
        installed.settings.home, lease=10, worker_name="other", artifacts=installed.settings.artifact_dir
    )
    node = other.start_node(log="other.log")
    try:
        until(lambda: installed.store.get(job.id).attempt > before, seconds=NODE_SECONDS)
        _resume(frozen)
        installed.wait(job.id, states.JobState.SUCCEEDED)
    finally:
        _resume(frozen)
        node.terminate()
        assert node.wait(timeout=90) == 0


def _frozen(installed: running.Installation) -> list[psutil.Process]:
    """Freeze the worker where it holds no lock of the database, and return its processes; none where it does."""
    broker = _broker(installed)
    frozen = [process for process in running.processes_of(installed.settings.home) if process != broker]
    for process in frozen:
        with suppress(psutil.NoSuchProcess):  # it ended since it was looked for
            process.suspend()
    with closing(sqlite3.connect(installed.settings.home / "orch.db", timeout=0, isolation_level=None)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            _resume(frozen)
            return []
    return frozen


def _resume(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # one that woke before it has ended it
            process.resume()


#: What is done, and what becomes of the attempt that it befalls.
Blow = tuple[Callable[[running.Installation, jobs.Job], None], str]

BELOW_THE_NODE: tuple[Blow, ...] = (
    (_kill_broker, "undisturbed"),
    (_pause_and_resume, "paused"),
    (_kill_training, "lost"),
    (_kill_slot, "lost"),
    (_kill_fork_server_and_training, "lost"),
    (_kill_fork_server, "undisturbed"),
)
OF_THE_NODE: tuple[Blow, ...] = (
    (_kill_node_and_start_another, "any"),  # its slots drain, or lose the race with the new node's release
    (_kill_everything_and_start_again, "lost"),
    (_drain_beside_a_broker_that_hangs_and_start_another, "drained"),
    (_freeze_until_another_has_it, "lost"),
)


@pytest.mark.parametrize("blows", [BELOW_THE_NODE, OF_THE_NODE], ids=["below the node", "of the node"])
def test_a_kill_costs_no_job_and_no_bit(
    blows: tuple[Blow, ...], at_work: running.Installation, spec: specs.JobSpec, undisturbed: str
) -> None:
    at_work.slow_down(STEP_SECONDS)
    store, job = at_work.store, at_work.submit(spec)
    struck = [_strike(blow, at_work, job, after=STRIDE * number) for number, blow in enumerate(blows, start=1)]
    at_work.hurry()
    at_work.wait(job.id, states.JobState.SUCCEEDED)
    assert alone.weights_of(at_work, job.id) == undisturbed
    oracle.holds(at_work, promised=[job.id])
    trainings = [attempt for attempt in store.attempts(job.id) if attempt.stage is states.Stage.TRAIN]
    for (fault, goes_on), attempt in zip(blows, struck, strict=True):
        assert trainings[0].attempt == attempt, f"{fault.__name__}: an attempt more or less than there were blows"
        if goes_on != "undisturbed":
            ended = trainings.pop(0)
            assert goes_on in {"any", ended.outcome} or (goes_on, ended.outcome) == ("lost", "failed"), (
                f"{fault.__name__}: {ended.outcome}"
            )
            assert trainings[0].first_step, f"{fault.__name__}: it began anew"
            if goes_on == "paused":
                assert (trainings[0].resumed_from, trainings[0].first_step) == (ended.attempt, ended.last_step)
    assert [training.outcome for training in trainings] == ["done"]


def _strike(blow: Blow, installed: running.Installation, job: jobs.Job, *, after: int) -> int:
    """Deal it once an attempt has kept so many steps; return the attempt that it befell, once that is over."""
    store, (fault, goes_on) = installed.store, blow

    def trains() -> jobs.Job | None:
        now, kept = store.get(job.id), store.checkpoints(job.id)[:1]
        far = any(point.attempt == now.attempt and point.step >= after for point in kept)
        return now if far and running.training_process(installed, now) else None

    now = until(trains, seconds=NODE_SECONDS)
    fault(installed, now)
    if goes_on != "undisturbed":
        until(lambda: store.get(job.id).attempt > now.attempt, seconds=NODE_SECONDS)
    return now.attempt
