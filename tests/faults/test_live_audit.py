"""An audit of an installation at work finds nothing: what is merely under way is no broken promise."""

import itertools
import time
from pathlib import Path

import pytest

from orchestrator.core import jobs, specs, states
from tests.support import oracle, pictures, running
from tests.support.waiting import until

#: Between two looks, which would take the cores from what they look at.
PAUSE_SECONDS = 0.3
#: Seconds that a step takes until there have been some looks, so that they see jobs at work.
SLOW_SECONDS, LOOKS = 0.5, 2
RUNNING = jobs.JobFilter(states=(states.JobState.RUNNING,))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_audit_finds_nothing_while_jobs_begin_train_and_end(tmp_path: Path) -> None:
    data = str(pictures.write(tmp_path / "data", pictures.members(size=(16, 16))))
    recipe = {"data": data, "network": "densenet_tiny", "image_size": 8, "checkpoint_steps": 2, "loader_workers": 0}
    home = tmp_path / "home"
    with running.installation(home, slots_per_device=2, lease=30, step_seconds=SLOW_SECONDS) as installed:
        store = installed.store
        chosen = [installed.submit(specs.parse({**recipe, "epochs": 4, "seed": seed})).id for seed in range(3)]
        cancelled = installed.submit(specs.parse({**recipe, "epochs": 100_000})).id
        installed.start_node()
        until(lambda: store.jobs(RUNNING), seconds=120)
        for look in itertools.count(1):
            oracle.judge(installed.settings, store, promised=[*chosen, cancelled])
            if look == LOOKS:
                installed.slow_down(0.05)
            if all(store.get(job).final for job in chosen):
                break
            time.sleep(PAUSE_SECONDS)
        until(lambda: store.checkpoints(cancelled), seconds=120)
        oracle.judge(installed.settings, store, promised=[*chosen, cancelled])
        assert store.get(cancelled).state is states.JobState.RUNNING
        store.cancel(cancelled, actor="tester")
        oracle.holds(installed, promised=[*chosen, cancelled])
