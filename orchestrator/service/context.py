"""Where every use case begins: the settings in force and the store they name, opened once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator import config
from orchestrator.store.base import Store
from orchestrator.store.sql import open_store


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a use case works with."""

    settings: config.Settings
    store: Store


@contextmanager
def opened(settings: config.Settings, *, create: bool = True, upgrade: bool = True) -> Iterator[Context]:
    """Open the store that the settings name; the embedded one is upgraded and made where needed, if it may be.

    Raises:
        DatabaseUnavailable: it is out of reach, or is not there and may not be made.
        SchemaMismatch: it has another version than this orch.

    """
    store = open_store(settings, create=create, upgrade=upgrade)
    try:
        yield Context(settings=settings, store=store)
    finally:
        store.close()
