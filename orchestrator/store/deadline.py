"""How long a thread's transaction may still take."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_thread = threading.local()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bound what this thread does inside by `seconds`, and by any bound around it."""
    outer = _until()
    _thread.until = min(outer, time.monotonic() + seconds)
    try:
        yield
    finally:
        _thread.until = outer


def has_passed() -> bool:
    """Whether this thread's time is over; never outside of `within`."""
    return time.monotonic() >= _until()


def _until() -> float:
    return float(getattr(_thread, "until", math.inf))
