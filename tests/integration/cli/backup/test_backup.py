"""`orch backup`: what comes back of it, what it leaves out, and what a failure leaves."""

import errno
import fcntl
import io
import json
import os
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from orchestrator import errors
from orchestrator.core import states
from orchestrator.service import backup, restore
from orchestrator.store import artifacts, sql
from tests.contract import parts
from tests.integration.cli.backup.conftest import Scene, files_of, found, quiet, written
from tests.integration.cli.conftest import Orch


def test_what_is_restored_goes_on(scene: Scene, orch: Orch, tmp_path: Path) -> None:
    file, there = tmp_path / "all.zip", scene.other(tmp_path)
    ran = orch("backup", str(file))
    assert (ran.code, ran.rows[0][0], ran.rows[0][2:4]) == (0, str(file), ["2", "3"])
    assert file.stat().st_mode & 0o077 == 0
    ran = orch("--home", str(there.home), "restore", str(file))
    assert ran.code == 0
    assert ["requeued", scene.running.id] in ran.rows
    assert found(there) == []
    before, after = files_of(scene.settings.artifact_dir), files_of(there.artifact_dir)
    assert before.pop(".orch-root") != after.pop(".orch-root")
    assert after == before
    with closing(sql.open_store(there)) as store:
        job = store.get(scene.running.id)
        assert (job.state, job.stage, job.artifact_root) == ("queued", "train", artifacts.known_id(there.artifact_dir))
        assert (job.best_accuracy, store.workers()) == (0.5, [])
        assert [event.kind for event in store.events(job.id)][-2:] == ["drained", "restored"]
        assert store.logs(job.id) == scene.store.logs(job.id)
        assert store.epochs(job.id) == scene.store.epochs(job.id)
        held = parts.claimed(store, states.Stage.TRAIN, root=job.artifact_root or "")
        store.record_resumed(held, attempt=2, step=10)
        store.record_steps(held, parts.losses(11, 12))
    assert found(there) == []


def test_a_worker_of_the_old_place_writes_nothing_into_the_new_one(scene: Scene, tmp_path: Path) -> None:
    """It has gone on since: its claim is of a later attempt than the backup has, and its database is replaced."""
    file = tmp_path / "all.zip"
    written(scene, file)
    root = scene.root
    scene.store.finish(scene.running, parts.DRAINED)
    old = parts.claimed(scene.store, states.Stage.TRAIN, root=root)
    for name in ("orch.db", "orch.db-wal", "orch.db-shm"):
        (scene.settings.home / name).unlink(missing_ok=True)
    restore.restore(scene.settings, file, hear=quiet)
    new = parts.claimed(scene.store, states.Stage.TRAIN, root=root)
    assert (new.id, new.job.worker) == (old.id, old.job.worker)
    with pytest.raises(errors.Stale):
        scene.store.record_steps(old, parts.losses(11, 11, value=0.25))
    with pytest.raises(errors.Stale):
        scene.store.finish(old, parts.DONE)
    assert scene.store.get(new.id).state == "running"


def test_a_wish_is_granted(scene: Scene, tmp_path: Path) -> None:
    scene.store.cancel(scene.running.id, actor="ada")
    written(scene, tmp_path / "all.zip")
    there = scene.other(tmp_path)
    assert restore.restore(there, tmp_path / "all.zip", hear=quiet).states == {"cancelled": 1, "queued": 1}
    assert found(there) == []


def test_a_server_takes_what_a_file_held(scene: Scene, empty_postgres_url: str, tmp_path: Path) -> None:
    file = tmp_path / "all.zip"
    written(scene, file)
    there = scene.other(tmp_path).model_copy(update={"database_url": SecretStr(empty_postgres_url)})
    restore.restore(there, file, hear=quiet)
    assert found(there) == []
    back, home = tmp_path / "back.zip", tmp_path / "back"
    assert backup.backup(there, back, hear=quiet).manifest.database == "postgresql"
    here = there.model_copy(update={"home": home, "database_url": None})
    assert restore.restore(here, back, hear=quiet).states == {"queued": 2}
    assert found(here) == []
    with pytest.raises(errors.IllegalMove, match="2 jobs"):
        restore.restore(there, file, hear=quiet)


def test_rows_without_files_wait_for_their_folder(scene: Scene, orch: Orch, tmp_path: Path) -> None:
    file, there = tmp_path / "rows.zip", scene.other(tmp_path)
    manifest = written(scene, file, with_artifacts=False)
    assert (manifest.files, manifest.root) == (0, None)
    ran = orch("--home", str(there.home), "restore", str(file))
    assert "jobs go on where their artifact folder is" in ran.err
    assert not there.artifact_dir.exists()
    with closing(sql.open_store(there)) as store:
        assert store.get(scene.running.id).artifact_root == scene.root


def test_a_checkpoint_that_goes_meanwhile_is_in_the_backup(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention removes it between the rows and the copy."""
    point = scene.store.checkpoints(scene.running.id)[-1]
    table = backup._Taking.table

    def prune(taking: Any, *words: Any) -> None:
        (scene.settings.artifact_dir / point.path).unlink(missing_ok=True)
        table(taking, *words)

    monkeypatch.setattr(backup._Taking, "table", prune)
    manifest = written(scene, tmp_path / "all.zip")
    assert not (scene.settings.artifact_dir / point.path).exists()
    assert (manifest.left_out, manifest.files) == ((), 3)
    there = scene.other(tmp_path)
    restore.restore(there, tmp_path / "all.zip", hear=quiet)
    assert found(there) == []


def test_what_is_gone_or_damaged_is_left_out_and_said(scene: Scene, orch: Orch, tmp_path: Path) -> None:
    newest, oldest = scene.store.checkpoints(scene.running.id)
    scene.store.finish(scene.running, parts.failed(states.Reason.BAD_INPUT))
    (scene.settings.artifact_dir / newest.path).unlink()
    ran = orch("backup", str(tmp_path / "one.zip"))
    assert (ran.code, ran.rows[0][5]) == (0, "1")
    assert f"{newest.path}: it is gone" in ran.err
    broken = scene.settings.artifact_dir / oldest.path
    broken.write_bytes(broken.read_bytes()[::-1])
    ran = orch("backup", str(tmp_path / "none.zip"), "--json")
    assert ran.code == 1
    assert "1 checkpoint on the disk cannot be used" in ran.err
    told = json.loads(ran.out)["backup"]
    assert (told["files"], [one["damaged"] for one in told["left_out"]]) == (0, [True, False])
    for name, steps in (("one", [5]), ("none", [])):
        there = scene.other(tmp_path / name)
        assert restore.restore(there, tmp_path / f"{name}.zip", hear=quiet).forgotten == (scene.running.id,)
        with closing(sql.open_store(there)) as store:
            assert [point.step for point in store.checkpoints(scene.running.id)] == steps
            again = store.retry(scene.running.id, actor="ada")
            assert (again.artifact_root is None) == (not steps)


def test_a_running_job_whose_checkpoint_is_gone_says_so(scene: Scene, tmp_path: Path) -> None:
    for point in scene.store.checkpoints(scene.running.id):
        (scene.settings.artifact_dir / point.path).unlink()
    assert len(written(scene, tmp_path / "all.zip").left_out) == 2
    there = scene.other(tmp_path)
    restore.restore(there, tmp_path / "all.zip", hear=quiet)
    with closing(sql.open_store(there)) as store:
        told = store.events(scene.running.id)[-1]
        assert (told.kind, "gone or unusable when it was made" in (told.detail or "")) == (
            "checkpoints_forgotten",
            True,
        )
        held = parts.claimed(store, states.Stage.TRAIN, root="anywhere")
        store.record_resumed(held, attempt=None, step=0)
    assert found(there) == []


def test_without_its_folder_there_is_no_backup_with_files(scene: Scene, orch: Orch, tmp_path: Path) -> None:
    """A disk that is not mounted looks like a folder with nothing in it."""
    scene.settings.artifact_dir.rename(tmp_path / "unmounted")
    scene.settings.artifact_dir.mkdir()
    ran = orch("backup", str(tmp_path / "all.zip"))
    assert (ran.code, "the database lists 2 checkpoints" in ran.err, list(tmp_path.glob("*all*"))) == (1, True, [])
    assert orch("backup", "--without-artifacts", str(tmp_path / "all.zip")).code == 0


@pytest.mark.parametrize("what", ["checkpoint", "log"])
def test_what_fails_within_the_copy_ends_the_backup(
    scene: Scene, orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Half a part would stay in the archive, of which its manifest says nothing."""
    file, opened = tmp_path / "all.zip", backup._Taking._open

    def failing(taking: Any, path: str) -> Once:
        source = Once(opened(taking, path).detach())
        source.fails = path.endswith("log.txt") == (what == "log")
        return source

    written(scene, file)
    before = file.read_bytes()
    monkeypatch.setattr(backup._Taking, "_open", failing)
    ran = orch("backup", "--force", str(file))
    assert (ran.code, "cannot be read to its end" in ran.err, "Input/output error" in ran.err) == (1, True, True)
    assert (file.read_bytes(), list(tmp_path.glob(".*"))) == (before, [])


class Once(io.BufferedReader):
    """A file of which the second read from the start fails at its first byte."""

    fails = False
    starts = 0

    def seek(self, *place: int) -> int:
        self.starts += 1
        return super().seek(*place)

    def read(self, size: int | None = -1, /) -> bytes:
        if self.fails and self.starts > 1:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


def test_a_file_that_exists_stays_without_force(scene: Scene, orch: Orch, tmp_path: Path) -> None:
    file = tmp_path / "all.zip"
    file.write_text("mine")
    assert orch("backup", str(file)).code == 2
    assert file.read_text() == "mine"
    assert orch("backup", str(file), "--force").code == 0
    assert zipfile.is_zipfile(file)
    assert [path.name for path in tmp_path.glob(".*")] == []
    del scene


@pytest.mark.parametrize("name", ["nowhere/all.zip", ".", "x" * 300])
def test_a_place_that_cannot_be_is_code_2(scene: Scene, orch: Orch, tmp_path: Path, name: str) -> None:
    ran = orch("backup", str(tmp_path / name))
    assert ran.code == 2
    assert "error:" in ran.err
    del scene


def test_what_is_no_file_is_not_replaced(scene: Scene, orch: Orch, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    ran = orch("backup", "--force", str(tmp_path / "pipe"))
    assert (ran.code, "is no file that could be replaced" in ran.err) == (2, True)
    assert (tmp_path / "pipe").is_fifo()
    del scene


def test_two_at_once_do_not_write_one_file(scene: Scene, orch: Orch, tmp_path: Path) -> None:
    with (tmp_path / ".all.zip.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        ran = orch("backup", str(tmp_path / "all.zip"))
    assert (ran.code, "Another process writes all.zip" in ran.err) == (1, True)
    assert orch("backup", str(tmp_path / "all.zip")).code == 0  # what a killed one has left is no hindrance
    del scene


def test_a_full_disk_is_seen_before_a_byte_is_written(
    scene: Scene, orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(scene, tmp_path / "all.zip")
    monkeypatch.setattr("orchestrator.service.files.free", lambda _: 1000)
    ran = orch("backup", str(tmp_path / "more.zip"))
    assert (ran.code, "1,000 are free" in ran.err) == (1, True)
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == ["all.zip"]
    there = scene.other(tmp_path)
    ran = orch("--home", str(there.home), "restore", str(tmp_path / "all.zip"))
    assert (ran.code, "1,000 are free" in ran.err) == (1, True)
    assert files_of(there.home).keys() <= {"run/node.lock"}


def test_no_database_is_code_4(orch: Orch, tmp_path: Path) -> None:
    ran = orch("backup", str(tmp_path / "all.zip"))
    assert (ran.code, "There is no database yet" in ran.err, list(tmp_path.glob("*.zip"))) == (4, True, [])
