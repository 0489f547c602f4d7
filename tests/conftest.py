"""What all tests may ask for: settings of their own, a store on each database, a clock that is moved by hand."""

import gc
import multiprocessing.util
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis
import psutil
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from orchestrator import config, environ, errors, failpoints, sockets
from orchestrator.core import ids
from orchestrator.store import migrations, models, sql
from tests.support import compiled, forking, postgres
from tests.support.waiting import patiently

# How long an example takes says nothing on a machine that runs other tests beside this one.
hypothesis.settings.register_profile(
    "orch", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("orch")


#: The kernel's file system in memory, and the bytes that must be free there.
_MEMORY = Path("/dev/shm")  # noqa: S108 - each run makes folders of its own in it
_ROOM_BYTES = 4 * 2**30


def pytest_configure(config: pytest.Config) -> None:
    """Let tests that run side by side keep out of each other's way.

    Each computes with one thread, before torch is there to read how many: two that wait for each other take the cores
    of other tests. Files lie in memory where there is room: tests would wait for the disk most of their time. What only
    a power failure shows, no test here sees: those of fsync look at who calls it, and when.
    """
    _let_signals_through()
    compiled.share()
    failpoints.folder()  # of none of the installations whose environment a test takes over: the answer is kept
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # noqa: TID251 - as below
    if hasattr(config, "workerinput") or not _has_room(_MEMORY):  # a process of several has the folder of all
        return
    folder = tempfile.mkdtemp(prefix="o-", dir=_MEMORY)  # short: sockets lie in it
    Path(folder).chmod(0o755)  # PostgreSQL, which refuses root, works in it as another user
    # Behind what multiprocessing removes at the end, which lies in it.
    multiprocessing.util.Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-200)
    os.environ["TMPDIR"] = tempfile.tempdir = folder  # noqa: TID251 - for the processes that tests start


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector away from what is imported and collected, all of which stays: it takes its time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _let_signals_through() -> None:
    """Let processes that tests start hear signals that this one was told to ignore: as nohup does, and a shell's `&`.

    A signal that is ignored stays so in them; one with a handler is theirs again.
    """
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def _has_room(folder: Path) -> bool:
    if not os.access(folder, os.W_OK):
        return False
    found = os.statvfs(folder)
    free = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available // 2)
    return free >= _ROOM_BYTES and not found.f_flag & os.ST_NOEXEC


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Say what `-n auto` means: a test for each core, many of which keep other processes busy, and two more to wait."""
    return min(len(os.sched_getaffinity(0)), 8) + 2


#: Seconds of a test's limit from which on it begins before others.
_LONG = 500


@pytest.hookimpl(trylast=True)  # behind pytest-randomly
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the longest begin early in each process, whose share is a run of `items`: nobody waits for one at the end.

    Those of a file stay together, for the nodes that they share. In every other process they come behind a quarter of
    its share: each of them keeps many processes busy, and they do not all begin at once.
    """
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    longest = [item for item in items if _limit(item) >= _LONG]
    others = [item for item in items if _limit(item) < _LONG]
    files = list(dict.fromkeys(map(_file, longest)))
    left = len(items)
    items.clear()
    for number in range(processes):
        size = left // (processes - number)  # as pytest-xdist hands them out
        left -= size
        mine = [item for item in longest if _file(item) in files[number::processes]]
        count = max(0, size - len(mine))
        share, others = others[:count], others[count:]
        begin = _next_file(share, len(share) // 4) if number % 2 else 0
        items += [*share[:begin], *mine, *share[begin:]]
    items += others


def _limit(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _next_file(share: list[pytest.Item], place: int) -> int:
    """Return the place from there on where the tests of a file begin."""
    while 0 < place < len(share) and _file(share[place]) == _file(share[place - 1]):
        place += 1
    return place


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self._passed = timedelta()

    def now(self) -> datetime:
        return datetime(2026, 11, 24, 12, tzinfo=UTC) + self._passed

    def monotonic(self) -> float:
        return self._passed.total_seconds()

    def move(self, **by: float) -> None:
        """Move it on, by `seconds=`, `hours=`, …"""
        self._passed += timedelta(**by)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[config.Settings]:
    chosen = config.Settings(
        home=tmp_path / "home", lock_dir=tmp_path / "locks", user="tester", heartbeat=0.3, lease=3, sweep=0.3
    )
    yield chosen
    with suppress(errors.InvalidSetting):  # where the home's path is long, its sockets lie outside of it
        shutil.rmtree(sockets.folder(chosen), ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with our schema, to be copied: that is ten times as fast as the migrations."""
    home = tmp_path_factory.mktemp("migrated")
    sql.open_store(config.Settings(home=home)).close()
    return home / "orch.db"


@pytest.fixture
def migrated(settings: config.Settings, migrated_file: Path) -> config.Settings:
    """Settings of a home whose database has our schema."""
    sql.make_home(settings)
    shutil.copy(migrated_file, settings.home)
    return settings


@pytest.fixture
def store(migrated: config.Settings, clock: HandClock) -> Iterator[sql.SqlStore]:
    """The embedded store, on SQLite."""
    with closing(sql.open_store(migrated, clock=clock)) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that tests may do anything to. A missing one fails."""
    given = environ.of_tests("ORCH_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="orch-postgres-") as folder:
        server = postgres.started(Path(folder))
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):  # nothing in it outlives the tests
            _administer(server.get_uri(), f"ALTER SYSTEM SET {setting} = off")
        _administer(server.get_uri(), "SELECT pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a database with our schema that the tests of a session share, one after the other."""
    with _fresh_database(postgres_server) as url:
        patiently(migrations.upgrade, url)  # else all tests of the session would fail with it
        yield url


@pytest.fixture
def postgres_url(migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a PostgreSQL database with our schema and no rows."""
    postgres.be_patient(monkeypatch)
    # With so few rows it takes a third of the time of TRUNCATE, which makes every file anew.
    _administer(migrated_postgres_url, *(str(table.delete()) for table in reversed(models.metadata.sorted_tables)))
    return migrated_postgres_url


@pytest.fixture
def empty_postgres_url(postgres_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a PostgreSQL database without any table."""
    postgres.be_patient(monkeypatch)
    with _fresh_database(postgres_server) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def any_settings(request: pytest.FixtureRequest, settings: config.Settings) -> config.Settings:
    """Settings of a test that holds on both databases."""
    if request.param == "sqlite":
        migrated: config.Settings = request.getfixturevalue("migrated")
        return migrated
    return settings.model_copy(update={"database_url": SecretStr(request.getfixturevalue("postgres_url"))})


@pytest.fixture
def any_store(any_settings: config.Settings, clock: HandClock) -> Iterator[sql.SqlStore]:
    """A store on each database, whose clock is `clock`."""
    with closing(sql.open_store(any_settings, clock=clock)) as opened:
        yield opened


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A warm fork server, as a node starts it; yields its socket."""
    path = tmp_path_factory.mktemp("fork") / "s"
    with forking.server(path) as process:
        yield path
        assert process.poll() is None, "the fork server died"


@pytest.fixture(scope="session")
def cold_fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fork server that can do all but train; yields its socket."""
    path = tmp_path_factory.mktemp("cold") / "s"
    with forking.server(path, preload=("tests.support.stages", "worker.data.stage")) as process:
        yield path
        assert process.poll() is None, "the fork server died"


@contextmanager
def _fresh_database(server: str) -> Iterator[str]:
    name = f"orch_{ids.new_id()}"
    _administer(server, f"CREATE DATABASE {name}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def _administer(server: str, *statements: str) -> None:
    url = make_url(server).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("; ".join(statements).encode())
