"""What works now: workers, how many of their slots are busy, and the jobs in them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator import config
from orchestrator.core.jobs import Job, Worker
from orchestrator.core.states import JobState, Stage
from orchestrator.service import query
from orchestrator.store.base import Store


@dataclass(frozen=True, kw_only=True)
class Use:
    """A worker and how many of its slots are busy; a download takes none."""

    worker: Worker
    busy: int

    @property
    def slots(self) -> int:
        """How many jobs it can train or evaluate at once."""
        return len(self.worker.devices)


@dataclass(frozen=True, kw_only=True)
class Top:
    """What works now, and what waits."""

    overview: query.Overview
    uses: tuple[Use, ...]
    running: tuple[Job, ...]
    waiting: tuple[Job, ...]  #: in the order of submission

    @property
    def busy(self) -> int:
        """Busy slots."""
        return sum(use.busy for use in self.uses)

    @property
    def slots(self) -> int:
        """All slots of the workers that live."""
        return sum(use.slots for use in self.uses)

    @property
    def rate(self) -> float:
        """Images a second of all trainings and evaluations."""
        return sum(job.progress.rate or 0.0 for job in self.running if job.progress.unit != "bytes")


def top(settings: config.Settings, store: Store) -> Top:
    """Return what works now."""
    return of(query.overview(settings, store))


def of(overview: query.Overview) -> Top:
    """Return what works in an overview."""
    running = tuple(job for job in overview.active if job.state is JobState.RUNNING)
    return Top(
        overview=overview,
        uses=tuple(_uses(overview.workers, running)),
        running=running,
        waiting=tuple(job for job in overview.active if job.state is JobState.QUEUED),
    )


def _uses(workers: Iterable[Worker], running: Iterable[Job]) -> Iterable[Use]:
    busy = Counter[str | None]()
    for job in running:
        if job.stage is not Stage.DOWNLOAD:
            busy[job.worker] += query.takes(job)
    return (Use(worker=worker, busy=busy[worker.id]) for worker in workers)
