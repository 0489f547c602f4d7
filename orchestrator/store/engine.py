"""Connections and transactions: the one place that begins, commits, retries, and explains a database out of reach."""

import functools
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import sqlalchemy
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from orchestrator import errors, failpoints
from orchestrator.core import masking
from orchestrator.store import deadline, sqlite

#: Seconds that a transaction waits for SQLite's other writer, or for a server. A command must answer within 5 s.
PATIENCE = 3.5

#: Seconds for one that may read or delete millions of rows. A silent server is noticed as soon: when it begins.
LONG_PATIENCE = 120

#: Seconds for one that may end a job for which tens of thousands wait. Who is frozen in it holds its rows for as long.
END_PATIENCE = 20

#: Tries of one transaction, where the database asks for another.
TRIES = 8

#: Codes of "try again": SQLite's lock, PostgreSQL's serialization failure and deadlock.
_TRY_AGAIN = frozenset({"SQLITE_BUSY", "40001", "40P01"})

#: Codes that the drivers do not count as operational: SQLite's, and PostgreSQL's server that takes no writes.
_OUT_OF_REACH = frozenset({*sqlite.ADVICE, "25006"})

#: Codes of PostgreSQL for text that its encoding lacks. A driver that does not even send it has none.
_NO_TEXT = frozenset({"22021", "22P05"})

#: What a transaction may end with, but for mistakes of ours; an OSError is of the disk or network below the driver.
_Trouble = exc.DBAPIError | exc.TimeoutError | OSError | UnicodeEncodeError

T = TypeVar("T")
P = ParamSpec("P")


class HasDatabase(Protocol):
    """What `reads` and `writes` need of the object whose methods they wrap."""

    database: "Database"


S = TypeVar("S", bound=HasDatabase)


class Database:
    """One database: short transactions over a pool of connections. Made after a fork, never before.

    `must_exist`: a SQLite file that is not there is not made.
    SQLite changes some tables by making them anew: `foreign_keys` off keeps that from deleting the rows that refer to
    them (https://sqlite.org/lang_altertable.html#otheralter).
    """

    def __init__(self, url: str, *, foreign_keys: bool = True, must_exist: bool = False) -> None:
        self.name = masking.server(url)
        self._url = _parsed(url)
        self._engine: Engine = (
            sqlite.engine(self._url, patience=PATIENCE, foreign_keys=foreign_keys, must_exist=must_exist)
            if self.file
            else _postgres().engine(self._url, patience=PATIENCE)
        )

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for a server."""
        return Path(self._url.database or "") if self._url.get_backend_name() == "sqlite" else None

    def read(self, work: Callable[[Connection], T], *, place: str = "database", patience: float = PATIENCE) -> T:
        """Return what `work` reads, all from one moment of a SQLite database. `place` begins its failpoint's name.

        A server has `patience` seconds for it.
        """
        return self._transaction(work, begin="BEGIN", place=place, commits=False, patience=patience)

    def write(self, work: Callable[[Connection], T], *, place: str = "database", patience: float = PATIENCE) -> T:
        """Run `work`, commit, and return its result; nothing of it stays when it raises.

        `work` may run more than once: only its last run is committed. `place` begins its failpoints' names. A server
        has `patience` seconds for it.
        """
        return self._transaction(work, begin="BEGIN IMMEDIATE", place=place, commits=True, patience=patience)

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def _transaction(
        self, work: Callable[[Connection], T], *, begin: str, place: str, commits: bool, patience: float
    ) -> T:
        committing = False

        def once() -> T:
            nonlocal committing
            committing = False
            failpoints.reach(f"{place}.begin")
            with self._connected(begin) as connection, connection.begin():
                if patience > PATIENCE and connection.dialect.name == "postgresql":
                    _postgres().allow(connection, patience)
                result = work(connection)
                if commits:
                    failpoints.reach(f"{place}.commit")
                committing = commits
            if commits:
                failpoints.reach(f"{place}.committed")
            return result

        try:
            with deadline.within(patience):
                # SQLite's writers wait no longer for each other, however long one of them may take itself.
                return _tried(once, PATIENCE if self.file else max(PATIENCE, patience))
        except (exc.DBAPIError, exc.TimeoutError, OSError, UnicodeEncodeError) as error:
            if _is_no_text(error):
                raise errors.UsageError(
                    "A text was given that the database cannot hold.",
                    why="It has a byte that is no UTF-8, a zero byte, or a character that the server's encoding lacks.",
                    hint="Write it with other characters.",
                ) from error
            if not _is_out_of_reach(error):
                raise
            raise self._explained(error, unheard=committing and _may_have_committed(error)) from error

    def _connected(self, begin: str) -> Connection:
        """Return a connection that answers: whoever may take long has not waited for that."""
        with deadline.within(PATIENCE):
            return self._engine.connect().execution_options(orch_begin=begin)

    def _explained(self, error: _Trouble, *, unheard: bool = False) -> errors.DatabaseUnavailable:
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        why, hint = self._advice().get(_code(cause), (self._hidden(str(cause)), self._server_hint()))
        if unheard:
            hint = "It may have been done all the same: look before you do it again."
        return errors.DatabaseUnavailable(
            f"The database {self.name} is out of reach.", why=why, hint=hint, unheard=unheard
        )

    def _advice(self) -> Mapping[str, tuple[str, str]]:
        return sqlite.ADVICE if self.file else _postgres().ADVICE

    def _hidden(self, text: str) -> str:
        text = " ".join(text.split())
        for secret in (self._url.password, self._url.query.get("password"), self._url.query.get("sslpassword")):
            text = text.replace(str(secret), "***") if secret else text
        return text

    def _server_hint(self) -> str | None:
        return None if self.file else "Check that the server runs and that the setting database_url is right."


def reads(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Make a method whose first argument is a connection into one that runs in a reading transaction."""
    return _in_transaction(method, commits=False, patience=PATIENCE)


def reads_at_length(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Like `reads`, where that may be millions of rows."""
    return _in_transaction(method, commits=False, patience=LONG_PATIENCE)


def writes(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Make a method whose first argument is a connection into one that runs in a writing transaction."""
    return _in_transaction(method, commits=True, patience=PATIENCE)


def writes_an_end(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Like `writes`, where a job may end and many wait for that."""
    return _in_transaction(method, commits=True, patience=END_PATIENCE)


def writes_at_length(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Like `writes`, where that may be millions of rows."""
    return _in_transaction(method, commits=True, patience=LONG_PATIENCE)


def _in_transaction(
    method: Callable[Concatenate[S, Connection, P], T], *, commits: bool, patience: float
) -> Callable[Concatenate[S, P], T]:
    place = f"store.{method.__name__.lstrip('_')}"
    failpoints.add_transaction(place, commits=commits)

    @functools.wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        transact = self.database.write if commits else self.database.read
        return transact(lambda connection: method(self, connection, *args, **kwargs), place=place, patience=patience)

    return run


def at_one_moment(connection: Connection) -> None:
    """Let every read of a transaction that has read nothing yet be of one moment; on SQLite they are anyway."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def plan_once(connection: Connection) -> None:
    """Let a server plan what this transaction asks again and again for all values alike: once, not each time.

    So values that are rare, such as a state that few rows have, must not be bound.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")


def shared_time(connection: Connection) -> datetime:
    """Return the time by the clock that all users of the database share: the server's, or this host's on SQLite."""
    if connection.dialect.name == "postgresql":
        now: datetime = connection.execute(sqlalchemy.select(sqlalchemy.func.clock_timestamp())).scalar_one()
        return now
    return datetime.now(UTC)


def insert(connection: Connection, table: sqlalchemy.Table) -> Any:
    """Return an INSERT into `table` that knows ON CONFLICT: the two dialects spell it alike, each in its module."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite as dialect  # noqa: PLC0415 - only the one in use is worth its import

        return dialect.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - the same

    return postgresql.insert(table)


def _tried(once: Callable[[], T], seconds: float) -> T:
    """Return what `once` does: tried again where the database asks for that, while there is time."""
    until = time.monotonic() + seconds
    try:
        return once()
    except exc.DBAPIError as error:
        left = until - time.monotonic()
        if left <= 0 or not _is_worth_another_try(error):
            raise
    import tenacity  # noqa: PLC0415 - few transactions are tried again, and no command pays for the others

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_worth_another_try),
        stop=tenacity.stop_after_attempt(TRIES - 1) | tenacity.stop_after_delay(left),
        wait=tenacity.wait_random_exponential(multiplier=0.01, max=0.5),
        reraise=True,
    )
    return retrying(once)


def _parsed(text: str) -> URL:
    hint = "Use postgresql://user:password@host/name or sqlite:////path/to/file."
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):
        raise errors.InvalidSetting("The setting database_url is no database's URL.", hint=hint) from None
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        why = f"orch does not know databases of the kind {url.get_backend_name()}."
        raise errors.InvalidSetting("The setting database_url cannot be used.", why=why, hint=hint)
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        why = "It names no file: every process would have a database of its own."
        raise errors.InvalidSetting("The setting database_url cannot be used.", why=why, hint=hint)
    return url


def _postgres() -> Any:
    """Return the module of PostgreSQL, whose driver is an extra."""
    try:
        from orchestrator.store import postgres  # noqa: PLC0415 - only the driver in use is worth its import
    except ModuleNotFoundError as error:
        raise errors.InvalidSetting(
            "The driver of PostgreSQL is not installed.", hint="Install orch with its extra `postgres`."
        ) from error
    return postgres


def _code(cause: BaseException | None) -> str:
    """Return a server's code, or SQLite's primary one (SQLITE_IOERR for SQLITE_IOERR_WRITE); else an empty text."""
    name = str(getattr(cause, "sqlite_errorname", ""))
    return "_".join(name.split("_")[:2]) or str(getattr(cause, "sqlstate", None) or "")


def _is_no_text(error: _Trouble) -> bool:
    """Whether an error is of what was given, which is no text that can be stored or sought."""
    if isinstance(error, exc.DataError):
        return _code(error.orig) in _NO_TEXT or "NUL (0x00)" in str(error.orig)
    return isinstance(error, UnicodeEncodeError)


def _is_worth_another_try(error: BaseException) -> bool:
    return isinstance(error, exc.DBAPIError) and _code(error.orig) in _TRY_AGAIN


def _may_have_committed(error: _Trouble) -> bool:
    """Whether an error at a commit leaves open what became of it: a server that says why has undone it."""
    if isinstance(error, exc.DBAPIError):
        return error.connection_invalidated or _code(error.orig) in {"", "SQLITE_IOERR"}
    return True


def _is_out_of_reach(error: _Trouble) -> bool:
    if isinstance(error, exc.DBAPIError):
        return (
            isinstance(error, exc.OperationalError | exc.InterfaceError)
            or error.connection_invalidated
            or _code(error.orig) in _OUT_OF_REACH
        )
    return True
