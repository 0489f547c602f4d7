"""Jobs that train on several devices of one host: how a worker's devices are taken, and who waits for enough of them.

Where the next job in turn needs more devices than are free, one worker *holds back*: its free devices of that kind take
no later job, until they are enough. So no stream of small jobs keeps a large one waiting for ever.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.resources import ONE_CPU, Demand, Device, Offer


class Pool(Protocol):
    """The devices of a worker, as one of its slots takes them."""

    @property
    def offer(self) -> Offer:
        """What the whole worker has."""
        ...

    def hold(self, demand: Demand) -> tuple[Device, ...]:
        """Take the slot's own device and as many others as a demand needs, all at once, without waiting.

        None where its own device or one of the others is not free, or is not as demanded. What was held for another
        demand before is let go.
        """
        ...

    def serves(self, demand: Demand) -> bool:
        """Whether a device that this slot could begin a job with is as demanded: others are not held back for it."""
        ...


class Alone:
    """A slot that shares its one device with nobody: it takes no gang."""

    def __init__(self, offer: Offer = ONE_CPU) -> None:
        self.offer = offer

    def hold(self, demand: Demand) -> tuple[Device, ...]:
        """Return the device where it is all that is needed."""
        own = self.offer.devices[:1]
        return own if demand.gpus == 1 and all(demand.fits(device) for device in own) else ()

    def serves(self, demand: Demand) -> bool:
        """Whether any device is as demanded: of a worker it is not known which slot asks."""
        return any(demand.fits(device) for device in self.offer.devices)


ALONE = Alone()


@dataclass(frozen=True, kw_only=True)
class Host:
    """A worker that takes jobs, as the database knows it."""

    worker: str
    offer: Offer
    taken: int = 0  #: slots in which jobs train or are evaluated

    def free(self, demand: Demand) -> int:
        """Return how many different devices of the kind can be free, at most."""
        fitting = len({device.id for device in self.offer.devices if demand.fits(device)})
        return max(0, min(fitting, len(self.offer.devices) - self.taken))


def holder(demand: Demand, hosts: Iterable[Host]) -> Host | None:
    """Return who holds back for a job, of the workers that could ever run it; None where there is none.

    It is the one with the most devices free, then by name. It only gains devices while it takes no later job, and is
    relieved only by one that has more: so enough come free in the end. And where a worker has enough, no other waits.
    """
    able = [host for host in hosts if demand.is_met_by(host.offer)]
    return min(able, key=lambda host: (-host.free(demand), host.worker), default=None)


def named(devices: Iterable[Device]) -> str:
    """Return several devices for people, equal ones counted."""
    names = [device.name for device in devices]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
