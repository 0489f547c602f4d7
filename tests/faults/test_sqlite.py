"""A SQLite file that is full, gone, replaced, damaged or left by a kill: every command says so, and a node lives on."""

import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from orchestrator import config
from orchestrator.core import jobs, specs, states
from orchestrator.store import sql
from tests.integration.cli.conftest import Orch
from tests.integration.cli.test_hindrances import VERBS, WITHOUT_ROOTS_POWER, a_job_for
from tests.support import oracle, pictures, running
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(400)


def words(verb: str, job: jobs.Job) -> list[str]:
    """Return the command line of a verb."""
    return {"submit": ["submit", "--data", "digits"], "delete": ["delete", "--yes", job.id]}.get(verb, [verb, job.id])


def check_refused(orch: Orch, *command: str, why: str) -> None:
    ran = orch(*command)
    assert (ran.code, ran.out) == (4, ""), ran
    assert why in ran.err
    assert "  try: " in ran.err
    assert "Traceback" not in ran.err


@contextmanager
def _full_disk() -> Iterator[None]:
    """Let no file of this process grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_by_every_verb_and_changes_nothing(orch: Orch, store: sql.SqlStore) -> None:
    there = {verb: a_job_for(store, verb) for verb in VERBS}
    before = {verb: store.history(job.id) for verb, job in there.items()}
    with _full_disk():
        for verb, job in there.items():
            check_refused(orch, *words(verb, job), why="full")
    assert {verb: store.history(job.id) for verb, job in there.items()} == before
    assert len(store.jobs(jobs.JobFilter())) == len(VERBS)
    assert orch(*words("cancel", there["cancel"])).code == 0


#: Submits three jobs, and dies in the middle of the fourth.
KILLED = """
import os, signal
from orchestrator import config
from orchestrator.store import sql
from tests.contract import parts
store = sql.open_store(config.load())
for _ in range(3):
    print(parts.submit(store).id, flush=True)
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
from orchestrator.store import people
people.moves.record = die
parts.submit(store)
"""


def test_what_was_committed_before_a_kill_is_there(orch: Orch, store: sql.SqlStore, settings: config.Settings) -> None:
    """It is in the write-ahead log alone."""
    store.close()
    env = config.child_environment(settings)
    line = [sys.executable, "-c", KILLED]
    killed = subprocess.run(line, env=env, cwd=running.ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (settings.home / "orch.db-wal").stat().st_size > 0
    assert sorted(row[0] for row in orch("list").rows[-3:]) == sorted(killed.stdout.split())
    with closing(sqlite3.connect(settings.home / "orch.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("content", [b"", b"no database, but as long as the header of one" * 100])
def test_a_file_that_is_no_database_of_ours_is_said(
    orch: Orch, store: sql.SqlStore, settings: config.Settings, content: bytes
) -> None:
    store.close()
    (settings.home / "orch.db").write_bytes(content)
    (settings.home / "artifacts" / "abcdefgh").mkdir(parents=True)
    for command in (("status",), ("submit", "--data", "digits"), ("up", "-d"), ("cancel", "abcdefgh")):
        check_refused(orch, *command, why="no SQLite database" if content else "have left files")
    if content:
        assert (settings.home / "orch.db").read_bytes() == content


def test_a_node_in_a_folder_that_is_read_only_says_so(settings: config.Settings) -> None:
    settings.home.mkdir()
    settings.home.chmod(0o555)
    settings.home.parent.chmod(0o755)
    line = [*WITHOUT_ROOTS_POWER, sys.executable, "-m", "worker"]
    env = config.child_environment(settings)
    ended = subprocess.run(line, env=env, cwd=running.ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "cannot be used" in ended.stderr
    assert "Traceback" not in ended.stderr


def _hold(installed: running.Installation, file: Path) -> bool:
    """Whether a process of the installation has the file open."""
    for process in running.processes_of(installed.settings.home):
        with suppress(psutil.NoSuchProcess):
            if any(opened.path == str(file) for opened in process.open_files()):
                return True
    return False


@pytest.mark.slow
def test_a_node_outlives_a_database_that_is_taken_away_and_one_that_is_put_in_its_place(tmp_path: Path) -> None:
    data = str(pictures.write(tmp_path, pictures.members(size=(16, 16))))
    spec = specs.parse({"data": data, "network": "densenet_tiny", "image_size": 8, "epochs": 1, "loader_workers": 0})
    with running.installation(tmp_path / "home") as installed:
        node = installed.start_node()
        first = installed.submit(spec)
        installed.wait(first.id, states.JobState.SUCCEEDED)
        file, aside = installed.settings.home / "orch.db", installed.settings.home / "aside.db"
        log = installed.settings.home / "node-0.log"

        file.rename(aside)
        assert "is gone" in installed.orch("status", code=4).stderr
        until(lambda: "database away" in log.read_text("utf-8"), seconds=60)
        assert not file.exists()
        aside.rename(file)
        second = installed.submit(spec)
        installed.wait(second.id, states.JobState.SUCCEEDED)

        file.rename(aside)
        # Until all have let it go, SQLite's own files of the one that was taken away are in the other one's way.
        installed.store.close()
        until(lambda: not _hold(installed, aside), seconds=60)
        installed.orch("db", "upgrade")
        until(installed.store.workers, seconds=60)
        assert "registers anew" in log.read_text("utf-8")
        third = installed.submit(spec)
        installed.wait(third.id, states.JobState.SUCCEEDED)
        assert [job.id for job in installed.store.jobs(jobs.JobFilter())] == [third.id]
        assert node.poll() is None
        oracle.holds(installed, promised=[third.id])
