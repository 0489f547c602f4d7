"""A host that was switched off and on again: its node knows what was its own, and clears away what was deleted."""

import dataclasses
from pathlib import Path

import pytest

from orchestrator.core import clock, specs, states
from orchestrator.store import artifacts
from tests.contract import parts
from tests.support import oracle, pictures, running
from tests.support.waiting import until
from worker import identity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_a_node_takes_back_at_once_what_it_held_before_its_host_restarted(tmp_path: Path) -> None:
    data = str(pictures.write(tmp_path, pictures.members(size=(16, 16))))
    spec = specs.JobSpec(data=data, network="densenet_tiny", image_size=8, epochs=100_000, loader_workers=0)
    # Nobody waits for a lease here: it would take an hour.
    with running.installation(tmp_path / "home", lease=3600, step_seconds=0.05) as installed:
        store, root = installed.store, installed.settings.artifact_dir
        job = installed.submit(spec)
        before = _claimed_before_the_restart(installed)
        deleted = installed.submit(spec)
        (root / deleted.id / "attempt-0001").mkdir(parents=True)
        store.delete(deleted.id, actor="tester")
        installed.start_node()
        until(lambda: store.get(job.id).attempt > before, seconds=120)
        until(lambda: store.checkpoints(job.id))
        until(lambda: not (root / deleted.id).exists())
        lost, *later = store.attempts(job.id)
        assert (lost.attempt, lost.outcome) == (before, "lost")
        assert lost.worker not in {attempt.worker for attempt in later}
        assert artifacts.known_id(root) == store.get(job.id).artifact_root
        store.cancel(job.id, actor="tester")
        installed.wait(job.id, states.JobState.CANCELLED)
        oracle.holds(installed, promised=[job.id, deleted.id])
        assert len(list((installed.settings.run_dir / "living").iterdir())) == 1  # the dead one's lock is forgotten


def _claimed_before_the_restart(installed: running.Installation) -> int:
    """Leave what a node leaves that is switched off in the middle of a job; return the attempt."""
    store, settings = installed.store, installed.settings
    gone = dataclasses.replace(identity.mine("gone"), boot_id="before")
    settings.run_dir.mkdir(parents=True)
    with identity.held(settings.run_dir / "living", gone.id) as lock:
        pass
    (settings.run_dir / "living" / lock).touch()
    root, now = artifacts.root_id(settings.artifact_dir), clock.SystemClock().now()
    store.register(parts.worker(gone, now=now, root=root))
    claim = store.claim(worker=gone, device="CPU", stages=[states.Stage.DOWNLOAD], artifact_root=root)
    assert claim is not None
    return claim.attempt
