"""Use cases of the database's schema: bring it up to date, look at its version, check it."""

from orchestrator import config
from orchestrator.store import migrations, sql


def upgrade(settings: config.Settings) -> tuple[str | None, str]:
    """Upgrade the database and return its version before and after."""
    old = migrations.current(settings.database)
    if settings.embedded_database:
        sql.make_home(settings)
    migrations.upgrade(settings.database)
    return old, migrations.HEAD


def current(settings: config.Settings) -> tuple[str | None, str]:
    """Return the version that the database has, None where it has no schema, and the one that this orch needs."""
    return migrations.current(settings.database), migrations.HEAD


def check(settings: config.Settings) -> None:
    """Raise `errors.SchemaMismatch` unless the database is exactly what this orch needs."""
    migrations.check(settings.database)
