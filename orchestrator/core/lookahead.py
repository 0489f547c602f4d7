"""When a job is claimed if all takes as long as is foreseen: the order of claims, played forward."""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from orchestrator.core import ordering, resources


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A slot that trains."""

    worker: str  #: its id
    device: resources.Device
    offer: resources.Offer  #: of its worker
    free: float  #: in so many seconds
    user: str | None = None  #: whose training is in it now


#: When a slot is free, and its number.
_Entry = tuple[float, int, Slot]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that waits for a slot."""

    user: str
    rank: float
    seq: int
    demand: resources.Demand
    seconds: Mapping[str, float]  #: that it is in the slot, by what the device is called
    comes: float = 0.0  #: in so many seconds: until then it downloads


def begins(
    slots: Iterable[Slot], waiting: Iterable[Waiting], mine: int, turns: Mapping[str, ordering.Contender]
) -> float | None:
    """Return in how many seconds the job with `seq` = `mine` is claimed; None where that never comes.

    `turns` says how the users stand now. A job of several devices begins when as many of its worker are free.
    """
    running = Counter({user: one.running for user, one in turns.items()})
    served: dict[str, float] = {}  #: seconds from now, of those who are served meanwhile
    left, free = list(waiting), [(slot.free, number, slot) for number, slot in enumerate(slots)]
    heapq.heapify(free)
    while free:
        now, number, slot = heapq.heappop(free)
        _end(slot, running)
        could = [one for one in left if one.demand.is_met_by(slot.offer) and one.demand.fits(slot.device)]
        fitting = [one for one in could if one.comes <= now]
        if could and not fitting:
            heapq.heappush(free, (min(one.comes for one in could), number, replace(slot, user=None)))
        if not fitting:
            continue
        taken = min(fitting, key=lambda one: _turn(one, running, served, turns))
        others = _together(taken.demand, slot, free)
        for entry in others:
            now = max(now, entry[0])
            free.remove(entry)
            _end(entry[2], running)
        heapq.heapify(free)
        if taken.seq == mine:
            return now
        left.remove(taken)
        running[taken.user] += 1
        served[taken.user] = until = now
        until += taken.seconds[slot.device.name]
        heapq.heappush(free, (until, number, replace(slot, user=taken.user)))
        for _, number, other in others:
            heapq.heappush(free, (until, number, replace(other, user=None)))
    return None


def _together(demand: resources.Demand, slot: Slot, free: Iterable[_Entry]) -> list[_Entry]:
    """Return the slots that a job takes beside its first, those that are free soonest, each with another device."""
    chosen: dict[str, _Entry] = {}
    for entry in sorted(free, key=lambda entry: entry[:2]):
        other = entry[2]
        if other.worker == slot.worker and demand.fits(other.device) and other.device.id != slot.device.id:
            chosen.setdefault(other.device.id, entry)
    return list(chosen.values())[: demand.gpus - 1]


def _end(slot: Slot, running: Counter[str]) -> None:
    if slot.user is not None:
        running[slot.user] -= 1


def _turn(
    one: Waiting, running: Counter[str], served: Mapping[str, float], turns: Mapping[str, ordering.Contender]
) -> tuple[int, bool, float, float, int]:
    """Return what jobs are compared by: `ordering.Contender.turn`, with times from now for those served meanwhile."""
    if one.user in served:
        return running[one.user], True, served[one.user], one.rank, one.seq
    before = turns[one.user].served_at if one.user in turns else None
    return running[one.user], False, before.timestamp() if before else 0.0, one.rank, one.seq
