"""Making room on this host: what nobody needs any more is found, and removed where that is asked for."""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator import config
from orchestrator.service import asking


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something that nobody needs."""

    kind: str
    path: str
    bytes: int
    job: str | None
    removable: bool  #: False where it is left alone
    removed: bool
    why: str


def collect(settings: config.Settings, *, dry_run: bool, orphans: bool = False) -> Iterator[Item]:
    """Yield what nobody needs, each as it is removed; with `dry_run` nothing is.

    `orphans` are folders of jobs of which the database has never heard: they are removed only where that is said.

    Raises:
        OrchError: the packages of a worker are missing, or the process failed.

    """
    for answer in asking.ask(settings, "worker.garbage", {"dry_run": dry_run, "orphans": orphans}):
        yield Item(**answer["item"])
