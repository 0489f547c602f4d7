"""Jobs as three people might submit them, and how long each stage of them takes: the same ones for the same seed."""

import random
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.core import resources, specs, states

#: Share of the jobs that each submits: ada in sweeps of twenty, the others now and then.
USERS = {"ada": 0.5, "bob": 0.35, "cyd": 0.15}
SWEEP = 20

PRIORITIES = (-1, 0, 0, 0, 0, 1, 5)

#: Seconds between two submissions, on average: a little less work than the devices can do.
BETWEEN = 62.0

AFTER, BAD, LOST = 0.15, 0.05, 0.05  # shares: waits for an earlier job, fails for good, loses its worker once

#: Share of the jobs of each user, ada's by the sweep, that may be preempted: they have the lowest priority.
PREEMPTIBLE = 0.3

A100, RTX, CPU = "NVIDIA A100", "NVIDIA RTX 4090", "CPU"

#: How long an epoch takes on a device, of what it takes on the second one.
SLOWNESS = {A100: 0.6, RTX: 1.0, CPU: 2.5}

#: How much two epochs of one job differ: the standard deviation of the logarithm.
NOISE = 0.05


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Jobs of one size."""

    share: float
    image_size: int
    epoch: float  #: seconds, where `SLOWNESS` is 1
    demand: resources.Demand = resources.ANY


KINDS = (
    Kind(share=0.5, image_size=32, epoch=30),
    Kind(share=0.35, image_size=64, epoch=90, demand=resources.parse(device="gpu")),
    Kind(share=0.15, image_size=96, epoch=240, demand=resources.parse(gpu_memory="40GB")),
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job that will be submitted, and what will become of it."""

    number: int
    at: float  #: seconds from the beginning
    user: str
    priority: int
    demand: resources.Demand
    spec: specs.JobSpec
    after: int | None  #: number of the job whose success it waits for
    download: float  #: seconds
    epochs: tuple[float, ...]  #: seconds of each, where `SLOWNESS` is 1
    evaluate: float  #: seconds, the same
    fails: states.Reason | None  #: bad_input: at its first stage, for good; lost: in its first training, once

    def seconds(self, stage: states.Stage, device: str, *, done: float = 0.0) -> float:
        """Return how long a stage takes on a device that nothing befalls; of the training so much is done."""
        if stage is states.Stage.DOWNLOAD:
            return self.download
        whole = self.evaluate if stage is states.Stage.EVALUATE else sum(self.epochs) - done
        return whole * SLOWNESS[device]


@dataclass(frozen=True, kw_only=True)
class _Arrival:
    """A job, or each of a sweep: all of a sweep are of one kind and priority."""

    at: float
    user: str
    kind: Kind
    priority: int
    preemptible: bool


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
            preemptible = source.random() < PREEMPTIBLE
            priority = min(PRIORITIES) if preemptible else source.choice(PRIORITIES)
            one = _Arrival(at=at, user=user, kind=kind, priority=priority, preemptible=preemptible)
            found += [one] * min(together, wanted)
            at += source.expovariate(share / BETWEEN / together)
            wanted -= together
    return sorted(found, key=lambda one: one.at)


def _plan(source: random.Random, number: int, arrival: _Arrival) -> Plan:
    kind, epochs, fate = arrival.kind, source.randint(2, 6), source.random()
    fields = {"data": "digits", "epochs": epochs, "image_size": kind.image_size, "preemptible": arrival.preemptible}
    return Plan(
        number=number,
        at=arrival.at,
        user=arrival.user,
        priority=arrival.priority,
        demand=kind.demand,
        spec=specs.parse(fields),
        after=source.randrange(max(0, number - 30), number) if number and source.random() < AFTER else None,
        download=source.uniform(20, 40),
        epochs=tuple(kind.epoch * source.lognormvariate(0, NOISE) for _ in range(epochs)),
        evaluate=0.2 * kind.epoch * source.lognormvariate(0, NOISE),
        fails=states.Reason.BAD_INPUT if fate < BAD else states.Reason.LOST if fate < BAD + LOST else None,
    )


def moment(seconds: float) -> timedelta:
    """Return a time of the plans; of whole milliseconds, so that every database keeps it as it is."""
    return timedelta(milliseconds=round(1000 * seconds))
