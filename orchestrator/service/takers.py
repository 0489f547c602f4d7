"""Which slots take a job, and which there are beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.jobs import Worker
from orchestrator.core.limits import Limits


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What takes a job: slots with a device train and evaluate, the others download."""

    takers: tuple[Worker, ...]  #: those that take it
    workers: tuple[Worker, ...]  #: all that take jobs: those that are ahead may go elsewhere
    downloads: int

    @property
    def devices(self) -> int:
        """How many slots could train it."""
        return sum(len(worker.devices) for worker in self.takers)

    @property
    def ids(self) -> frozenset[str]:
        """The ids of those that take it."""
        return frozenset(worker.id for worker in self.takers)

    @property
    def limits(self) -> tuple[Limits, ...]:
        """That those keep to which take it."""
        return tuple({str(worker.limits): worker.limits for worker in self.takers}.values())

    @property
    def kinds(self) -> frozenset[str]:
        """What devices that could train it are called."""
        return frozenset(device.name for worker in self.takers for device in worker.offer.devices)


def slots(takers: Sequence[Worker], workers: Sequence[Worker], *, downloads: int) -> Slots:
    """Return the slots of those workers that take a job, among all; each has so many for downloads."""
    return Slots(takers=tuple(takers), workers=tuple(workers), downloads=downloads * len(takers))
