"""Every verb where the database is held by another, is read-only, or where nobody can read what is said."""

import json
import pwd
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from orchestrator import config
from orchestrator.core import jobs, specs
from orchestrator.store import base, engine, sqlite
from tests.contract import parts
from tests.integration.cli.conftest import Orch
from tests.integration.cli.test_edge import ORCH
from tests.support.running import ROOT

#: Each verb that writes, and what brings a job to where it may be used.
VERBS = {
    "submit": (),
    "cancel": (),
    "pause": (),
    "resume": ("pause",),
    "retry": ("cancel",),
    "delete": (),
}

#: Becomes a command that may not write what its mode forbids, also where root runs the tests: prctl(2) takes the
#: capability CAP_DAC_OVERRIDE out of what a program that is started may have.
WITHOUT_ROOTS_POWER = [
    sys.executable,
    "-c",
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])",
]

#: A program that runs each command line that it reads in a process of its own, all beside each other, and says how
#: each ended: its exit code, and its standard error. It imports what they need once, and opens no database itself, for
#: which each of them waits as long as the program is told.
SEVERAL = """
import json, os, sys, tempfile, traceback
from orchestrator.cli import main
from orchestrator.store import engine, sql
engine.PATIENCE = float(sys.argv[1])
running = []
for words in json.load(sys.stdin):
    main.load(words[0])
    said = tempfile.TemporaryFile("w+")
    running.append((os.fork(), said))
    if not running[-1][0]:
        os.dup2(said.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
        try:
            code = main.run(words)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
ends = []
for process, said in running:
    _, status = os.waitpid(process, 0)
    said.seek(0)
    ends.append((os.waitstatus_to_exitcode(status), said.read()))
print(json.dumps(ends))
"""


def command(verb: str, job: jobs.Job) -> list[str]:
    """Return the words of a verb for a job, or for a new one."""
    return {"submit": ["submit", "--data", "digits"], "delete": ["delete", "--yes", job.id]}.get(verb, [verb, job.id])


def a_job_for(store: base.Store, verb: str) -> jobs.Job:
    job = parts.submit(store, spec=specs.parse({"data": "digits"}))
    for before in VERBS[verb]:
        getattr(store, before)(job.id, actor="ada")
    return job


@contextmanager
def held(settings: config.Settings, *, seconds: float | None = None) -> Iterator[None]:
    """Hold the database as another writer would, to the end or for some seconds."""
    with closing(
        sqlite3.connect(settings.home / "orch.db", isolation_level=None, check_same_thread=False)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(seconds or 0, connection.rollback)
        if seconds is not None:
            timer.start()
        yield
        if seconds is not None:
            timer.join()


def all_at_once(
    env: dict[str, str], commands: list[list[str]], *, by: Sequence[str] = (), patience: float = engine.PATIENCE
) -> list[tuple[int, str]]:
    """Run commands beside each other; return exit code and stderr of each."""
    done = subprocess.run(
        [*by, sys.executable, "-c", SEVERAL, str(patience)],
        input=json.dumps(commands),
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=True,
    )
    ends = [(code, said) for code, said in json.loads(done.stdout)]
    assert len(ends) == len(commands)
    return ends


def test_a_writer_of_two_seconds_is_waited_for(store: base.Store, settings: config.Settings) -> None:
    commands = [command(verb, a_job_for(store, verb)) for verb in VERBS]
    with held(settings, seconds=2):
        # Six that begin at once are through in time on a quiet machine only.
        ends = all_at_once(config.child_environment(settings), commands, patience=60)
    assert [code for code, _ in ends] == [0] * len(VERBS), ends


def test_a_writer_that_stays_is_said_by_every_verb(store: base.Store, settings: config.Settings) -> None:
    commands = [command(verb, a_job_for(store, verb)) for verb in VERBS]
    with held(settings):
        looked, *ends = all_at_once(config.child_environment(settings), [["list"], *commands])
    assert looked == (0, "")  # looking needs no lock
    for code, said in ends:
        assert code == 4, said
        assert "kept it locked" in said
        assert "Traceback" not in said


def test_a_writer_that_stays_is_said_within_five_seconds(
    orch: Orch, store: base.Store, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    begin = sqlite._begin

    def noted(patience: float, connection: Connection) -> None:
        if connection.get_execution_options().get("orch_begin") != "BEGIN":  # who only reads waits for nobody
            waits.append(patience)
        begin(patience, connection)

    monkeypatch.setattr(sqlite, "_begin", noted)
    job = parts.submit(store)
    with held(settings):
        assert orch("cancel", job.id).code == 4
    assert 0 < sum(waits) < 4.3  # seconds; the program's start adds half a one


@pytest.fixture
def read_only(store: base.Store, settings: config.Settings) -> Iterator[tuple[Path, list[list[str]]]]:
    """A database with jobs in a folder that its user may only read, and the verbs' commands."""
    commands = [command(verb, a_job_for(store, verb)) for verb in VERBS]
    store.close()
    # Not in pytest's folder, which is closed to other users.
    with tempfile.TemporaryDirectory(prefix="orch-ro-") as folder:
        home = Path(folder)
        with closing(sqlite3.connect(settings.home / "orch.db")) as source:
            source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for name in ("orch.db", "orch.db-wal", "orch.db-shm"):
            if (settings.home / name).exists():
                (home / name).write_bytes((settings.home / name).read_bytes())
                (home / name).chmod(0o444)
        home.chmod(0o555)
        yield home, commands
        home.chmod(0o755)


def test_a_read_only_database_is_said(read_only: tuple[Path, list[list[str]]], settings: config.Settings) -> None:
    home, commands = read_only
    env = config.child_environment(settings) | {"ORCH_HOME": str(home)}
    before = {path.name: path.read_bytes() for path in home.iterdir()}
    for code, said in all_at_once(env, commands, by=WITHOUT_ROOTS_POWER):
        assert code == 4, said
        assert "read-only" in said
        assert "Traceback" not in said
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before


STREAMS = (">&-", "2>&-", ">/dev/full", "2>/dev/full", "</dev/null >/dev/null 2>&1")
KINDS = {"cancel": "cancelled", "pause": "paused", "resume": "resumed", "retry": "new_run", "delete": None}


@pytest.mark.parametrize(("to", "verb"), list(zip(STREAMS, KINDS, strict=True)))
def test_a_verb_whose_words_nobody_hears_is_done_all_the_same(
    store: base.Store, settings: config.Settings, to: str, verb: str
) -> None:
    job, kind = a_job_for(store, verb), KINDS[verb]
    line = f"{shlex.join([*ORCH, *command(verb, job)])} {to}"
    env = config.child_environment(settings)
    done = subprocess.run(["/bin/sh", "-c", line], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == int(to == ">/dev/full"), done.stderr
    assert ("The output cannot be written" in done.stderr) is (to == ">/dev/full")
    assert "Traceback" not in done.stderr  # where it is seen: behind `2>` code and effect are all there is
    assert parts.kinds(store, job.id)[-1:] == ([kind] if kind else [])
    assert store.deleted([job.id]) == (set() if kind else {job.id})


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user who has no home folder, as in a container under a number that has no name."""
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(_: object) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("words", [("pause", "abc"), ("delete", "--yes", "abc"), ("submit",), ("status",)])
def test_without_a_home_every_verb_names_the_variable(
    orch: Orch, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.delenv("ORCH_HOME")
    ran = orch(*words)
    assert (ran.code, "ORCH_HOME" in ran.err) == (2, True), ran.err


@pytest.mark.usefixtures("homeless")
def test_a_home_of_orch_is_all_that_it_needs(orch: Orch, store: base.Store) -> None:
    job = parts.submit(store)
    for words in (
        ("pause", job.id),
        ("resume", job.id),
        ("status", job.id),
        ("config", "paths"),
        ("delete", "--yes", job.id),
    ):
        assert orch(*words).code == 0
