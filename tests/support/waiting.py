"""Waiting for a condition, with a deadline: the only way in which a test waits."""

import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from orchestrator import errors

T = TypeVar("T")

#: Of what was waited already: the pause until the next look. A look often asks a database, and others need the cores.
_SHARE = 0.05
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.01, 0.1

#: Does what it is called with, again where a database does not answer in time: on a busy machine that is no finding.
patiently = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(errors.DatabaseUnavailable),
    stop=tenacity.stop_after_delay(60),
    wait=tenacity.wait_fixed(1),
    reraise=True,
)


def until(condition: Callable[[], T | None], *, seconds: float = 120, every: float | None = None) -> T:
    """Return the first true value of `condition`, looked at ever less often; fails if there is none in `seconds`."""
    began = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds} s: {condition}"
        time.sleep(every or min(max(waited * _SHARE, _SHORTEST_SECONDS), _LONGEST_SECONDS))
