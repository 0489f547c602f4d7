"""The devices of a node, shared out among its slots: one that is in use is locked by whoever uses it.

A slot takes its own device, or with it others for a job that trains on several: all at once or none, and it never waits
while it holds one. A lock is handed on to the processes of the job, so that it lives as long as any of them.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from orchestrator import failpoints
from orchestrator.core import layout, resources
from worker import protocol
from worker.devices import Device


class Pool:
    """The devices as one slot sees them. Between two jobs it holds none."""

    def __init__(self, devices: Sequence[Device], *, slot: str, offer: resources.Offer, prefix: Path) -> None:
        self.offer = offer
        self._own = next(device for device in devices if device.slot == slot)
        self._others = tuple(device for device in devices if device is not self._own)
        self._prefix = prefix
        self._locks: dict[str, int] = {}  #: open descriptors, by the slot of the device
        self._lacking: resources.Demand | None = None  #: what could not be held when it was its turn
        self._used = threading.Lock()

    def hold(self, demand: resources.Demand) -> tuple[resources.Device, ...]:
        """Take the slot's own device and as many others as are demanded, or none; see `core.gangs.Pool`."""
        chosen = self._chosen(demand)
        enough = len(chosen) == demand.gpus
        if not enough and self._lacking is None and self.serves(demand):
            self._lacking = demand
        for slot in self._locks.keys() - {device.slot for device in (chosen if enough else chosen[:1])}:
            os.close(self._locks.pop(slot))
        return tuple(device.offered for device in chosen) if enough else ()

    def serves(self, demand: resources.Demand) -> bool:
        """Whether the slot's own device is as demanded."""
        return demand.fits(self._own.offered)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let go of what is held, at the end."""
        with self._used:
            self._lacking = None
            try:
                yield
            finally:
                self._release()

    def has_come_free(self) -> bool:
        """Whether what could not be held at the last look could be held now, as far as that can be told."""
        if self._lacking is None or not self._used.acquire(blocking=False):
            return False
        try:
            return bool(self.hold(self._lacking))
        except OSError:  # the next look tells; a claim says what is wrong
            return False
        finally:
            self._release()
            self._used.release()

    @property
    def ids(self) -> tuple[str, ...]:
        """The devices that are held, as processes know them: `cpu`, or a GPU's UUID."""
        return tuple(device.gpu.uuid if device.gpu else protocol.CPU for device in self._held)

    @property
    def locks(self) -> tuple[int, ...]:
        """Descriptors that hold these devices, here and for all users of the host."""
        return tuple(lock for device in self._held for lock in (self._locks[device.slot], *device.locks))

    @property
    def _held(self) -> list[Device]:
        return [device for device in (self._own, *self._others) if device.slot in self._locks]

    def _chosen(self, demand: resources.Demand) -> list[Device]:
        """Return the devices that could be locked, the own one first; several slots of a GPU count once."""
        chosen: list[Device] = []
        for device in (self._own, *self._others):
            if len(chosen) == demand.gpus:
                break
            is_another = device.offered.id not in {one.offered.id for one in chosen}
            if is_another and demand.fits(device.offered) and self._lock(device):
                chosen.append(device)
            if not chosen:  # without its own one it takes no other
                break
        return chosen

    def _lock(self, device: Device) -> bool:
        if device.slot in self._locks:
            return True
        failpoints.reach("pool.lock")
        lock = os.open(f"{self._prefix}.{device.slot}{layout.DEVICE}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except OSError as error:
            os.close(lock)
            if not isinstance(error, BlockingIOError):
                raise
            return False
        self._locks[device.slot] = lock
        return True

    def _release(self) -> None:
        while self._locks:
            os.close(self._locks.popitem()[1])  # no unlock: a process of the job may not have ended yet


class Unpooled:
    """What a slot for downloads works with: no device."""

    offer = resources.ONE_CPU
    ids: tuple[str, ...] = (protocol.CPU,)
    locks: tuple[int, ...] = ()

    def hold(self, _demand: resources.Demand) -> tuple[resources.Device, ...]:
        """Return what stands for no device."""
        return self.offer.devices

    def serves(self, _demand: resources.Demand) -> bool:
        """Nothing is held back of no device."""
        return False

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold nothing."""
        yield

    def has_come_free(self) -> bool:
        """Nothing can."""
        return False


UNPOOLED = Unpooled()
