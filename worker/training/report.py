"""Between the work and whoever follows it: progress at its own pace, and the wish to stop."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from pydantic import BaseModel

from worker import protocol

#: Seconds between two messages of a kind.
PROGRESS_EVERY = 0.5
STEPS_EVERY = 1.0

#: Seconds between two signs of life of what tells nothing by itself, and how many it gives.
_SIGN_EVERY = 20.0
_SIGNS = 180

_Item = TypeVar("_Item")


class Stopped(Exception):
    """Raised out of the loops when the work is to end here."""


class StopFlag(Protocol):
    """The part of `threading.Event` that a loop asks."""

    def is_set(self) -> bool:
        """Whether to stop at the next step."""
        ...


class Link(Protocol):
    """The part of `worker.stage.Link` that the engine needs: it also runs without a supervisor."""

    @property
    def stop_requested(self) -> StopFlag:
        """Set when the work is to end at its next step."""
        ...

    def send(self, message: BaseModel) -> None:
        """Tell whoever follows the work."""
        ...


class Agreed:
    """A link whose wish to stop all ranks hear at the same look; who does not lead has none, and says nothing."""

    def __init__(self, link: Link | None, agreed: Callable[[bool], bool]) -> None:
        self._link = link
        self._agreed = agreed

    @property
    def stop_requested(self) -> "Agreed":
        """Asks the ranks at each look."""
        return self

    def is_set(self) -> bool:
        """Whether to stop at the next step."""
        return self._agreed(self._link is not None and self._link.stop_requested.is_set())

    def send(self, message: BaseModel) -> None:
        """Tell whoever follows the work."""
        if self._link is not None:
            self._link.send(message)


class Pace:
    """True at first, then once every `seconds`."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last: float | None = None

    def due(self) -> bool:
        """Whether it is time again; if so, the next time counts from now."""
        now = self._clock()
        if self._last is not None and now - self._last < self._seconds:
            return False
        self._last = now
        return True


class Meter:
    """Sends `Progress` at its pace, with the pictures a second since the message before."""

    def __init__(self, link: Link, *, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._unit = unit
        self._clock = clock
        self._pace = Pace(PROGRESS_EVERY, clock)
        self._signs = Pace(_SIGN_EVERY, clock)
        self._images = 0
        self._since = clock()
        self._rate: float | None = None  #: as it was told last

    def advance(self, images: int, *, done: int, total: int, epoch: int = 1, epochs: int = 1) -> None:
        """Count pictures, and say how far things are if it is time."""
        self._images += images
        if self._pace.due():
            self.tell(done=done, total=total, epoch=epoch, epochs=epochs)

    def tell(self, *, done: int, total: int, epoch: int = 1, epochs: int = 1) -> None:
        """Say how far things are, now."""
        now = self._clock()
        elapsed = now - self._since
        self._rate = self._images / elapsed if self._images and elapsed > 0 else None
        self._send(done=done, total=total, epoch=epoch, epochs=epochs)
        self._images, self._since = 0, now

    def remind(self, *, done: int, total: int, epoch: int = 1, epochs: int = 1) -> None:
        """Say again how far things are, now and then, while something takes long."""
        if self._signs.due():
            self._send(done=done, total=total, epoch=epoch, epochs=epochs)

    def _send(self, *, done: int, total: int, epoch: int, epochs: int) -> None:
        self._link.send(
            protocol.Progress(done=done, total=total, unit=self._unit, epoch=epoch, epochs=epochs, rate=self._rate)
        )


@contextmanager
def alive(link: Link, progress: protocol.Progress) -> Iterator[None]:
    """Say again and again how far things are while something takes long, as long as nobody would call it hung."""
    over = threading.Event()

    def tell() -> None:
        for _ in range(_SIGNS):
            if over.wait(_SIGN_EVERY):
                return
            link.send(progress)

    telling = threading.Thread(target=tell, name="alive", daemon=True)
    telling.start()
    try:
        yield
    finally:
        over.set()
        telling.join()


def unless_stopped(items: Iterable[_Item], link: Link, *, looks: int = 0) -> Iterator[_Item]:
    """Pass `items` on; raise `Stopped` before the first or behind any of them, as soon as a stop is wished.

    It looks at least so often behind items: of several ranks each has to look as often as the others.
    """
    raise_if_stopped(link)
    looked = 0
    for item in items:
        yield item
        raise_if_stopped(link)
        looked += 1
    for _ in range(looks - looked):
        raise_if_stopped(link)


def raise_if_stopped(link: Link) -> None:
    """Raise `Stopped` if a stop is wished."""
    if link.stop_requested.is_set():
        raise Stopped
