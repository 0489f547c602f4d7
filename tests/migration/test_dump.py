"""A dump of any revision, from either database, becomes the same rows in the other one."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from orchestrator.store import dump, engine, migrations
from tests.migration.conftest import fill, make
from tests.migration.test_history import KEPT


class Kept:
    """A dump in memory."""

    def __init__(self) -> None:
        self.revision = ""
        self.tables: dict[str, tuple[tuple[str, ...], list[bytes]]] = {}

    def begin(self, contents: dump.Contents) -> None:
        self.revision = contents.revision
        self.tables.clear()

    def table(self, name: str, columns: tuple[str, ...], lines: Iterator[bytes]) -> None:
        self.tables[name] = (columns, list(lines))

    @property
    def sources(self) -> list[dump.Source]:
        return [
            dump.Source(name=name, columns=columns, lines=lambda lines=lines: iter(lines))  # type: ignore[misc] # a default of a lambda
            for name, (columns, lines) in self.tables.items()
        ]

    @property
    def rows(self) -> dict[str, list[dict[str, object]]]:
        return {
            name: [dict(zip(columns, json.loads(line), strict=True)) for line in lines]
            for name, (columns, lines) in self.tables.items()
        }


def dumped(url: str) -> Kept:
    kept = Kept()
    with closing(engine.Database(url)) as database:
        dump.dump(database, kept)
    return kept


def load(url: str, kept: Kept) -> None:
    def nothing(_: Connection) -> None:
        return None

    dump.load(url, kept.revision, kept.sources, check=nothing, settle=nothing)


@pytest.mark.parametrize(
    ("revision", "there", "here"),
    [(KEPT[0], "sqlite", "postgresql"), (KEPT[-1], "postgresql", "sqlite")],
)
def test_rows_of_any_revision_survive_the_way(
    revision: str, there: str, here: str, empty_postgres_url: str, tmp_path: Path
) -> None:
    urls = {"sqlite": f"sqlite:///{tmp_path / 'some.db'}", "postgresql": empty_postgres_url}
    make(urls[there], revision)
    fill(urls[there], revision)
    before = dumped(urls[there])
    assert before.revision == revision
    assert [name for name, rows in before.rows.items() if not rows] == []
    load(urls[here], before)
    migrations.check(urls[here])
    migrations.upgrade(urls[there])
    assert dumped(urls[here]).rows == dumped(urls[there]).rows


def test_rows_are_numbered_on_behind_those_that_came(empty_postgres_url: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'some.db'}"
    make(url, KEPT[-1])
    fill(url, KEPT[-1])
    load(empty_postgres_url, dumped(url))
    with closing(engine.Database(empty_postgres_url)) as database:
        last = "SELECT max(seq) FROM events"
        following = "SELECT nextval(pg_get_serial_sequence('events', 'seq'))"
        number, after = database.read(
            lambda connection: [connection.exec_driver_sql(text).scalar_one() for text in (last, following)]
        )
    assert after == number + 1


@pytest.mark.parametrize(
    ("table", "columns", "line", "why"),
    [
        ("jobs", ("seq", "id"), b"[1]", "cannot be read"),  # too few values
        ("jobs", ("seq", "id"), b'["1", "abcdefgh"]', "seq is no"),  # text for a number
        ("jobs", ("seq", "id"), b'[true, "abcdefgh"]', "seq is no"),
        ("jobs", ("seq", "id"), b"[1, 2]", "id is no"),
        ("jobs", ("seq", "id"), b"{}", "cannot be read"),
        ("jobs", ("seq", "id"), b"7", "cannot be read"),
        ("jobs", ("seq", "id"), b"[" * 100_000, "cannot be read"),
        ("jobs", ("seq", "id"), b'[1, "abcdefgh"]', "refuses"),  # all else is missing
        ("jobs", ("seq", "odd"), b'[1, "x"]', "no column 'odd'"),
        ("sqlite_master", ("name",), b'["x"]', "no table 'sqlite_master'"),
        ("dependencies", ("job_id", "needs", "rule"), b'["aaaaaaaa", "bbbbbbbb", "ok"]', "not there"),
        ("dependencies", ("job_id", "needs", "rule"), b'["aaaaaaaa", "bbbbbbbb", "odd"]', "refuses"),
        ("deleted_jobs", ("id", "deleted_at"), b'["aaaaaaaa", "2026-11-24T12:00:00"]', "no time zone"),
        ("deleted_jobs", ("id", "deleted_at"), b'["aaaaaaaa", "noon"]', "cannot be read"),
        ("datasets", ("hash", "bytes"), b'["x", 1e400]', "bytes is no"),
    ],
)
def test_rows_that_do_not_fit_leave_the_database_as_it_was(
    table: str, columns: tuple[str, ...], line: bytes, why: str, settings_url: str
) -> None:
    kept = Kept()
    kept.revision = migrations.HEAD
    kept.tables[table] = (columns, [line])
    before = dumped(settings_url)
    with pytest.raises(dump.Unfit, match=why):
        load(settings_url, kept)
    assert dumped(settings_url).rows == before.rows


@pytest.fixture
def settings_url(migrated_file: Path, tmp_path: Path) -> str:
    """The URL of a database with our schema and a row in it."""
    path = tmp_path / "there.db"
    path.write_bytes(migrated_file.read_bytes())
    url = f"sqlite:///{path}"
    with closing(engine.Database(url)) as database:
        adding = (
            "INSERT INTO datasets (hash, source, classes, counts, bytes, path, created_at)"
            " VALUES ('d', 'digits', '[]', '{}', 1, 'sets/d', '2026-11-24 12:00:00')"
        )
        database.write(lambda connection: connection.exec_driver_sql(adding))
    return url
