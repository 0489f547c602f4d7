"""How alembic runs our migrations: on the connection that `store.migrations` hands over, else on the settings'."""

from alembic import context
from sqlalchemy.engine import Connection

from orchestrator import config
from orchestrator.store import engine, models


def migrate(connection: Connection) -> None:
    """Run the migrations in the transaction that is open: the schema changes whole or not at all."""
    context.configure(
        connection=connection,
        target_metadata=models.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    engine.Database(config.load().database, foreign_keys=False).write(migrate)
