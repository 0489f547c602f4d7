"""A database that is away stops no training: what was said meanwhile is written once, and not a bit differs."""

import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import safetensors.torch

from orchestrator.core import specs, states
from tests.support import oracle, pictures, running
from tests.support.waiting import until
from worker import folders, journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

OUTAGE_SECONDS = 10
EPOCHS = 200


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Keep every other writer out of a SQLite file."""
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def _weights(installed: running.Installation, job_id: str) -> str:
    newest = installed.store.checkpoints(job_id)[0]
    tensors = safetensors.torch.load((installed.settings.artifact_dir / newest.path).read_bytes())
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if name.startswith(("model.", "optimizer.")):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def test_a_training_outlives_ten_seconds_without_its_database(tmp_path: Path) -> None:
    data = str(pictures.write(tmp_path, pictures.members(size=(16, 16))))
    spec = specs.JobSpec(
        data=data, network="densenet_tiny", image_size=8, epochs=EPOCHS, batch_size=2, loader_workers=0
    )
    with running.installation(tmp_path / "home", lease=30) as installed:
        store, root = installed.store, installed.settings.artifact_dir
        job = installed.submit(spec)
        installed.start_node()
        until(lambda: len(store.epochs(job.id)) >= 4, seconds=90)
        file = folders.attempt(root, job.id, store.get(job.id).attempt) / journal.FILE
        with _locked(installed.settings.home / "orch.db"):
            until(file.exists, seconds=OUTAGE_SECONDS)
            size = file.stat().st_size
            threading.Event().wait(OUTAGE_SECONDS)
            assert file.stat().st_size > size  # it trains on
        installed.wait(job.id, states.JobState.SUCCEEDED, seconds=120)

        assert not file.exists()
        rows = [(row.epoch, row.split) for row in store.epochs(job.id)]
        assert rows == [(epoch, split) for epoch in range(1, EPOCHS + 1) for split in ("train", "val")]
        assert len(store.steps(job.id)) == store.checkpoints(job.id)[0].step
        assert [attempt.outcome for attempt in store.attempts(job.id)] == ["done"] * 3
        undisturbed = installed.submit(spec)
        installed.wait(undisturbed.id, states.JobState.SUCCEEDED, seconds=120)
        assert _weights(installed, job.id) == _weights(installed, undisturbed.id)
        oracle.holds(installed, promised=[job.id, undisturbed.id])
