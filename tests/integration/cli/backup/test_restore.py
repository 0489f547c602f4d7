"""`orch restore`: where it does nothing, what it leaves alone, and what a failure leaves."""

import fcntl
import json
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator import config, errors, failpoints
from orchestrator.service import restore
from orchestrator.store import engine, sql
from tests.contract import parts
from tests.integration.cli.backup.conftest import Scene, files_of, found, quiet, written
from tests.integration.cli.conftest import Orch, heard_of


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
