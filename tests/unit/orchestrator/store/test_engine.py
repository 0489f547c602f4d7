import functools
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from psycopg import errors as psycopg_errors
from sqlalchemy import Connection, Engine, event, exc

from orchestrator import config, errors, failpoints
from orchestrator.core import jobs
from orchestrator.store import engine, sql
from tests.contract import parts

SECRET = "s3cr3t-pass"  # noqa: S105 - no real one: the test looks for it in messages

#: Seconds for what takes `engine.PATIENCE` at most, on a machine that runs other tests beside this one; without a bound
#: there is no end.
GIVEN_UP = 60


@pytest.fixture
def database(tmp_path: Path) -> Iterator[engine.Database]:
    """A SQLite database with one table."""
    with closing(engine.Database(f"sqlite:///{tmp_path / 'some.db'}")) as opened:
        opened.write(lambda connection: connection.exec_driver_sql("CREATE TABLE t (x INTEGER)"))
        yield opened


def count(database: engine.Database) -> int:
    return int(database.read(lambda connection: connection.exec_driver_sql("SELECT count(*) FROM t").scalar_one()))


def add(connection: Connection) -> None:
    connection.exec_driver_sql("INSERT INTO t VALUES (1)")


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 3500)],
)
def test_sqlite_is_set_up_for_safety(database: engine.Database, pragma: str, value: object) -> None:
    assert database.read(lambda connection: connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()) == value


def test_write_commits_and_error_rolls_back(database: engine.Database) -> None:
    database.write(add)

    def broken(connection: Connection) -> None:
        add(connection)
        raise KeyError

    with pytest.raises(KeyError):
        database.write(broken)
    assert count(database) == 1


@pytest.fixture
def patient(database: engine.Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[engine.Database]:
    """The database, opened by one whose writers wait for each other on the slowest machine."""
    monkeypatch.setattr(engine, "PATIENCE", 60)
    with closing(engine.Database(f"sqlite:///{database.file}")) as opened:
        yield opened


def test_writer_waits_for_another(patient: engine.Database) -> None:
    """A transaction that begins deferred and reads first would fail once the other has written, and run again."""
    inside, written = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        add(connection)
        inside.set()
        written.wait(0.2)  # the other one stands before the lock by then

    first = threading.Thread(target=lambda: patient.write(slow))
    first.start()
    assert inside.wait(60)

    runs = []

    def read_then_add(connection: Connection) -> None:
        runs.append(1)
        connection.exec_driver_sql("SELECT count(*) FROM t").scalar()
        add(connection)

    patient.write(read_then_add)
    first.join(60)
    assert (len(runs), count(patient)) == (1, 2)


def test_reader_sees_one_moment(database: engine.Database) -> None:
    def twice(connection: Connection) -> tuple[int, int]:
        query = "SELECT count(*) FROM t"
        before = connection.exec_driver_sql(query).scalar_one()
        database.write(add)
        return before, connection.exec_driver_sql(query).scalar_one()

    assert database.read(twice) == (0, 0)


@pytest.fixture
def locked(database: engine.Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[engine.Database]:
    """A database that another process's writer has locked, opened by one that gives up soon."""
    monkeypatch.setattr(engine, "PATIENCE", 0.2)
    with closing(sqlite3.connect(str(database.file), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with closing(engine.Database(f"sqlite:///{database.file}")) as impatient:
            yield impatient


def test_lock_that_is_never_freed_is_explained_in_time(locked: engine.Database) -> None:
    began = time.monotonic()
    with pytest.raises(errors.DatabaseUnavailable) as caught:
        locked.write(add)
    assert time.monotonic() - began < GIVEN_UP
    assert "locked" in str(caught.value.why)
    assert str(locked.file) in caught.value.message


def test_writer_that_waits_looks_often(locked: engine.Database) -> None:
    """Else the one that has waited longest looks most rarely, and others come first for ever."""
    waits: list[int] = []  # milliseconds that SQLite is left to itself

    def note(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement == "BEGIN IMMEDIATE":
            waits.extend(cursor.connection.execute("PRAGMA busy_timeout").fetchone())

    event.listen(Engine, "before_cursor_execute", note)
    try:
        with pytest.raises(errors.DatabaseUnavailable):
            locked.write(add)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert 0 < max(waits) <= 50


def test_readers_do_not_mind_a_writer(locked: engine.Database) -> None:
    assert count(locked) == 0


class Failing:
    """Work that fails as often as it is told to, then succeeds."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.left, self.runs = error, times, 0

    def __call__(self, connection: Connection) -> str:
        add(connection)
        self.runs += 1
        if self.left:
            self.left -= 1
            raise exc.OperationalError("UPDATE", {}, self.error)
        return "done"


@pytest.mark.parametrize("error", [psycopg_errors.DeadlockDetected(), psycopg_errors.SerializationFailure()])
def test_transaction_runs_again_when_the_database_asks(patient: engine.Database, error: Exception) -> None:
    work = Failing(error, times=3)
    assert patient.write(work) == "done"
    assert (work.runs, count(patient)) == (4, 1)


def test_tries_are_bounded(database: engine.Database) -> None:
    work = Failing(psycopg_errors.DeadlockDetected(), times=1000)
    with pytest.raises(errors.DatabaseUnavailable):
        database.write(work)
    assert work.runs <= engine.TRIES


def test_what_has_taken_its_time_is_not_tried_again(database: engine.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PATIENCE", 0)
    work = Failing(psycopg_errors.DeadlockDetected(), times=1)
    with pytest.raises(errors.DatabaseUnavailable):
        database.write(work)
    assert work.runs == 1
    assert count(database) == 0


def test_what_may_take_long_is_tried_again_after_long(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(engine.Database(postgres_url)) as database:
        monkeypatch.setattr(engine, "PATIENCE", 0)
        runs = []

        def work(_: Connection) -> None:
            runs.append(1)
            if len(runs) == 1:
                raise exc.OperationalError("UPDATE", {}, psycopg_errors.DeadlockDetected())

        database.write(work, patience=60)
        assert len(runs) == 2


def test_other_errors_are_not_tried_again(database: engine.Database) -> None:
    work = Failing(psycopg_errors.AdminShutdown(), times=1)  # whether it was committed is not known
    with pytest.raises(errors.DatabaseUnavailable):
        database.write(work)
    assert work.runs == 1


@pytest.mark.parametrize(("place", "stored"), [("begin", 0), ("commit", 0), ("committed", 1)])
def test_failing_disk_below_the_driver_is_an_outage(
    place: str, stored: int, database: engine.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoints, "folder", lambda: tmp_path)
    (tmp_path / f"database.{place}").write_text("enospc")
    with pytest.raises(errors.DatabaseUnavailable) as caught:
        database.write(add)
    assert "No space left" in str(caught.value.why)
    assert count(database) == stored


def test_mistakes_of_ours_are_no_outage(database: engine.Database) -> None:
    database.write(lambda connection: connection.exec_driver_sql("CREATE UNIQUE INDEX one ON t (x)"))
    database.write(add)
    with pytest.raises(exc.IntegrityError):
        database.write(add)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("SQLITE_FULL", "disk is full"),
        ("SQLITE_READONLY", "read-only"),
        ("SQLITE_READONLY_DBMOVED", "read-only"),
        ("SQLITE_CANTOPEN", "cannot be opened"),
        ("SQLITE_IOERR_SHMSIZE", "disk reports an error, or is full"),
        ("SQLITE_CORRUPT", "damaged"),
    ],
)
def test_sqlite_troubles_have_names(database: engine.Database, name: str, word: str) -> None:
    error = sqlite3.OperationalError("some text of SQLite's")
    error.sqlite_errorname = name
    with pytest.raises(errors.DatabaseUnavailable) as caught:
        database.write(Failing(error, times=1))
    assert word in str(caught.value.why)
    assert caught.value.hint


def test_full_disk_is_named(database: engine.Database) -> None:
    """A real one: SQLite's own limit on the number of pages answers like a full disk."""

    def fill(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 3")
        add(connection)
        connection.exec_driver_sql("CREATE TABLE big AS SELECT randomblob(100000)")

    with pytest.raises(errors.DatabaseUnavailable) as caught:
        database.write(fill)
    assert caught.value.why == "The disk is full."
    assert count(database) == 0


def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a database, but longer than the header of one" * 100)
    with (
        closing(engine.Database(f"sqlite:///{other}")) as database,
        pytest.raises(errors.DatabaseUnavailable) as caught,
    ):
        count(database)
    assert "no SQLite database" in str(caught.value.why)


def test_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'missing' / 'some.db'}"
    with closing(engine.Database(url)) as database, pytest.raises(errors.DatabaseUnavailable) as caught:
        count(database)
    assert "cannot be opened" in str(caught.value.why)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://orch:{SECRET}@127.0.0.1:1/orch",  # nobody listens
        f"postgresql://orch:{SECRET}@127.0.0.1:port/orch",
        f"postgresql://orch:{SECRET}@/orch?host=/nonexistent",
    ],
)
def test_server_away_is_told_without_the_password(url: str, settings: config.Settings) -> None:
    there = config.Settings(**{**settings.model_dump(), "database_url": url})
    with pytest.raises(errors.OrchError) as caught:
        sql.open_store(there)
    assert isinstance(caught.value, errors.DatabaseUnavailable | errors.InvalidSetting)
    told = f"{caught.value.message} {caught.value.why} {caught.value.hint}"
    assert SECRET not in told
    assert "database" in told


def test_password_in_a_driver_s_message_is_hidden() -> None:
    with closing(engine.Database(f"postgresql://orch:{SECRET}@db.example/orch")) as database:
        told = database._explained(exc.OperationalError("SELECT 1", {}, Exception(f"no entry for orch:{SECRET}")))
    assert told.why == "no entry for orch:***"
    assert SECRET not in told.message


def test_silent_server_is_given_up_in_time(settings: config.Settings) -> None:
    """A server that accepts and says nothing, as behind a broken firewall."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        there = config.Settings(**{**settings.model_dump(), "database_url": f"postgresql://u:p@127.0.0.1:{port}/orch"})
        began = time.monotonic()
        with pytest.raises(errors.DatabaseUnavailable):
            sql.open_store(there)
        assert time.monotonic() - began < GIVEN_UP


@pytest.mark.parametrize("url", ["mysql://u:p@h/d", "nonsense", "", "sqlite://", "sqlite:///:memory:"])
def test_other_kinds_of_database_are_refused(url: str, settings: config.Settings) -> None:
    there = config.Settings(**{**settings.model_dump(), "database_url": url})
    with pytest.raises(errors.InvalidSetting):
        sql.open_store(there)


def test_store_goes_on_when_the_server_was_restarted(postgres_url: str, settings: config.Settings) -> None:
    there = config.Settings(**{**settings.model_dump(), "database_url": postgres_url})
    with closing(sql.open_store(there)) as store, closing(engine.Database(postgres_url)) as other:
        parts.submit(store)
        cut = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        other.write(lambda connection: connection.exec_driver_sql(cut).all())
        assert len(store.jobs(jobs.JobFilter())) == 1


@pytest.mark.usefixtures("store")
def test_threads_share_a_store(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[BaseException] = []
    monkeypatch.setattr(engine, "PATIENCE", 60)  # the last of so many waits long on a slow machine

    def work(shared: sql.SqlStore) -> None:
        try:
            for _ in range(5):
                parts.submit(shared)
                shared.counts()
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            failures.append(error)

    with closing(sql.open_store(settings)) as shared:
        threads = [threading.Thread(target=work, args=(shared,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert failures == []
        assert sum(shared.counts().states.values()) == 100


def test_two_that_wait_for_each_other_both_come_through(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real deadlock: the server ends one of the two, which runs again."""
    monkeypatch.setattr(engine, "PATIENCE", 60)  # until both have begun, and the server has looked
    with closing(engine.Database(postgres_url)) as one, closing(engine.Database(postgres_url)) as other:
        one.write(lambda connection: connection.exec_driver_sql("CREATE TABLE pair (name TEXT, count INTEGER)"))
        one.write(lambda connection: connection.exec_driver_sql("INSERT INTO pair VALUES ('a', 0), ('b', 0)"))
        both_hold_one, runs = threading.Barrier(2), []

        def count_up(connection: Connection, names: str) -> None:
            runs.append(names)
            for name in names:
                connection.exec_driver_sql(f"UPDATE pair SET count = count + 1 WHERE name = '{name}'")  # noqa: S608 - a name of this test
                if len(runs) <= 2 and name == names[0]:
                    both_hold_one.wait(60)

        try:
            with ThreadPoolExecutor(2) as pool:
                ends = [
                    pool.submit(database.write, functools.partial(count_up, names=names), patience=60)
                    for database, names in ((one, "ab"), (other, "ba"))
                ]
                for end in ends:
                    end.result(100)
            counts = one.read(lambda connection: connection.exec_driver_sql("SELECT count FROM pair").scalars().all())
            assert (sorted(runs[:2]), counts) == (["ab", "ba"], [2, 2])
            assert len(runs) >= 3  # the one that ran again may have met the other once more
        finally:
            one.write(lambda connection: connection.exec_driver_sql("DROP TABLE pair"))
