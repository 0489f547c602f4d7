"""A database that is away stops no training: what was said meanwhile is written once, and not a bit differs."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core import jobs, layout, specs, states
from orchestrator.store import migrations
from tests.support import oracle, pictures, postgres, proxy, running
from tests.support import undisturbed as alone
from tests.support.waiting import patiently, until
from worker import journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOCKED_SECONDS = 15
SILENT_SECONDS = 6
EPOCHS = 30
#: Seconds that each of an epoch's six steps takes: a training must outlast every absence, on a fast machine as well.
STEP_SECONDS = 0.8


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Keep every other writer out of a SQLite file."""
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.fixture
def spec(tmp_path: Path) -> specs.JobSpec:
    data = pictures.write(tmp_path / "data", pictures.members(size=(16, 16)))
    return specs.JobSpec(
        data=str(data), network="densenet_tiny", image_size=8, epochs=EPOCHS, batch_size=2, loader_workers=0
    )


def _begun(installed: running.Installation, spec: specs.JobSpec) -> jobs.Job:
    """Return a job that a node is about to take."""
    job = installed.submit(spec)
    installed.start_node()
    return job


@contextmanager
def _training(installed: running.Installation, job: jobs.Job) -> Iterator[Path]:
    """Yield the journal of a job that trains; then it must end with every step done once."""
    store = installed.store
    until(lambda: len(store.epochs(job.id)) >= 2, seconds=180)  # two nodes start at once
    file = layout.attempt(installed.settings.artifact_dir, job.id, store.get(job.id).attempt) / journal.FILE
    yield file
    installed.hurry()
    installed.wait(job.id, states.JobState.SUCCEEDED, seconds=200)
    assert not file.exists()
    rows = [(row.epoch, row.split) for row in store.epochs(job.id)]
    assert rows == [(epoch, split) for epoch in range(1, EPOCHS + 1) for split in ("train", "val")]
    assert len(store.steps(job.id)) == store.checkpoints(job.id)[0].step
    assert [attempt.outcome for attempt in store.attempts(job.id)] == ["done"] * 3
    oracle.holds(installed, promised=[job.id])


def _trains_on(file: Path, *, seconds: float) -> None:
    """Check that the journal grows while the database is away."""
    size = until(lambda: _size(file), seconds=60)
    threading.Event().wait(seconds)
    until(lambda: _size(file) > size, seconds=60)  # a write may just then wait for the answer of a server


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # its supervisor has just caught up, and has had no time to remove it before
        return 0


def _records(installed: running.Installation, job_id: str) -> None:
    """Wait until more epochs have come into the database that is there again."""
    known = len(patiently(installed.store.epochs, job_id))
    until(lambda: len(patiently(installed.store.epochs, job_id)) > known, seconds=60)


@contextmanager
def _served(folder: Path) -> Iterator[tuple[postgres.Server, proxy.Proxy, running.Installation]]:
    """Yield a server, what lies between, and an installation on it."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres.running())
        patiently(migrations.upgrade, server.url)
        between = stack.enter_context(proxy.Proxy(server.socket))
        settings: dict[str, Any] = {"database_url": server.url_at(between.port), "data_roots": (folder,), "lease": 90}
        home = folder / "on-a-server"
        yield server, between, stack.enter_context(running.installation(home, step_seconds=STEP_SECONDS, **settings))


def test_trainings_outlive_a_file_that_is_locked_and_a_server_that_is_cut_off_hangs_and_crashes(
    tmp_path: Path, spec: specs.JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has its troubles while the other database is locked."""
    postgres.be_patient(monkeypatch)  # it is the nodes that must get over them
    undisturbed = alone.weights(tmp_path / "undisturbed", spec)
    with (
        running.installation(tmp_path / "on-a-file", lease=90, step_seconds=STEP_SECONDS) as on_a_file,
        _served(tmp_path) as (server, between, on_a_server),
    ):
        of_the_file, of_the_server = _begun(on_a_file, spec), _begun(on_a_server, spec)
        with (
            _training(on_a_file, of_the_file) as journal_of_the_file,
            _training(on_a_server, of_the_server) as journal_of_the_server,
            _locked(on_a_file.settings.home / "orch.db"),
        ):
            began = time.monotonic()
            between.silence()
            _trains_on(journal_of_the_server, seconds=SILENT_SECONDS)
            between.heal()
            _records(on_a_server, of_the_server.id)
            with server.frozen():
                _trains_on(journal_of_the_server, seconds=1)
            _records(on_a_server, of_the_server.id)
            server.restart()
            _trains_on(journal_of_the_file, seconds=max(0.0, began + LOCKED_SECONDS - time.monotonic()))
        assert alone.weights_of(on_a_file, of_the_file.id) == undisturbed
        assert alone.weights_of(on_a_server, of_the_server.id) == undisturbed
