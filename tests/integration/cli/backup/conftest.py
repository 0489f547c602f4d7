"""An installation to be backed up, its backup, and a place where there is nothing yet."""

import hashlib
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config
from orchestrator.core import jobs, states, telling
from orchestrator.service import audit, backup
from orchestrator.store import artifacts, sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.integration.cli.conftest import living_worker


def on_disk(settings: config.Settings, held: jobs.Claim, step: int, **fields: Any) -> jobs.Checkpoint:
    """Write a checkpoint's file and a log, and return what is to be recorded."""
    content = f"weights of {held.id} at {step}".encode() * 100
    path = f"{held.id}/attempt-{held.attempt:04}/checkpoints/step-{step:07}.safetensors"
    file = settings.artifact_dir / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    (file.parents[1] / "log.txt").write_text(f"step {step}\n")
    return jobs.Checkpoint(
        **{
            "attempt": held.attempt,
            "epoch": 0,
            "step": step,
            "path": path,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            **fields,
        }
    )


@dataclass
class Scene:
    """An installation with a job that runs and has checkpoints, one that waits for it, and one that was deleted."""

    settings: config.Settings
    store: sql.SqlStore
    running: jobs.Claim
    waiting: jobs.Job
    root: str

    def other(self, folder: Path) -> config.Settings:
        """Return the settings of a place where there is nothing yet."""
        return self.settings.model_copy(update={"home": folder / "other"})


@pytest.fixture
def scene(settings: config.Settings, store: sql.SqlStore) -> Scene:
    return populated(settings, store)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Path:
    """A backup of such an installation, to be read."""
    settings = config.Settings(home=tmp_path_factory.mktemp("whole") / "home", user="tester")
    sql.make_home(settings)
    shutil.copy(migrated_file, settings.home)
    file = settings.home / "all.zip"
    with closing(sql.open_store(settings, clock=HandClock())) as store:
        written(populated(settings, store), file)
    return file


@pytest.fixture
def there(settings: config.Settings, tmp_path: Path) -> config.Settings:
    """The settings of a place where there is nothing yet."""
    return settings.model_copy(update={"home": tmp_path / "other"})


def populated(settings: config.Settings, store: sql.SqlStore) -> Scene:
    root = artifacts.root_id(settings.artifact_dir)
    store.register(living_worker(artifact_root=root))
    told = telling.Telling(targets=("https://example.org/hook",), on=telling.occasions(["failed"]))
    parts.submit(store, name="first", notify=told)
    store.finish(parts.claimed(store, states.Stage.DOWNLOAD, root=root), parts.DONE)
    held = parts.claimed(store, states.Stage.TRAIN, root=root)
    store.record_resumed(held, attempt=None, step=0)
    store.record_environment(held, parts.ENVIRONMENT)
    store.record_steps(held, parts.losses(1, 10))
    for step in (5, 10):
        point = on_disk(settings, held, step, epoch=step // 5, accuracy=step / 20)
        store.record_checkpoint(held, point, parts.epoch_rows(step // 5, accuracy=step / 20))
    store.record_log(held, jobs.LogChunk(attempt=held.attempt, sequence=0, text="epoch 1\n"))
    waiting = parts.submit(store, name="second", tags=("a",))
    store.delete(parts.submit(store).id, actor="ada")
    return Scene(settings, store, held, waiting, root)


def quiet(_: object) -> None:
    """Hear nothing."""


def written(scene: Scene, path: Path, **options: Any) -> backup.Manifest:
    return backup.backup(scene.settings, path, hear=quiet, **options).manifest


def found(settings: config.Settings) -> list[str]:
    with closing(sql.open_store(settings)) as store:
        return [f"{one.kind} {one.job}: {one.sentence}" for one in audit.audit(settings, store)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
