"""Time, as an argument: UTC for what is stored, monotonic seconds for what is measured."""

import time
from datetime import UTC, datetime
from typing import Protocol

#: When that is due which is to be done as soon as may be: by every clock, also one that is behind or was set back.
AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What time it is. Tests pass one that they move by hand."""

    def now(self) -> datetime:
        """Return the wall time in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the wall time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds of the monotonic clock."""
        return time.monotonic()
