"""Jobs that train on several devices of one host: how a worker's devices are taken, and who waits for enough of them.

Where the next job in turn needs more devices than are free, one worker *holds back*: its free devices of that kind take
no later job, until they are enough. So no stream of small jobs keeps a large one waiting for ever.
"""

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from orchestrator.core.resources import ONE_CPU, Demand, Device, Offer


class Pool(Protocol):
    """The devices of a worker, as one of its slots takes them."""

    @property
    def offer(self) -> Offer:
        """What the whole worker has."""
        ...

    def hold(self, demand: Demand) -> tuple[Device, ...]:
        """Take the slot's own device and as many others as a demand needs, all at once and without waiting.

        Returns nothing where its own device is not as demanded, or too few of the others are both that and free. What
        was held for another demand before is let go.
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
class Taken:
    """What a job that runs on a device, or on several, takes of its worker."""

    job: str  #: its id
    demand: Demand  #: at its stage
    devices: tuple[str, ...] = ()  #: ids; none where a worker of an earlier version did not tell


@dataclass(frozen=True, kw_only=True)
class Host:
    """A worker that takes jobs, as the database knows it."""

    worker: str
    offer: Offer
    taken: tuple[Taken, ...] = ()

    @functools.cached_property
    def free(self) -> tuple[Device, ...]:
        """The devices that no job has, one entry a slot."""
        left = list(self.offer.devices)
        unsaid: list[Demand] = []  # last: they have none of the devices that others name
        for one in self.taken:
            named = [name for name in one.devices if _strike(left, functools.partial(_is, name))]
            unsaid += [one.demand] * (one.demand.gpus - len(named))
        for demand in unsaid:
            if not _strike(left, demand.fits):
                _strike(left, lambda _: True)
        return tuple(left)

    def without(self, *job_ids: str) -> "Host":
        """Return the worker as it is when these jobs have gone."""
        return replace(self, taken=tuple(one for one in self.taken if one.job not in job_ids))

    def holding(self, demand: Demand) -> tuple[str, ...]:
        """Return the jobs that have a device of the kind."""
        fits = {device.id for device in self.offer.devices if demand.fits(device)}
        return tuple(one.job for one in self.taken if not one.devices or fits.intersection(one.devices))


def different(demand: Demand, devices: Iterable[Device]) -> tuple[Device, ...]:
    """Return those that are as demanded, each device once, however many slots share it."""
    return tuple({device.id: device for device in devices if demand.fits(device)}.values())


def chosen(demand: Demand, devices: Iterable[Device]) -> tuple[Device, ...]:
    """Return as many different devices as are demanded; none where they are too few."""
    found = different(demand, devices)
    return found[: demand.gpus] if len(found) >= demand.gpus else ()


def rest(devices: Iterable[Device], taken: Iterable[Device]) -> tuple[Device, ...]:
    """Return the slots that are left of a worker's when a job takes these devices, a slot of each."""
    left = list(devices)
    for one in taken:
        left.remove(one)
    return tuple(left)


def holder(demand: Demand, hosts: Iterable[Host]) -> Host | None:
    """Return who holds back for a job, of the workers that could ever run it; None where there is none.

    It is the one with the most devices free, then by name. It only gains devices while it takes no later job, and is
    relieved only by one that has more: so enough come free in the end. And where a worker has enough, no other waits.
    """
    able = [host for host in hosts if demand.is_met_by(host.offer)]
    return min(able, key=lambda host: (-len(different(demand, host.free)), host.worker), default=None)


def named(devices: Iterable[Device]) -> str:
    """Return several devices for people, equal ones counted."""
    names = [device.name for device in devices]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def counted(label: str) -> int:
    """Return how many devices an attempt's label names: those of `named`, else the one of its slot."""
    return sum(map(int, re.findall(r"(?:^|, )(\d+) x ", label))) or 1


def _is(name: str, device: Device) -> bool:
    return device.id == name


def _strike(devices: list[Device], is_it: Callable[[Device], bool]) -> bool:
    """Remove the first device that is it; say whether there was one."""
    found = next((number for number, device in enumerate(devices) if is_it(device)), None)
    if found is not None:
        del devices[found]
    return found is not None
