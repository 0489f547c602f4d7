"""Databases of any revision, and a revision that is yet to come."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from pydantic import SecretStr
from sqlalchemy import Connection

from orchestrator import config
from orchestrator.store import engine, migrations
from tests.integration.cli.conftest import orch

__all__ = ["orch"]

ROWS = Path(__file__).parent / "rows"
NEXT = f"{int(migrations.HEAD) + 1:04}"

Add = Callable[[str], None]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'some.db'}"
    return str(request.getfixturevalue("empty_postgres_url"))


@pytest.fixture(params=["sqlite", "postgresql"])
def newest_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with the newest schema and no rows."""
    if request.param == "sqlite":
        return f"sqlite:///{shutil.copy(request.getfixturevalue('migrated_file'), tmp_path / 'some.db')}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def add_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Adds a revision behind the newest, whose upgrade does as the text says, and makes this the orch that has it."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrations.scripts(), folder, ignore=shutil.ignore_patterns("__pycache__"))

    def add(body: str) -> None:
        head = f'"""A test."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n\nrevision = "{NEXT}"\n'
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        text = f'{head}down_revision = "{migrations.HEAD}"\n\n\ndef upgrade() -> None:\n{lines}'
        (folder / "versions" / f"{NEXT}_test.py").write_text(text, encoding="utf-8")
        monkeypatch.setattr(migrations, "scripts", lambda: folder)
        monkeypatch.setattr(migrations, "HEAD", NEXT)

    return add


def elsewhere(settings: config.Settings, url: str) -> config.Settings:
    """Return the settings with a database that is not the embedded one."""
    return settings.model_copy(update={"database_url": SecretStr(url)})


def make(url: str, revision: str) -> None:
    """Make the schema of a revision in an empty database."""
    with closing(engine.Database(url)) as database:
        database.write(lambda connection: command.upgrade(migrations._config(connection), revision))


def fill(url: str, revision: str) -> None:
    """Put into every table what an orch of that revision wrote."""
    statements = (ROWS / f"{revision}.sql").read_text("utf-8").split(";\n")

    def run(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
        for statement in filter(str.strip, statements):
            connection.exec_driver_sql(statement)

    with closing(engine.Database(url)) as database:
        database.write(run)
