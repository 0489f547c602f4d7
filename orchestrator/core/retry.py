"""Whether a failed attempt is tried again, and after how long: a pure rule."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.core.states import Reason

#: Retries without progress in between, by reason; what is not listed is never tried again.
LIMITS: dict[Reason, int] = {
    Reason.LOST: 5,
    Reason.GPU_ERROR: 5,
    Reason.STALLED: 2,
    Reason.DISK_FULL: 2,
    Reason.UNREACHABLE: 5,
    Reason.OOM: 2,  # each in a leaner memory mode, as long as there is one
    Reason.INTERNAL: 1,
}

#: What trying again may change. A job says for these how often; every other fault would only come again.
REPEATABLE = frozenset({*LIMITS, Reason.DIVERGED})

#: Retries of one run in all, whatever progress it makes: an end to every loop.
ABSOLUTE_LIMIT = 50

FIRST_BACKOFF = timedelta(seconds=5)
LONGEST_BACKOFF = timedelta(minutes=10)

#: Doublings of the first that lead beyond the longest; forty more would be no time span any more.
_DOUBLINGS = 8


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of a job whose attempt failed. `delay` is None where it is not tried again."""

    delay: timedelta | None
    why: str

    @property
    def again(self) -> bool:
        """Whether the job goes back to the queue."""
        return self.delay is not None


def decide(
    *,
    reason: Reason,
    retries: int,
    total: int,
    limits: Mapping[Reason, int] | None = None,
    random_source: random.Random | None = None,
) -> Decision:
    """Decide on a failed attempt; `limits` are the job's own, which win.

    `retries` counts earlier retries since the last progress (a checkpoint beyond every earlier one), `total` all
    earlier retries of the run. Backoff is exponential with full jitter in its upper half; the first retry of a lost
    attempt has none, since the next worker is most likely fine.
    """
    limit = (LIMITS | dict(limits or {})).get(reason, 0)
    if limit == 0:
        return Decision(delay=None, why=f"{reason} is not retried")
    if total >= ABSOLUTE_LIMIT:
        return Decision(delay=None, why=f"{ABSOLUTE_LIMIT} retries in all are used up")
    if retries >= limit:
        return Decision(delay=None, why=f"{limit} retries without progress are used up")
    if reason is Reason.LOST and retries == 0:
        return Decision(delay=timedelta(0), why=f"retry 1 of {limit}")
    ceiling = min(FIRST_BACKOFF * 2 ** min(retries, _DOUBLINGS), LONGEST_BACKOFF)
    source = random_source or random.SystemRandom()
    return Decision(delay=ceiling * source.uniform(0.5, 1.0), why=f"retry {retries + 1} of {limit}")
