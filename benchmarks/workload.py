"""Jobs as three people might submit them, and how long each stage of them takes: the same ones for the same seed."""

import random
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.core import specs, states

#: Share of the jobs that each submits: ada in sweeps of twenty, the others now and then.
USERS = {"ada": 0.5, "bob": 0.35, "cyd": 0.15}
SWEEP = 20

PRIORITIES = (-1, 0, 0, 0, 0, 1, 5)

#: Seconds between two submissions, on average: a little less work than the devices can do.
BETWEEN = 62.0

#: Trainings of this tag are `WIDE_AT_ONCE` at most at once.
WIDE = "wide"
WIDE_AT_ONCE = 3

AFTER, BAD, LOST = 0.15, 0.05, 0.05  # shares: waits for an earlier job, fails for good, loses its worker once

#: How much two epochs of one job differ: the standard deviation of the logarithm.
NOISE = 0.05


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Jobs of one size."""

    share: float
    image_size: int
    epoch: float  #: seconds
    tags: tuple[str, ...] = ()


KINDS = (
    Kind(share=0.5, image_size=32, epoch=30),
    Kind(share=0.35, image_size=64, epoch=90),
    Kind(share=0.15, image_size=96, epoch=240, tags=(WIDE,)),
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job that will be submitted, and what will become of it."""

    number: int
    at: float  #: seconds from the beginning
    user: str
    priority: int
    tags: tuple[str, ...]
    spec: specs.JobSpec
    after: int | None  #: number of the job whose success it waits for
    download: float  #: seconds
    epochs: tuple[float, ...]  #: seconds of each
    evaluate: float  #: seconds
    fails: states.Reason | None  #: bad_input: at its first stage, for good; lost: in its first training, once

    def seconds(self, stage: states.Stage) -> float:
        """Return how long a stage takes that nothing befalls."""
        whole = {states.Stage.DOWNLOAD: self.download, states.Stage.EVALUATE: self.evaluate}
        return whole.get(stage, sum(self.epochs))


@dataclass(frozen=True, kw_only=True)
class _Arrival:
    """A job, or each of a sweep: all of a sweep are of one kind and priority."""

    at: float
    user: str
    kind: Kind
    priority: int


def plans(count: int, *, seed: int) -> list[Plan]:
    """Return so many jobs in the order of their submission."""
    source = random.Random(seed)  # noqa: S311 - no secret
    return [_plan(source, number, arrival) for number, arrival in enumerate(_arrivals(source, count))]


def _arrivals(source: random.Random, count: int) -> list[_Arrival]:
    found: list[_Arrival] = []
    for user, share in USERS.items():
        together = SWEEP if user == "ada" else 1
        at, wanted = 0.0, round(count * share)
        while wanted > 0:
            (kind,) = source.choices(KINDS, [kind.share for kind in KINDS])
            one = _Arrival(at=at, user=user, kind=kind, priority=source.choice(PRIORITIES))
            found += [one] * min(together, wanted)
            at += source.expovariate(share / BETWEEN / together)
            wanted -= together
    return sorted(found, key=lambda one: one.at)


def _plan(source: random.Random, number: int, arrival: _Arrival) -> Plan:
    kind, epochs, fate = arrival.kind, source.randint(2, 6), source.random()
    return Plan(
        number=number,
        at=arrival.at,
        user=arrival.user,
        priority=arrival.priority,
        tags=kind.tags,
        spec=specs.parse({"data": "digits", "epochs": epochs, "image_size": kind.image_size}),
        after=source.randrange(max(0, number - 30), number) if number and source.random() < AFTER else None,
        download=source.uniform(20, 40),
        epochs=tuple(kind.epoch * source.lognormvariate(0, NOISE) for _ in range(epochs)),
        evaluate=0.2 * kind.epoch * source.lognormvariate(0, NOISE),
        fails=states.Reason.BAD_INPUT if fate < BAD else states.Reason.LOST if fate < BAD + LOST else None,
    )


def moment(seconds: float) -> timedelta:
    """Return a time of the plans; of whole milliseconds, so that every database keeps it as it is."""
    return timedelta(milliseconds=round(1000 * seconds))
