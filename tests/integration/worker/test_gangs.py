"""A real node with two CPU slots: a job on both runs between single ones, and whoever is killed frees both.

An audit meanwhile finds nothing: what is merely under way is no broken promise.
"""

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from orchestrator.core import jobs, specs, states
from tests.integration.cli.conftest import Orch, OrchIn
from tests.support import oracle, pictures, running
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

State, Stage = states.JobState, states.Stage

#: Attempts are counted: more than a busy machine holds up a beat. One that is killed is waited for as long.
LEASE = 15
#: Of trainings, most of which are interrupted.
STEP_SECONDS = 0.02

#: Between two looks of an audit, which would take the cores from what it looks at.
PAUSE_SECONDS = 0.3
#: Seconds that a step takes until there have been some looks, so that they see jobs at work.
SLOW_SECONDS, LOOKS = 0.5, 2


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Installation]:
    home = tmp_path_factory.mktemp("gangs") / "home"
    settings: dict[str, Any] = {"devices": "cpu", "slots_per_device": 2, "lease": LEASE}
    with running.installation(home, step_seconds=STEP_SECONDS, **settings) as installation:
        installation.start_node()
        yield installation


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., specs.JobSpec]:
    data = str(pictures.write(tmp_path_factory.mktemp("pictures"), pictures.members(size=(16, 16))))

    def make(**fields: object) -> specs.JobSpec:
        given = {"data": data, "network": "densenet_tiny", "image_size": 8, "epochs": 2, "loader_workers": 0}
        return specs.parse({**given, **fields})

    return make


def trains(installed: running.Installation, job: jobs.Job) -> jobs.Job | None:
    now = installed.store.get(job.id)
    works = now.state is State.RUNNING and now.stage is Stage.TRAIN and now.progress.done
    return now if works else None


def waits(installed: running.Installation, job: jobs.Job) -> bool:
    now = installed.store.get(job.id)
    return (now.state, now.stage) == (State.QUEUED, Stage.TRAIN)


def claims_of(installed: running.Installation, job: jobs.Job) -> list[str]:
    return [attempt.device for attempt in installed.store.attempts(job.id) if attempt.stage is Stage.TRAIN]


def test_a_job_on_both_slots_runs_between_single_ones(
    installed: running.Installation, orch_in: OrchIn, spec: Callable[..., specs.JobSpec]
) -> None:
    orch = orch_in(installed)
    first = installed.submit(spec(epochs=100_000))
    until(lambda: trains(installed, first))
    gang, later = installed.submit(spec(gpus=2)), installed.submit(spec(seed=1))
    until(lambda: waits(installed, gang) and waits(installed, later))
    held_back = f"holds its free devices back for {gang.id}, which trains on 2 together"
    until(lambda: _why(orch, later) == [held_back])
    installed.store.cancel(first.id, actor="tester")
    installed.wait(gang.id, State.SUCCEEDED)
    installed.wait(later.id, State.SUCCEEDED)
    assert (claims_of(installed, gang), claims_of(installed, later)) == (["2 x CPU"], ["CPU"])
    ended = installed.store.attempts(gang.id)[1].ended_at
    assert ended is not None
    assert installed.store.attempts(later.id)[1].started_at >= ended


def test_a_kill_of_a_training_or_its_slot_frees_both_devices(
    installed: running.Installation, spec: Callable[..., specs.JobSpec]
) -> None:
    gang = installed.submit(spec(gpus=2, epochs=100_000, checkpoint_steps=1, retries={"lost": 20}))
    _kill(installed, gang, lambda training: training.pid)
    _kill(installed, gang, lambda _: _slot_of(installed))
    installed.store.cancel(gang.id, actor="tester")
    installed.wait(gang.id, State.CANCELLED)
    pair = [installed.submit(spec(seed=seed, epochs=100_000)) for seed in (2, 3)]
    until(lambda: all(trains(installed, job) for job in pair))  # each on one of them
    for job in pair:
        installed.store.cancel(job.id, actor="tester")
        installed.wait(job.id, State.CANCELLED)


def test_an_audit_finds_nothing_while_jobs_begin_train_and_end(
    installed: running.Installation, spec: Callable[..., specs.JobSpec]
) -> None:
    store = installed.store
    installed.slow_down(SLOW_SECONDS)
    chosen = [installed.submit(spec(checkpoint_steps=2, epochs=4, seed=seed)).id for seed in (4, 5, 6)]
    cancelled = installed.submit(spec(checkpoint_steps=2, epochs=100_000)).id
    until(lambda: store.jobs(jobs.JobFilter(states=(State.RUNNING,))), seconds=120)
    for look in itertools.count(1):
        oracle.judge(installed.settings, store, promised=[*chosen, cancelled])
        if look == LOOKS:
            installed.slow_down(STEP_SECONDS)
        if all(store.get(job).final for job in chosen):
            break
        time.sleep(PAUSE_SECONDS)
    until(lambda: store.checkpoints(cancelled), seconds=120)
    oracle.judge(installed.settings, store, promised=[*chosen, cancelled])
    assert store.get(cancelled).state is State.RUNNING
    store.cancel(cancelled, actor="tester")
    oracle.holds(installed, promised=[*chosen, cancelled])


def _why(orch: Orch, job: jobs.Job) -> list[str]:
    """Return what `orch why` says of each worker."""
    return [worker["why"] for worker in json.loads(orch("why", job.id, "--json").out)["workers"]]


def _kill(installed: running.Installation, gang: jobs.Job, victim: Callable[[psutil.Process], int]) -> None:
    """Kill what `victim` chooses once the gang trains, and wait until it trains again."""
    now = until(lambda: trains(installed, gang))
    # What an earlier attempt has done counts as well: the process may be about to start.
    training = until(lambda: running.training_process(installed, now))
    os.kill(victim(training), signal.SIGKILL)
    until(lambda: installed.store.get(gang.id).attempt > now.attempt and trains(installed, gang))
    assert running.gone(training)
    assert claims_of(installed, gang)[-1] == "2 x CPU"  # again both of them


def _slot_of(installed: running.Installation) -> int:
    """Return the slot that holds both devices."""
    slots = running.named(installed.settings.home, "worker.app")
    return next(slot.pid for slot in slots if sum(file.path.endswith(".device") for file in slot.open_files()) == 2)
