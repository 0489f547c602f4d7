import multiprocessing
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import filelock
import psycopg
import pytest
import sqlalchemy
from alembic import config as alembic_config
from alembic import script
from sqlalchemy import Connection

from orchestrator import config, errors
from orchestrator.core import jobs, specs
from orchestrator.service import schema
from orchestrator.store import engine, migrations, models, sql
from tests.contract import parts
from tests.migration.conftest import elsewhere
from tests.support.waiting import patiently

#: Seconds; nothing here takes longer, on a busy machine either.
DEADLINE = 90.0


def pretend(url: str, statement: str | sqlalchemy.Executable) -> None:
    """Run one statement on the database at `url`."""
    change = sqlalchemy.text(statement) if isinstance(statement, str) else statement
    with closing(engine.Database(url)) as database:
        database.write(lambda connection: connection.execute(change))


def set_version(url: str, version: str) -> None:
    table = sqlalchemy.table("alembic_version", sqlalchemy.column("version_num"))
    pretend(url, table.update().values(version_num=version))


def test_head_is_the_newest_script() -> None:
    settings = alembic_config.Config()
    settings.set_main_option("script_location", str(migrations.scripts()))
    assert script.ScriptDirectory.from_config(settings).get_heads() == [migrations.HEAD]


def test_a_server_s_database_may_be_in_sql_ascii(empty_postgres_url: str, settings: config.Settings) -> None:
    url = sqlalchemy.make_url(empty_postgres_url)
    plain = url.set(database=f"{url.database}_ascii").render_as_string(hide_password=False)
    server = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {url.database}_ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
        migrations.upgrade(plain)
        with closing(sql.open_store(elsewhere(settings, plain))) as store:
            new = jobs.NewJob(spec=specs.parse({"data": "/srv/größer"}), user="ada")
            assert store.get(store.submit(new)[0].id).spec == new.spec
        connection.execute(f"DROP DATABASE {url.database}_ascii WITH (FORCE)")


def test_upgrade_makes_what_the_models_say(empty_url: str) -> None:
    assert migrations.current(empty_url) is None
    migrations.upgrade(empty_url)
    assert migrations.current(empty_url) == migrations.HEAD
    migrations.check(empty_url)
    migrations.upgrade(empty_url)  # nothing left to do


def test_constraints_and_comments_are_those_of_the_models(empty_url: str) -> None:
    """Alembic compares neither CHECK constraints nor, on SQLite, names: make the tables from the models beside them."""
    migrations.upgrade(empty_url)
    with closing(engine.Database(empty_url)) as database:
        migrated = database.read(_picture)
        database.write(models.metadata.drop_all)
        database.write(models.metadata.create_all)
        assert database.read(_picture) == migrated


def _picture(connection: Connection) -> dict[str, object]:
    inspector = sqlalchemy.inspect(connection)
    with_comments = connection.dialect.supports_comments
    return {
        table: (
            sorted((check["name"], check["sqltext"]) for check in inspector.get_check_constraints(table)),
            sorted((index["name"], tuple(index["column_names"])) for index in inspector.get_indexes(table)),
            sorted(
                (unique["name"], tuple(unique["column_names"])) for unique in inspector.get_unique_constraints(table)
            ),
            sorted((key["name"], tuple(key["constrained_columns"])) for key in inspector.get_foreign_keys(table)),
            inspector.get_pk_constraint(table)["constrained_columns"],
            [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)],
            [column.get("comment") for column in inspector.get_columns(table)],
            inspector.get_table_comment(table) if with_comments else None,
        )
        for table in sorted(set(inspector.get_table_names()) - {"alembic_version"})
    }


def test_everything_carries_a_comment() -> None:
    bare = [str(column) for table in models.metadata.tables.values() for column in table.c if not column.comment]
    assert bare == []
    assert all(table.comment for table in models.metadata.tables.values())


def test_check_names_what_differs(empty_url: str) -> None:
    migrations.upgrade(empty_url)
    pretend(empty_url, "DROP INDEX ix_jobs_claim")
    with pytest.raises(errors.SchemaMismatch) as caught:
        migrations.check(empty_url)
    assert "ix_jobs_claim" in str(caught.value.why)


def _upgrade_with_others(url: str, gate: Any) -> None:
    gate.wait(DEADLINE)
    patiently(migrations.upgrade, url)


def test_upgrades_at_once_are_one(empty_url: str) -> None:
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(3)
    upgrades = [context.Process(target=_upgrade_with_others, args=(empty_url, gate)) for _ in range(3)]
    for upgrade in upgrades:
        upgrade.start()
    for upgrade in upgrades:
        upgrade.join(DEADLINE)
        upgrade.kill()
    assert [upgrade.exitcode for upgrade in upgrades] == [0, 0, 0]
    migrations.check(empty_url)


def test_upgrade_waits_for_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "PATIENCE", 0.05)
    url = f"sqlite:///{tmp_path / 'some.db'}"
    with filelock.FileLock(tmp_path / "some.db.upgrade.lock"), pytest.raises(errors.DatabaseUnavailable) as caught:
        migrations.upgrade(url)
    assert "cannot be upgraded" in caught.value.message
    migrations.upgrade(url)


def test_upgrade_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    pretend(empty_url, "CREATE TABLE log_chunks (other INTEGER)")  # in the way of the last tables
    with pytest.raises((sqlalchemy.exc.ProgrammingError, errors.DatabaseUnavailable), match=r"exist|out of reach"):
        migrations.upgrade(empty_url)
    with closing(engine.Database(empty_url)) as database:
        names = database.read(lambda connection: sqlalchemy.inspect(connection).get_table_names())
    assert names == ["log_chunks"]


def test_embedded_database_is_made_at_first_use(settings: config.Settings) -> None:
    with closing(sql.open_store(settings)) as store:
        assert store.jobs(jobs.JobFilter()) == []
    assert stat.S_IMODE(settings.home.stat().st_mode) == 0o700
    assert migrations.current(settings.database) == migrations.HEAD


def test_embedded_database_upgrades_itself(settings: config.Settings) -> None:
    sql.make_home(settings)
    pretend(settings.database, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    with closing(sql.open_store(settings)) as store:
        assert parts.submit(store).seq == 1


def test_looking_makes_nothing(settings: config.Settings) -> None:
    with pytest.raises(errors.DatabaseUnavailable) as caught:
        sql.open_store(settings, create=False)
    assert "orch up" in str(caught.value.hint)
    assert schema.current(settings) == (None, migrations.HEAD)
    assert not settings.home.exists()


def test_home_that_cannot_be_made_is_explained(settings: config.Settings) -> None:
    settings.home.write_text("a file in its place")
    with pytest.raises(errors.DatabaseUnavailable) as caught:
        sql.open_store(settings)
    assert str(settings.home) in str(caught.value.message)


def test_other_databases_are_never_upgraded_unasked(settings: config.Settings, empty_url: str) -> None:
    there = elsewhere(settings, empty_url)
    with pytest.raises(errors.SchemaMismatch) as caught:
        sql.open_store(there)
    assert "none" in caught.value.message
    assert migrations.HEAD in caught.value.message
    assert "orch db upgrade" in str(caught.value.hint)
    assert migrations.current(empty_url) is None
    assert schema.upgrade(there) == (None, migrations.HEAD)
    assert schema.current(there) == (migrations.HEAD, migrations.HEAD)
    schema.check(there)
    sql.open_store(there).close()


REFUSING: list[Callable[[config.Settings], object]] = [sql.open_store, schema.upgrade, schema.check]


@pytest.mark.parametrize("use", REFUSING)
def test_newer_database_is_refused_with_both_versions(
    settings: config.Settings, empty_url: str, use: Callable[[config.Settings], object]
) -> None:
    migrations.upgrade(empty_url)
    set_version(empty_url, "9999")
    with pytest.raises(errors.SchemaMismatch) as caught:
        use(elsewhere(settings, empty_url))
    assert "9999" in caught.value.message
    assert migrations.HEAD in caught.value.message
    assert "newer orch" in str(caught.value.hint)


def test_newer_embedded_database_is_refused(settings: config.Settings) -> None:
    sql.open_store(settings).close()
    set_version(settings.database, "9999")
    with pytest.raises(errors.SchemaMismatch, match="9999"):
        sql.open_store(settings)


@pytest.mark.parametrize("use", [sql.open_store, schema.check])
def test_older_database_is_refused_with_both_versions(
    settings: config.Settings, empty_url: str, use: Callable[[config.Settings], object]
) -> None:
    migrations.upgrade(empty_url)
    set_version(empty_url, "0000")
    with pytest.raises(errors.SchemaMismatch) as caught:
        use(elsewhere(settings, empty_url))
    assert "0000" in caught.value.message
    assert migrations.HEAD in caught.value.message
    assert "orch db upgrade" in str(caught.value.hint)
