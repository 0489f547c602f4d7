"""`orch backup` and `orch restore`: what comes back, what is refused, and what a failure leaves."""

import errno
import fcntl
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import pytest
from pydantic import SecretStr

from orchestrator import config, errors, failpoints
from orchestrator.core import jobs, states, telling
from orchestrator.service import archive, audit, backup, restore, schema
from orchestrator.store import artifacts, engine, sql
from tests.conftest import HandClock
from tests.contract import parts
from tests.integration.cli.conftest import Orch, heard_of, living_worker


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


def test_a_look_writes_nothing(whole: Path, there: config.Settings, orch: Orch) -> None:
    ran = orch("--home", str(there.home), "restore", "--dry-run", "--json", str(whole))
    told = json.loads(ran.out)
    assert (ran.code, told["dry_run"], told["backup"]["jobs"]) == (0, True, {"queued": 1, "running": 1})
    assert not there.home.exists()


def test_where_jobs_are_nothing_is_restored(whole: Path, store: sql.SqlStore, orch: Orch) -> None:
    parts.submit(store)
    for words in (["--dry-run"], []):
        ran = orch("restore", *words, str(whole))
        assert (ran.code, "has 1 job." in ran.err) == (1, True)


#: What another application has, whose tables have names of ours; and with alembic of its own.
OTHERS = ["CREATE TABLE events (title text)", "INSERT INTO events VALUES ('fair')", "CREATE TABLE jobs (title text)"]
MIGRATED = [*OTHERS, "CREATE TABLE alembic_version (version_num text)", "INSERT INTO alembic_version VALUES ('0001ab')"]
ALIKE = [*MIGRATED[:-1], "INSERT INTO alembic_version VALUES ('0001')"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("statements", [OTHERS, MIGRATED, ALIKE], ids=["plain", "migrated", "alike"])
def test_another_application_s_tables_stay(
    whole: Path, orch: Orch, request: pytest.FixtureRequest, kind: str, statements: list[str]
) -> None:
    tmp_path = request.getfixturevalue("tmp_path")
    url = f"sqlite:///{tmp_path}/some.db" if kind == "sqlite" else request.getfixturevalue("empty_postgres_url")
    request.getfixturevalue("monkeypatch").setenv("ORCH_DATABASE_URL", url)
    with closing(engine.Database(url)) as database:
        for statement in statements:
            database.write(lambda connection, text=statement: connection.exec_driver_sql(text))  # type: ignore[misc] # a default of a lambda
        for words in (["--dry-run"], []):
            ran = orch("--home", f"{tmp_path}/other", "restore", *words, str(whole))
            assert (ran.code, "has tables that are not orch's" in ran.err) == (1, True)
        kept = database.read(lambda connection: connection.exec_driver_sql("SELECT title FROM events").scalar_one())
    assert kept == "fair"


def test_where_a_worker_lives_nothing_is_restored(whole: Path, there: config.Settings, orch: Orch) -> None:
    heard_of(there)
    ran = orch("--home", str(there.home), "restore", str(whole))
    assert (ran.code, "Worker worker-a runs" in ran.err) == (1, True)


def test_beside_a_node_nothing_is_restored(whole: Path, there: config.Settings, orch: Orch) -> None:
    there.run_dir.mkdir(parents=True)
    with (there.run_dir / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (there.run_dir / "node.pid").write_text("7")
        for words in (["--dry-run"], []):
            ran = orch("--home", str(there.home), "restore", *words, str(whole))
            assert (ran.code, "A node, or another `orch" in ran.err) == (1, True)
    assert not (there.home / "orch.db").exists()


def test_a_file_in_the_way_is_left_alone(whole: Path, there: config.Settings) -> None:
    other = there.artifact_dir / restore.look(there, whole, hear=quiet).files[0].name
    other.parent.mkdir(parents=True)
    other.write_text("another's")
    with pytest.raises(errors.OrchError, match="is in the way"):
        restore.restore(there, whole, hear=quiet)
    assert (other.read_text(), (there.home / "orch.db").exists()) == ("another's", False)


def test_a_log_that_has_grown_stays(scene: Scene, tmp_path: Path) -> None:
    """The database is lost, and the folder is as the jobs left it."""
    written(scene, tmp_path / "all.zip")
    log = next(scene.settings.artifact_dir.rglob("log.txt"))
    with log.open("a") as more:
        more.write("step 11\n")
    grown = log.read_text()
    for name in ("orch.db", "orch.db-wal", "orch.db-shm"):
        (scene.settings.home / name).unlink(missing_ok=True)
    log.write_text(f"another's {grown}")
    with pytest.raises(errors.OrchError, match=r"log\.txt is in the way"):
        restore.restore(scene.settings, tmp_path / "all.zip", hear=quiet)
    log.write_text(grown)
    restore.restore(scene.settings, tmp_path / "all.zip", hear=quiet)
    assert log.read_text() == grown
    assert found(scene.settings) == []


@pytest.mark.parametrize("place", ["restore.write", "restore.rename", "schema.load.commit"])
def test_what_fails_is_completed_by_a_second_restore(
    whole: Path, there: config.Settings, orch: Orch, points: Path, place: str
) -> None:
    (points / place).write_text("pass\nenospc" if place == "restore.write" else "enospc")
    ran = orch("--home", str(there.home), "restore", str(whole))
    assert ran.code in {1, 4}
    assert "No space left" in ran.err or "free space" in ran.err.lower()
    assert (points / f"{place}.fired").exists()
    with pytest.raises(errors.DatabaseUnavailable):
        sql.open_store(there)
    assert orch("--home", str(there.home), "restore", str(whole)).code == 0
    assert found(there) == []
    assert [name for name in files_of(there.artifact_dir) if name.endswith(".restoring")] == []


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which failpoints are armed."""
    folder = tmp_path / "points"
    folder.mkdir()
    monkeypatch.setattr(failpoints, "folder", lambda: folder)
    return folder


Change = Callable[[dict[str, Any], dict[str, bytes]], None]


def forged(source: Path, target: Path, change: Change, *, kind: str = backup.KIND) -> Path:
    """Write a backup whose manifest and parts somebody has changed, and who knows how digests are made."""
    with zipfile.ZipFile(source) as whole:
        inside = {name: whole.read(name) for name in whole.namelist()}
    manifest = json.loads(inside.pop("manifest.json"))
    change(manifest, inside)

    class Said(archive.Head):
        model_config = pydantic.ConfigDict(extra="allow")

    with archive.writing(target, kind=kind, force=True) as writer:
        made = {name: writer.add(name, [content]).model_dump() for name, content in inside.items()}
        for table in manifest["tables"]:
            table["part"] = made.get(table["part"]["name"], table["part"])
        if manifest["listing"]:
            manifest["listing"] = made.get(manifest["listing"]["name"], manifest["listing"])
        writer.end(Said.model_validate({"format": 1, "orch": "0"} | manifest))
    return target


def _rename_file(to: str) -> Change:
    def change(_: dict[str, Any], inside: dict[str, bytes]) -> None:
        name = next(name for name in inside if name.endswith(".safetensors"))
        inside[f"artifacts/{to}"] = inside.pop(name)
        listing = (
            inside["artifacts.jsonl"].decode().replace(json.dumps(name.removeprefix("artifacts/")), json.dumps(to))
        )
        inside["artifacts.jsonl"] = listing.encode()

    return change


def _say(**fields: Any) -> Change:
    return lambda manifest, _: manifest.update(fields)


def _lose(name: str) -> Change:
    return lambda _, inside: inside.__delitem__(name)


def _put(name: str, content: bytes) -> Change:
    return lambda _, inside: inside.update({name: content})


def _other_table(manifest: dict[str, Any], _: dict[str, bytes]) -> None:
    manifest["tables"][0]["name"] = "events"


FORGED: dict[str, tuple[Change, str]] = {
    "path-up": (_rename_file("aaaaaaaa/../../evil"), "no path of a job's file"),
    "path-absolute": (_rename_file("/etc/evil"), "no path of a job's file"),
    "path-root": (_rename_file(".orch-root"), "no path of a job's file"),
    "path-short": (_rename_file("abc/evil"), "no path of a job's file"),
    "path-backslash": (_rename_file("aaaaaaaa/..\\evil"), "no path of a job's file"),
    "path-control": (_rename_file("aaaaaaaa/a\nb"), "no path of a job's file"),
    "path-long": (_rename_file(f"aaaaaaaa/{'x' * 300}"), "no path of a job's file"),
    "path-double": (_rename_file("aaaaaaaa//evil"), "no path of a job's file"),
    "format": (_say(format=2), "is of format 2; this orch reads 1"),
    "newer": (_say(revision="9999"), "schema version 9999"),
    "revision": (_say(revision="../x"), "revision"),
    "strange": (_say(evil=1), "evil"),
    "database": (_say(database="mongodb"), "database"),
    "moment": (_say(made_at="2026-11-29T12:00:00"), "made_at"),
    "count": (_say(files=7), "counts other files"),
    "root": (_say(root=None), "files of no folder"),
    "missing": (_lose("tables/events.jsonl"), "is missing"),
    "extra": (_put("tables/evil.jsonl", b"[]"), "of which its manifest says nothing"),
    "list": (_put("artifacts.jsonl", b"{}"), "list of files cannot be read"),
    "rows": (_put("tables/events.jsonl", b"[1]\n"), "a row of events cannot be read"),
    "orphans": (_put("tables/jobs.jsonl", b""), "not there"),
    "table": (_other_table, "another name than its part"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_backup_is_refused_and_leaves_nothing(
    whole: Path, there: config.Settings, orch: Orch, tmp_path: Path, name: str
) -> None:
    change, why = FORGED[name]
    forged(whole, tmp_path / "forged.zip", change)
    ran = orch("--home", str(there.home), "restore", str(tmp_path / "forged.zip"))
    assert ran.code == (4 if name == "newer" else 1)
    assert why in ran.err
    assert "Traceback" not in ran.err
    assert schema.current(there)[0] is None
    assert not list(tmp_path.rglob("evil*"))
    if name not in {"rows", "orphans"}:  # what only the database sees comes behind the files
        assert files_of(there.home).keys() <= {"run/node.lock"}


def _flipped(content: bytes) -> bytes:
    middle = content.index(b"weights of") + 5
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _bomb(whole: Path, file: Path) -> None:
    """Write an archive of which a part unpacks to more than its manifest says."""
    forged(whole, file, _put("tables/events.jsonl", b""))
    with zipfile.ZipFile(file) as one:
        comment, inside = one.comment, {name: one.read(name) for name in one.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as one:
        for name, part in inside.items():
            one.writestr(name, bytes(10**7) if name == "tables/events.jsonl" else part)
        one.comment = comment


def _twice(whole: Path, file: Path) -> None:
    shutil.copy(whole, file)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as more:
        more.writestr("manifest.json", "{}")


def _some_zip(_: Path, file: Path) -> None:
    with zipfile.ZipFile(file, "w") as other:
        other.writestr("manifest.json", "{}")


BROKEN: dict[str, Callable[[Path, Path], object]] = {
    "empty": lambda _, file: file.touch(),
    "text": lambda _, file: file.write_text("orch backup"),
    "cut": lambda whole, file: file.write_bytes(whole.read_bytes()[:-100]),
    "flipped": lambda whole, file: file.write_bytes(_flipped(whole.read_bytes())),
    "zip": _some_zip,
    "bundle": lambda whole, file: forged(whole, file, lambda *_: None, kind="orch bundle"),
    "folder": lambda _, file: file.mkdir(),
    "gone": lambda *_: None,
    "twice": _twice,
    "bomb": _bomb,
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_whole_backup_is_refused(
    whole: Path, there: config.Settings, orch: Orch, tmp_path: Path, what: str
) -> None:
    file = tmp_path / "bad.zip"
    BROKEN[what](whole, file)
    ran = orch("--home", str(there.home), "restore", str(file))
    assert ran.code == (3 if what == "gone" else 1)
    assert "Traceback" not in ran.err
    assert "error:" in ran.err
    assert files_of(there.home).keys() <= {"run/node.lock"}
