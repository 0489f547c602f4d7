"""One process of a host brings a thing here, the others wait for it; all of them tell how far it is."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
from pydantic import ValidationError

from orchestrator import failpoints
from worker import protocol

Report = Callable[[protocol.Progress], None]

_REPORT_EVERY = 0.5  # seconds


class Reporter:
    """Passes progress on, about twice a second, and leaves it where waiting processes look."""

    def __init__(self, report: Report, file: Path) -> None:
        self._report = report
        self._file = file
        self._unit = ""
        self._first = (0.0, 0)
        self._next = 0.0
        self._said = -1  #: of this part of the work

    def __call__(self, done: int, total: int | None, unit: str) -> None:
        """Say how far things are, if it is time or the end."""
        now = time.monotonic()
        if unit != self._unit or done < self._said:  # another part of the work begins
            self._unit, self._first, self._next, self._said = unit, (now, done), now, -1
        if now < self._next and (done != total or done == self._said):
            return
        self._next, self._said = now + _REPORT_EVERY, done
        began, before = self._first
        rate = (done - before) / (now - began) if now > began else None
        progress = protocol.Progress(done=done, total=total, unit=unit, rate=rate)
        failpoints.reach("cache.progress")
        self._file.write_bytes(progress.model_dump_json().encode())
        self._report(progress)


@contextlib.contextmanager
def held(lock: filelock.BaseFileLock, progress: Path, report: Report) -> Iterator[None]:
    """Hold the lock; until it is free, report the holder's progress as one's own, when there is any.

    Whoever comes behind a holder that died removes its progress: nobody is as far any more.
    """
    seen = b""
    while True:
        try:
            with lock.acquire(timeout=_REPORT_EVERY, poll_interval=0.02):
                progress.unlink(missing_ok=True)
                yield
                return
        except filelock.Timeout:
            with contextlib.suppress(OSError, ValidationError):
                failpoints.reach("cache.wait")
                now = progress.read_bytes()
                if now != seen:
                    report(protocol.Progress.model_validate_json(now))
                    seen = now
