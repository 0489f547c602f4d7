"""The schema's version: what the database has, what this orch needs, and the way from one to the other.

Looking at the version happens at every start and imports nothing more; only an upgrade or a check imports alembic.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy.engine import Connection

from orchestrator import errors, failpoints
from orchestrator.store import engine, models

#: The newest revision. Revisions are numbers of four digits, so that their order is that of the text.
HEAD = "0011"

#: Columns of `jobs` from the first revision on, by which it is told from another application's.
_JOBS = frozenset({"id", "seq", "spec_hash", "stage", "wish", "attempt", "beat"})

#: Seconds that an upgrade waits for another one to end.
PATIENCE = 60

#: Seconds that a server has for an upgrade: a table may have to be rewritten.
UPGRADE_SECONDS = 3600

#: Key of PostgreSQL's advisory lock under which a schema is upgraded: "orch" in ASCII.
_ADVISORY_KEY = 0x6F726368

#: What is done in a transaction.
Work = Callable[[Connection], Any]

failpoints.add_transaction("schema.version", commits=False)
failpoints.add_transaction("schema.compare", commits=False)
failpoints.add_transaction("schema.upgrade", commits=True)


def version(database: engine.Database) -> str | None:
    """Return the version of a database's schema; None where it has none. Never makes a file."""
    try:
        if database.file is not None and not database.file.exists():
            return None
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise errors.DatabaseUnavailable(
            f"The database {database.name} is out of reach.", why=error.strerror
        ) from error
    return database.read(version_of, place="schema.version")


def version_of(connection: Connection) -> str | None:
    """Return the version of the schema that a connection is to; None where it has none."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    return connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()


def is_older(found: str | None) -> bool:
    """Whether an upgrade leads from `found` to `HEAD`."""
    return found is None or found < HEAD


def is_ours(connection: Connection, found: str) -> bool:
    """Whether a version is one of orch's, by its form and our table of jobs: others that use alembic count alike."""
    if len(found) != len(HEAD) or not found.isdecimal():
        return False
    inspector = sqlalchemy.inspect(connection)
    return inspector.has_table("jobs") and {one["name"] for one in inspector.get_columns("jobs")} >= _JOBS


def require_head(found: str | None, *, name: str) -> None:
    """Raise `errors.SchemaMismatch` with both versions unless `found` is `HEAD`. `name` is the database's."""
    if found == HEAD:
        return
    raise errors.SchemaMismatch(
        f"The database {name} has the schema version {found or 'none'}; this orch needs {HEAD}.",
        why="It was made by an older orch." if found and is_older(found) else None,
        hint="Run `orch db upgrade`." if is_older(found) else "Install the newer orch that upgraded it.",
    )


def current(url: str) -> str | None:
    """Return the version of the schema of the database at `url`; None where it has none."""
    with _opened(url) as database:
        return version(database)


def upgrade(url: str) -> None:
    """Bring the database at `url` to `HEAD`, all or nothing; of two at once the second finds nothing to do.

    Raises `errors.SchemaMismatch` for a database newer than this orch.
    """
    with _opened(url, foreign_keys=False) as database, _alone(database):
        found = version(database)
        if not is_older(found):
            require_head(found, name=database.name)
        database.write(_upgrade, place="schema.upgrade", patience=UPGRADE_SECONDS)


def rebuild(url: str, work: Work, *, place: str) -> Any:
    """Run what makes the schema anew in one transaction that no upgrade comes into; return its result."""
    with _opened(url, foreign_keys=False) as database, _alone(database):
        return database.write(lambda connection: work(_first(connection)), place=place, patience=UPGRADE_SECONDS)


def step(connection: Connection, revision: str) -> None:
    """Bring the schema to a revision, or to `head`, inside of a transaction."""
    from alembic import command  # noqa: PLC0415 - alembic costs 0.45 s, more than all of `orch status`

    command.upgrade(_config(connection), revision)


def check(url: str) -> None:
    """Raise `errors.SchemaMismatch` unless the schema at `url` is `HEAD` and exactly what the models say."""
    with _opened(url) as database:
        require_head(version(database), name=database.name)
        differences = database.read(_differences, place="schema.compare", patience=engine.LONG_PATIENCE)
        if differences:
            raise errors.SchemaMismatch(
                f"The schema of {database.name} differs from the models.",
                why="; ".join(str(difference) for difference in differences),
                hint="A table was changed by hand, or a migration is missing.",
            )


def scripts() -> Path:
    """Return the folder of the migrations: in the package when it is installed, else in the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_alembic"
    return installed if installed.is_dir() else package.parent / "alembic"


@contextmanager
def _opened(url: str, *, foreign_keys: bool = True) -> Iterator[engine.Database]:
    database = engine.Database(url, foreign_keys=foreign_keys)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def _alone(database: engine.Database) -> Iterator[None]:
    """Keep other upgrades of a SQLite file out. On a server an advisory lock does it, inside the transaction."""
    if database.file is None:
        yield
        return
    import filelock  # noqa: PLC0415 - only an upgrade needs it

    try:
        failpoints.reach("schema.lock")
        with filelock.FileLock(f"{database.file}.upgrade.lock", timeout=PATIENCE, mode=0o600):
            yield
    except (filelock.Timeout, OSError) as error:
        held = isinstance(error, filelock.Timeout)
        raise errors.DatabaseUnavailable(
            f"The database {database.name} cannot be upgraded.",
            why=f"Another upgrade has held its lock for {PATIENCE:g} seconds." if held else f"{error.strerror}.",
            hint="Try again."
            if held
            else "Check that its folder exists, that you may write there, and the free space.",
        ) from error


def _upgrade(connection: Connection) -> None:
    step(_first(connection), "head")


def _first(connection: Connection) -> Connection:
    """Return the connection once no other transaction of a server changes the schema."""
    if connection.dialect.name == "postgresql":
        connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_ADVISORY_KEY)))
    return connection


def _config(connection: Connection) -> Any:
    from alembic import config  # noqa: PLC0415 - the same

    made = config.Config()
    made.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def _differences(connection: Connection) -> list[Any]:
    from alembic import autogenerate, migration  # noqa: PLC0415 - the same

    context = migration.MigrationContext.configure(connection, opts={"compare_type": True})
    return list(autogenerate.compare_metadata(context, models.metadata))
