"""All rows of a database as lines of JSON, and back: a form that both databases and later schemas can take.

What stands in a line are plain values in the order of the table's columns, as the schema of that revision has them:
numbers, text, truth, JSON, moments as ISO text in UTC. The tables are asked of the database, not of the models, so that
an older schema is read and made as it was.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Protocol

import sqlalchemy
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from orchestrator import failpoints
from orchestrator.store import engine, migrations, models

#: Rows that go into a database at once.
_BATCH = 1000

#: Infinite numbers and NaN, of which JSON has none.
_ODD = frozenset({"inf", "-inf", "nan"})

failpoints.add_transaction("schema.vacancy", commits=False)
failpoints.add_transaction("schema.dump", commits=False)
failpoints.add_transaction("schema.load", commits=True)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that a row refers to."""

    job: str
    attempt: int
    path: str  #: below the artifact root
    bytes: int
    sha256: str
    root: str  #: id of that root
    goes_on: bool  #: whether its job has not ended, so that retention may remove it at any moment


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a database holds at the moment of a dump."""

    revision: str
    bytes: int  #: size of the database
    states: Mapping[str, int]  #: jobs by their state
    checkpoints: tuple[Checkpoint, ...]


#: Raises where a database must not be touched.
Check = Callable[[Connection], None]


class Sink(Protocol):
    """What takes a dump. A transaction that has to begin anew calls `begin` again: what came before is void."""

    def begin(self, contents: Contents) -> None:
        """Take what there is, before any row."""
        ...

    def table(self, name: str, columns: tuple[str, ...], lines: Iterator[bytes]) -> None:
        """Take the rows of a table."""
        ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """A table of a dump: `lines` begins to read its rows."""

    name: str
    columns: tuple[str, ...]
    lines: Callable[[], Iterator[bytes]]


class Unfit(Exception):
    """A dump does not fit the schema that it names; the text says why."""


def dump(database: engine.Database, sink: Sink) -> None:
    """Give all rows to `sink`, from one moment: writers of SQLite go on in its log, a server's see nothing of it.

    Raises:
        SchemaMismatch: there is no schema, or a newer one than this orch knows.
        DatabaseUnavailable: it is out of reach.

    """

    def work(connection: Connection) -> None:
        engine.at_one_moment(connection)
        revision = migrations.version_of(connection)
        if revision is None or revision > migrations.HEAD:
            migrations.require_head(revision, name=database.name)
        tables = _tables(connection)
        sink.begin(_contents(connection, tables, revision or migrations.HEAD))
        for table in tables.values():
            sink.table(table.name, tuple(table.c.keys()), _lines(connection, table))

    database.read(work, place="schema.dump", patience=migrations.UPGRADE_SECONDS)


def look(url: str, check: Check) -> None:
    """Look whether a database may be filled; raises what `check` does, and DatabaseUnavailable."""
    with closing(engine.Database(url, must_exist=True)) as database:
        database.read(check, place="schema.vacancy")


def load(url: str, revision: str, sources: Iterable[Source], *, check: Check, settle: migrations.Work) -> Any:
    """Put a dump into a database that has no jobs, bring it to `HEAD`, and return what `settle` makes of it there.

    It is one transaction: all of it is there, or nothing. `check` raises where the database must not be touched.

    Raises:
        Unfit: the rows are not those of such a schema.
        DatabaseUnavailable, or what `check` raises: nothing has changed.

    """
    wanted = list(sources)

    def work(connection: Connection) -> Any:
        check(connection)
        _empty(connection, revision)
        _fill(connection, wanted)
        migrations.step(connection, "head")
        return settle(connection)

    try:
        return migrations.rebuild(url, work, place="schema.load")
    except (exc.IntegrityError, exc.DataError, exc.ProgrammingError, exc.StatementError) as error:
        if isinstance(error, exc.OperationalError | exc.InterfaceError):
            raise
        raise Unfit(f"the database refuses its rows: {str(error.orig or error).splitlines()[0]}") from error


def _tables(connection: Connection) -> dict[str, sqlalchemy.Table]:
    """Return our tables as the database has them, each behind those that it refers to."""
    there = set(sqlalchemy.inspect(connection).get_table_names()) & set(models.metadata.tables)
    found = sqlalchemy.MetaData()
    found.reflect(connection, only=sorted(there))
    for column in (column for table in found.tables.values() for column in table.c):
        if isinstance(column.type, sqlalchemy.JSON):
            column.type = sqlalchemy.JSON(none_as_null=True)
    return {table.name: table for table in found.sorted_tables}


def _contents(connection: Connection, tables: Mapping[str, sqlalchemy.Table], revision: str) -> Contents:
    job, attempt, point = (tables[name].c for name in ("jobs", "attempts", "checkpoints"))
    counts = sqlalchemy.select(job.state, sqlalchemy.func.count().label("jobs")).group_by(job.state).order_by(job.state)
    held = (
        sqlalchemy.select(
            job.state, attempt.artifact_root, point.job_id, point.attempt, point.path, point.bytes, point.sha256
        )
        .select_from(tables["checkpoints"])
        .join(tables["attempts"], (point.job_id == attempt.job_id) & (point.attempt == attempt.attempt))
        .join(tables["jobs"], point.job_id == job.id)
        .order_by(job.seq, point.attempt, point.step)
    )
    return Contents(
        revision=revision,
        bytes=_size(connection),
        states={row.state: row.jobs for row in connection.execute(counts)},
        checkpoints=tuple(
            Checkpoint(
                job=row.job_id,
                attempt=row.attempt,
                path=row.path,
                bytes=row.bytes,
                sha256=row.sha256,
                root=row.artifact_root,
                goes_on=row.state in {"queued", "running", "paused"},
            )
            for row in connection.execute(held)
        ),
    )


def _size(connection: Connection) -> int:
    postgres = "SELECT pg_database_size(current_database())"
    pages = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    asked = postgres if connection.dialect.name == "postgresql" else pages
    return int(connection.exec_driver_sql(asked).scalar_one())


def _lines(connection: Connection, table: sqlalchemy.Table) -> Iterator[bytes]:
    """Yield the rows of a table, in the order of its key, so that the same rows are the same bytes."""
    ordered = sqlalchemy.select(table).order_by(*table.primary_key.columns)
    with connection.execution_options(yield_per=_BATCH).execute(ordered) as rows:
        for row in rows:
            yield json.dumps([_plain(value) for value in row], separators=(",", ":")).encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _empty(connection: Connection, revision: str) -> None:
    """Let the database have the tables of a revision, and no rows; it holds no job.

    Without a revision of orch's no table in it is orch's: none is dropped, whatever its name.
    """
    found = migrations.version_of(connection)
    if found is not None and migrations.is_ours(connection, found):
        tables = reversed(_tables(connection).values())
        if found == revision:
            for table in tables:
                connection.execute(table.delete())
            return
        for table in tables:
            table.drop(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
    migrations.step(connection, revision)


def _fill(connection: Connection, sources: Iterable[Source]) -> None:
    tables = _tables(connection)
    by_name = {source.name: source for source in sources}
    if strange := sorted(by_name.keys() - tables.keys()):
        raise Unfit(f"its schema has no table {strange[0]!a}")
    for name, table in tables.items():
        if name in by_name:
            _fill_table(connection, table, by_name[name])
    if connection.dialect.name == "postgresql":
        for table in tables.values():
            _count_on(connection, table)
    elif broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise Unfit(f"a row of {broken[0]} refers to one of {broken[2]} that is not there")


def _fill_table(connection: Connection, table: sqlalchemy.Table, source: Source) -> None:
    if strange := sorted(set(source.columns) - set(table.c.keys())):
        raise Unfit(f"its table {table.name} has no column {strange[0]!a}")
    readers = [_reader(table.c[name], connection.dialect.name) for name in source.columns]
    adding = table.insert()
    rows = (_row(line, source, readers) for line in source.lines())
    while batch := list(islice(rows, _BATCH)):
        connection.execute(adding, batch)


def _row(line: bytes, source: Source, readers: list[Callable[[Any], Any]]) -> dict[str, Any]:
    try:
        return {
            name: None if value is None else read(value)
            for name, read, value in zip(source.columns, readers, json.loads(line), strict=True)
        }
    except (ValueError, TypeError, RecursionError) as error:
        raise Unfit(f"a row of {source.name} cannot be read: {error}") from error


def _reader(column: "sqlalchemy.Column[Any]", dialect: str) -> Callable[[Any], Any]:
    """Return what turns a value of a line into one for a column; raises ValueError for one of another kind."""
    kind = column.type
    if isinstance(kind, sqlalchemy.JSON):
        return lambda value: value
    if isinstance(kind, sqlalchemy.DateTime):
        return lambda value: _moment(value, dialect)
    if isinstance(kind, sqlalchemy.Boolean):
        return lambda value: _of(bool, value, column)
    if isinstance(kind, sqlalchemy.Integer):
        return lambda value: _of(int, value, column)
    if isinstance(kind, sqlalchemy.Numeric | sqlalchemy.Float):
        return lambda value: float(_of((float, int), float(value) if value in _ODD else value, column))
    return lambda value: _of(str, value, column)


def _of(kind: type | tuple[type, ...], value: Any, column: "sqlalchemy.Column[Any]") -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{column.name} is no {column.type}")
    return value


def _moment(value: Any, dialect: str) -> datetime:
    moment = datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        raise ValueError("a moment has no time zone")
    moment = moment.astimezone(UTC)
    return moment.replace(tzinfo=None) if dialect == "sqlite" else moment


def _count_on(connection: Connection, table: sqlalchemy.Table) -> None:
    """Let a column that numbers its rows go on behind the last one, which SQLite does by itself."""
    for column in table.primary_key.columns:
        sequence = connection.execute(
            sqlalchemy.select(sqlalchemy.func.pg_get_serial_sequence(table.name, column.name))
        ).scalar()
        if sequence is not None:
            last = connection.execute(sqlalchemy.select(sqlalchemy.func.max(column))).scalar()
            if last is not None:
                connection.execute(sqlalchemy.select(sqlalchemy.func.setval(sequence, last)))
