"""How long jobs will take, from what was measured: an interval, since nothing takes the same time twice."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.core.jobs import EpochMetric, Job
from orchestrator.core.states import Stage

#: Epochs, or stages of other jobs, that count: later ones say more than the first, which fills caches.
RECENT = 10

#: Own epochs of a job that say all; with fewer those of others count as well.
ENOUGH = 3

#: By what share a single measurement may be wrong, to either side; of several each has its part of that.
DOUBT = 0.2

#: The largest share of the slots that later jobs of others are reckoned to take.
MOST_TAKEN = 0.75

#: Nine of ten values of the standard normal distribution are below it.
QUANTILE = 1.28

#: What the pace of a training depends on, beside its network's shape and its device: fields of a spec.
PACE = (
    "image_size",
    "progressive_sizes",
    "progressive_until",
    "batch_size",
    "accumulate",
    "train",
    "gpus",
    "precision",
    "memory",
    "layout",
    "compile",
    "pipeline",
)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Seconds, at least and at most."""

    low: float
    high: float

    def __add__(self, other: "Interval") -> "Interval":
        """Return how long both take, one after the other."""
        return Interval(low=self.low + other.low, high=self.high + other.high)

    def __mul__(self, times: float) -> "Interval":
        """Return how long it takes so many times."""
        return Interval(low=self.low * times, high=self.high * times)

    def after(self, seconds: float) -> "Interval":
        """Return what is left of it after so many seconds."""
        return Interval(low=max(0.0, self.low - seconds), high=max(0.0, self.high - seconds))

    def at(self, share: float) -> float:
        """Return its shortest time and a share of its doubt."""
        return self.low + share * (self.high - self.low)

    def with_(self, other: "Interval") -> "Interval":
        """Return how long both take, side by side."""
        return Interval(low=max(self.low, other.low), high=max(self.high, other.high))


NOTHING = Interval(low=0, high=0)

#: How long a job works, and on how many devices.
Work = tuple[Interval, int]


def spread(seconds: Sequence[float]) -> Interval | None:
    """Return how long something takes that took so long before; the less often it was measured, the wider."""
    if not seconds:
        return None
    doubt = DOUBT / len(seconds)
    return Interval(low=min(seconds) * (1 - doubt), high=max(seconds) * (1 + doubt))


def epoch_seconds(epochs: Iterable[EpochMetric]) -> list[float]:
    """Return what the recent epochs took that were measured, both splits."""
    seconds: dict[int, float] = {}
    for metric in epochs:
        seconds[metric.epoch] = seconds.get(metric.epoch, 0.0) + metric.seconds
    return [seconds[epoch] for epoch in sorted(seconds)[-RECENT:]]


def an_epoch(epochs: Iterable[EpochMetric]) -> Interval | None:
    """Return how long an epoch takes, both splits, by the recent ones that were measured; None without any."""
    return spread(epoch_seconds(epochs))


def likeness(job: Job) -> tuple[object, ...]:
    """Return what two jobs have in common of which an epoch takes equally long on the same device."""
    return (job.spec.data, job.spec.shape, *(getattr(job.spec, name) for name in PACE))


def epochs_left(job: Job, closed: int) -> float:
    """Return how many epochs a job has still to train; `closed` of them are known to be done."""
    if job.stage is Stage.EVALUATE or job.final:
        return 0
    done, total = job.progress.done, job.progress.total
    share = done / total * job.spec.epochs if job.stage is Stage.TRAIN and total else 0.0
    return max(0.0, job.spec.epochs - max(share, closed))


def behind_others(seconds: float, *, rate: float, each: float) -> float:
    """Return when what would begin after some time does so behind all that others submit until then.

    `rate` is how many they submit in a second, as they did of late, `each` by how many seconds one of these delays it.
    Of such numbers nine of ten are less than `QUANTILE` times its square root above the mean, as chance has it (the
    normal approximation of a Poisson distribution). They take `MOST_TAKEN` of the slots' time, at most.
    """
    latest = seconds
    for _ in range(20):
        latest = seconds + each * (rate * latest + QUANTILE * math.sqrt(rate * latest))
        latest = min(latest, seconds / (1 - MOST_TAKEN))
    return latest


def begin(running: Sequence[Work], ahead: Sequence[Work], *, slots: int, wanted: int = 1) -> Interval | None:
    """Return when the job behind `ahead` has `wanted` devices, of `slots` that are busy with `running` now.

    Each job goes to the devices that are free first, all at once. None where there are not so many.
    """
    if slots < max(1, wanted):
        return None
    bounds = {}
    for bound in ("low", "high"):
        busy = sorted(getattr(time, bound) for time, devices in running for _ in range(devices))[-slots:]
        free = sorted([0.0] * (slots - len(busy)) + busy)
        for time, devices in ahead:
            together = min(devices, slots)
            free[:together] = [free[together - 1] + getattr(time, bound)] * together
            free.sort()
        bounds[bound] = free[wanted - 1]
    return Interval(**bounds)
