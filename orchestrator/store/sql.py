"""The store on a SQL database, and how it is opened: with its schema checked, and the embedded one made."""

from orchestrator import config, errors, failpoints
from orchestrator.core import ids
from orchestrator.core.clock import Clock, SystemClock
from orchestrator.store import audits, engine, fleet, migrations, notices, people, places, steering, supervisors


class SqlStore(
    people.People,
    steering.Steering,
    places.Places,
    supervisors.Supervisors,
    fleet.Fleet,
    notices.Notices,
    audits.Audits,
):
    """The whole store, `base.Store`, on SQLite or PostgreSQL. Threads may share one; processes may not."""

    def __init__(self, database: engine.Database, *, clock: Clock | None) -> None:
        self.database = database
        self.clock = clock or SystemClock()
        self.now = engine.shared_time if clock is None else lambda _: clock.now()
        self.unheard = []

    def close(self) -> None:
        """Let go of every connection."""
        self.database.close()


def open_store(
    settings: config.Settings, *, clock: Clock | None = None, create: bool = True, upgrade: bool = True
) -> SqlStore:
    """Return the store that the settings name.

    The embedded database is made (not without `create`) and upgraded (not without `upgrade`) when that is needed; any
    other is only checked.

    Raises:
        SchemaMismatch: the database speaks another version than this orch.
        DatabaseUnavailable: it is out of reach, or is not there and may not be made, or not any more.

    """
    database = engine.Database(settings.database, must_exist=True)
    try:
        found = migrations.version(database)
        if upgrade and settings.embedded_database and migrations.is_older(found):
            _bring_up(settings, is_new=found is None, create=create)
            found = migrations.version(database)
        migrations.require_head(found, name=database.name)
    except BaseException:
        database.close()
        raise
    return SqlStore(database, clock=clock)


def _bring_up(settings: config.Settings, *, is_new: bool, create: bool) -> None:
    if is_new and not create:
        raise errors.DatabaseUnavailable(
            "There is no database yet.",
            why=f"{settings.home} holds none.",
            hint="`orch up -d` or `orch submit` makes it.",
        )
    if is_new and _has_been_used(settings):
        raise errors.DatabaseUnavailable(
            f"The database {settings.home / 'orch.db'} is gone.",
            why=f"Jobs of it have left files in {settings.artifact_dir}.",
            hint="Put it back, from a backup where need be; `orch db upgrade` begins a new one.",
        )
    make_home(settings)
    migrations.upgrade(settings.database)


def _has_been_used(settings: config.Settings) -> bool:
    """Whether jobs have run on the embedded database of this home; another's folder of artifacts says nothing."""
    return settings.artifacts is None and any(
        len(folder.name) == ids.LENGTH for folder in settings.artifact_dir.glob("*")
    )


def make_home(settings: config.Settings) -> None:
    """Make the folder of everything orch keeps, and the database's file in it, for their owner alone."""
    try:
        failpoints.reach("home.mkdir")
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (settings.home / "orch.db").touch(mode=0o600)  # in a folder of a person's own, which others may read
    except OSError as error:
        raise errors.DatabaseUnavailable(
            f"The folder {settings.home} cannot be used.",
            why=f"{error.strerror}: {error.filename}",
            hint="Set ORCH_HOME to a folder that you may write to.",
        ) from error
