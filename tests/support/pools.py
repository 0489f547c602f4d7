"""The devices of a worker in memory, in place of `worker.pool`'s locks."""

from orchestrator.core import resources


class Devices:
    """CPU slots of one worker, or GPUs of these names; `slot` is the pool as one of them sees it."""

    def __init__(self, count: int, *gpus: str) -> None:
        cpus = (resources.Device(id=f"cpu.{number}", kind="cpu", name="CPU") for number in range(count))
        named = (resources.Device(id=f"gpu-{number}", kind="gpu", name=name) for number, name in enumerate(gpus))
        self.offer = resources.Offer(devices=(*cpus, *named))
        self.held_by: dict[str, int] = {}  #: slots, by the device that each of them holds

    def slot(self, number: int) -> "Slot":
        """Return the pool of a slot."""
        return Slot(self, number)

    def free(self, number: int) -> None:
        """Let go of what a slot holds."""
        self.held_by = {device: slot for device, slot in self.held_by.items() if slot != number}


class Slot:
    """A slot's pool."""

    def __init__(self, of: Devices, number: int) -> None:
        self.offer = of.offer
        self._of = of
        self._number = number

    def hold(self, demand: resources.Demand) -> tuple[resources.Device, ...]:
        """Take the slot's own device first, as many as are demanded, or none."""
        own = self.offer.devices[self._number]
        others = (device for device in self.offer.devices if device is not own and demand.fits(device))
        free = [one for one in (own, *others) if self._of.held_by.get(one.id, self._number) == self._number]
        self._of.free(self._number)
        if free[:1] != [own] or len(free) < demand.gpus or not demand.fits(own):
            return ()
        chosen = tuple(free[: demand.gpus])
        self._of.held_by |= {device.id: self._number for device in chosen}
        return chosen

    def serves(self, demand: resources.Demand) -> bool:
        """Whether the slot's own device is as demanded."""
        return demand.fits(self.offer.devices[self._number])
