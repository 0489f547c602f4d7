"""Folders that may not be written: each command says which, and what to do, and leaves no traceback."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.queue import embedded
from orchestrator.store import sql
from tests.support.running import ROOT

ORCH = [sys.executable, "-m", "orchestrator"]

#: As root, to whom no permission matters, without the rights that make it so.
AS_ANYBODY = [] if os.getuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


@pytest.fixture
def home(settings: config.Settings) -> Iterator[Path]:
    for folder in (settings.home, settings.run_dir, settings.artifact_dir):
        folder.mkdir(mode=0o700)
    yield settings.home
    for folder in (settings.home, settings.run_dir, settings.artifact_dir):
        folder.chmod(0o700)
    embedded.stop(settings)


def orch(settings: config.Settings, *words: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    env = config.child_environment(settings)
    return subprocess.run(
        [*AS_ANYBODY, *ORCH, *words], env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.parametrize(
    "words", [["submit", "--data", "digits"], ["list"], ["up", "-d"], ["db", "upgrade"]], ids=" ".join
)
def test_a_home_that_may_not_be_written_is_named(settings: config.Settings, home: Path, words: list[str]) -> None:
    home.chmod(0o500)
    ran = orch(settings, *words)
    assert (ran.returncode, ran.stdout) == (4, "")
    assert [line[:7] for line in ran.stderr.splitlines()] == ["error: ", "  why: ", "  try: "]
    assert str(home) in ran.stderr
    assert "Permission denied" in ran.stderr
    assert {path.name for path in home.iterdir()} == {"run", "artifacts"}


@pytest.mark.parametrize(("what", "code"), [(".", 2), ("orch.db", 4)])
def test_a_worker_does_not_wait_for_a_database_that_it_may_not_write(
    settings: config.Settings, home: Path, what: str, code: int
) -> None:
    sql.open_store(settings).close()
    mode = stat.S_IMODE((home / what).stat().st_mode)
    (home / what).chmod(mode & 0o555)
    ran = orch(settings, "worker")
    (home / what).chmod(mode)
    assert ran.returncode == code
    assert "read-only" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("folder", "words"), [("run", "The folder {} cannot be used."), ("artifacts", "Permission denied: {}")]
)
def test_a_folder_of_the_home_that_may_not_be_written_is_named(
    settings: config.Settings, home: Path, folder: str, words: str
) -> None:
    (home / folder).chmod(0o500)
    ran = orch(settings, "up", "-d", "--devices", "cpu")
    assert ran.returncode == 1
    assert words.format(home / folder) in ran.stderr
    assert "Traceback" not in ran.stderr + (home / "node.log").read_text("utf-8")


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("words", [["submit", "--data", "digits"], ["list"], ["config", "show"]], ids=" ".join)
def test_a_working_folder_that_may_not_be_looked_into_holds_no_settings(
    settings: config.Settings, tmp_path: Path, words: list[str]
) -> None:
    sql.open_store(settings).close()
    folder = tmp_path / "anothers"
    folder.mkdir()
    (folder / "orch.toml").write_text("leese = 3", encoding="utf-8")
    folder.chmod(0)  # as where one user runs a command for another
    ran = orch(settings, *words, cwd=folder)
    folder.chmod(0o700)
    assert (ran.returncode, "defect" in ran.stderr) == (0, False), ran.stderr


def test_a_home_that_may_not_be_looked_into_is_found_by_the_doctor(settings: config.Settings, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    ran = orch(settings.model_copy(update={"home": closed / "home"}), "doctor")
    closed.chmod(0o700)
    assert ran.returncode == 1
    assert f"fail\thome\t{closed}/home cannot be written" in ran.stdout
    assert "things to fix" in ran.stderr


def test_others_read_nothing_in_a_home_that_they_may_enter(settings: config.Settings) -> None:
    settings.home.mkdir(mode=0o755)
    with closing(sql.open_store(settings)) as store:
        store.counts()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in settings.home.iterdir()}
    assert {"orch.db", "orch.db-wal"} <= modes.keys()
    assert {mode & 0o077 for mode in modes.values()} == {0}, modes
