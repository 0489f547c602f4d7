"""SQLite: connections to one file, as long as it is that file, and what its errors mean to people."""

import functools
import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.pool import ConnectionPoolEntry

#: What its codes mean: why, and what to do.
ADVICE = {
    "SQLITE_BUSY": ("Another process has kept it locked.", "Try again."),
    "SQLITE_FULL": ("The disk is full.", "Free some space on it; nothing was written."),
    "SQLITE_READONLY": ("The file or its folder is read-only.", "Check the permissions, and how it is mounted."),
    "SQLITE_CANTOPEN": (
        "The file is not there, or cannot be opened.",
        "Check that it exists, and that you may write to its folder.",
    ),
    "SQLITE_IOERR": ("The disk reports an error, or is full.", "Free some space on it, else see the system's log."),
    "SQLITE_CORRUPT": ("The file is damaged.", "Restore it from a backup."),
    "SQLITE_NOTADB": ("The file is no SQLite database.", "Check the setting database_url."),
}

#: Milliseconds of one wait for the writers' lock. In a longer one SQLite looks ever more rarely, down to ten times a
#: second, and among many writers the one that has waited longest would come last.
_ROUND = 20


def engine(url: URL, *, patience: float, foreign_keys: bool, must_exist: bool) -> Engine:
    """Return the engine of a file, whose writers wait `patience` seconds for each other."""
    made = sqlalchemy.create_engine(url, connect_args={"timeout": patience, "check_same_thread": False})
    path = Path(url.database or "").absolute()
    if must_exist:
        sqlalchemy.event.listen(made, "do_connect", functools.partial(_connect, path))
    sqlalchemy.event.listen(made, "connect", functools.partial(_prepare, path, foreign_keys=foreign_keys))
    sqlalchemy.event.listen(made, "checkout", functools.partial(_require_same, path))
    sqlalchemy.event.listen(made, "begin", functools.partial(_begin, patience))
    return made


def _connect(path: Path, _dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> Any:
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", **parameters | {"uri": True})


def _prepare(path: Path, connection: sqlite3.Connection, entry: ConnectionPoolEntry, *, foreign_keys: bool) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: `_begin` does
    for pragma in ("journal_mode = WAL", "synchronous = FULL", f"foreign_keys = {int(foreign_keys)}"):
        connection.execute(f"PRAGMA {pragma}")
    entry.info["file"] = _identity(path)


def _require_same(path: Path, _connection: Any, entry: ConnectionPoolEntry, _proxy: Any) -> None:
    """Let go of a connection whose file was removed or replaced: what is written there nobody would see again."""
    if entry.info["file"] != _identity(path):
        raise exc.DisconnectionError


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _begin(patience: float, connection: Connection) -> None:
    # A deferred transaction that turns to writing fails at once when another has written in between.
    statement = connection.get_execution_options().get("orch_begin", "BEGIN IMMEDIATE")
    if statement == "BEGIN":
        connection.exec_driver_sql(statement)
        return
    until = time.monotonic() + patience
    _wait_at_most(connection, _ROUND)
    while True:
        try:
            connection.exec_driver_sql(statement)
        except exc.OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        else:
            break
    _wait_at_most(connection, round(patience * 1000))


def _wait_at_most(connection: Connection, milliseconds: int) -> None:
    # Of the driver itself, since the way through SQLAlchemy takes longer than the rest of it.
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA busy_timeout = {milliseconds}")
