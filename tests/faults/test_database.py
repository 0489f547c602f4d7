"""A database that is away stops no training: what was said meanwhile is written once, and not a bit differs."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from orchestrator.core import layout, specs, states
from orchestrator.store import migrations
from tests.support import oracle, pictures, postgres, proxy, running
from tests.support import undisturbed as alone
from tests.support.waiting import until
from worker import journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

LOCKED_SECONDS = 15
SILENT_SECONDS = 10
EPOCHS = 24
#: Seconds that each of an epoch's six steps takes: a training must outlast every absence, on a fast machine as well.
STEP_SECONDS = 0.25


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Keep every other writer out of a SQLite file."""
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def _spec(folder: Path) -> specs.JobSpec:
    data = str(pictures.write(folder, pictures.members(size=(16, 16))))
    return specs.JobSpec(
        data=data, network="densenet_tiny", image_size=8, epochs=EPOCHS, batch_size=2, loader_workers=0
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the weights of a training that nothing befell."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return alone.weights(folder, _spec(folder))


@contextmanager
def _training(installed: running.Installation, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield a job that trains, and where its journal is; then it must end with every step done once."""
    store = installed.store
    job = installed.submit(_spec(folder))
    installed.start_node()
    until(lambda: len(store.epochs(job.id)) >= 4, seconds=90)
    file = layout.attempt(installed.settings.artifact_dir, job.id, store.get(job.id).attempt) / journal.FILE
    yield job.id, file
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
    until(file.exists, seconds=30)
    size = file.stat().st_size
    threading.Event().wait(seconds)
    until(lambda: file.stat().st_size > size, seconds=30)  # a write may just then wait for the answer of a server


def _records(installed: running.Installation, job_id: str) -> None:
    """Wait until more epochs have come into the database that is there again."""
    known = len(installed.store.epochs(job_id))
    until(lambda: len(installed.store.epochs(job_id)) > known, seconds=60)


def test_a_training_outlives_a_database_that_another_keeps_locked(tmp_path: Path, undisturbed: str) -> None:
    with running.installation(tmp_path / "home", lease=30, step_seconds=STEP_SECONDS) as installed:
        with _training(installed, tmp_path) as (job_id, file), _locked(installed.settings.home / "orch.db"):
            _trains_on(file, seconds=LOCKED_SECONDS)
        assert alone.weights_of(installed, job_id) == undisturbed


def test_a_training_outlives_a_server_that_is_cut_off_hangs_and_crashes(tmp_path: Path, undisturbed: str) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(postgres.running())
        migrations.upgrade(server.url)
        between = stack.enter_context(proxy.Proxy(server.socket))
        settings = {"database_url": server.url_at(between.port), "data_roots": (tmp_path,), "lease": 10}
        installed = stack.enter_context(running.installation(tmp_path / "home", step_seconds=STEP_SECONDS, **settings))
        with _training(installed, tmp_path) as (job_id, file):
            between.silence()
            _trains_on(file, seconds=SILENT_SECONDS)
            between.heal()
            _records(installed, job_id)
            with server.frozen():
                _trains_on(file, seconds=1)
            _records(installed, job_id)
            server.restart()
        assert alone.weights_of(installed, job_id) == undisturbed
