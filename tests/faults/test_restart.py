"""A host that was switched off and on again: its node knows what was its own, and clears away what was deleted."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.core import specs, states
from orchestrator.store import artifacts
from tests.support import oracle, pictures, running
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_node_takes_back_at_once_what_it_held_before_its_host_restarted(tmp_path: Path) -> None:
    data = str(pictures.write(tmp_path, pictures.members(size=(16, 16))))
    spec = specs.JobSpec(data=data, network="densenet_tiny", image_size=8, epochs=100_000, loader_workers=0)
    # Nobody waits for a lease here: it would take an hour.
    with running.installation(tmp_path / "home", lease=3600, step_seconds=0.05) as installed:
        store, root = installed.store, installed.settings.artifact_dir
        job = installed.submit(spec)
        installed.start_node()
        until(lambda: store.checkpoints(job.id), seconds=60)
        deleted = installed.submit(spec)
        (root / deleted.id / "attempt-0001").mkdir(parents=True)
        store.delete(deleted.id, actor="tester")
        for process in running.processes_of(installed.settings.home):
            process.kill()
        installed.nodes[-1].wait()
        before = store.get(job.id).attempt
        with closing(sqlite3.connect(installed.settings.home / "orch.db")) as database:
            database.execute("UPDATE workers SET boot_id = 'before'")
            database.commit()
        installed.start_node()
        until(lambda: store.get(job.id).attempt > before, seconds=60)
        until(lambda: not (root / deleted.id).exists(), seconds=30)
        assert (root / job.id).exists()
        assert artifacts.known_id(root) == store.get(job.id).artifact_root
        store.cancel(job.id, actor="tester")
        installed.wait(job.id, states.JobState.CANCELLED)
        oracle.holds(installed, promised=[job.id, deleted.id])
        assert len(list((installed.settings.run_dir / "living").iterdir())) == 1  # the dead one's lock is forgotten
