"""How fast a recipe will train here: by the epochs of earlier jobs, else by a table that orch brings along."""

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core import forecast, priors, speed
from orchestrator.core.jobs import Attempt, EpochMetric, Job, Worker
from orchestrator.core.provenance import Environment
from orchestrator.core.specs import JobSpec
from orchestrator.service import advice
from orchestrator.service.experience import Experience

#: Earlier jobs, the nearest first, whose epochs are read.
READ = 8

#: Of one recipe so many: later ones say nothing new.
_OF_EACH = 2

#: Pictures that stand for an epoch whose number nobody knows yet.
UNKNOWN = {"train": 1000, "val": 0}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a recipe is to run."""

    on_cpu: bool
    hosts: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """How long a training takes, and what would make it faster."""

    rate: speed.Speed
    plan: speed.Plan
    counts: Mapping[str, int] | None  #: pictures of each split; None: the plan's epochs are of `UNKNOWN`
    faster: tuple[speed.Faster, ...]


def place(workers: Sequence[Worker]) -> Place:
    """Return where jobs run: on the workers, else on this host."""
    hosts = frozenset(worker.identity.host for worker in workers) or frozenset({socket.gethostname()})
    return Place(on_cpu=advice.on_cpu(workers), hosts=hosts)


def foresee(
    spec: JobSpec, experience: Experience | None, where: Place, *, counts: Mapping[str, int] | None = None
) -> Foreseen | None:
    """Return how long a recipe takes; None where nothing like it was measured on such a device.

    Without `experience` there is the table alone; `counts` are the pictures, where they are known already.
    """
    seen = [*(measured(spec, experience, where) if experience else ()), *(priors.TABLE if where.on_cpu else ())]
    found = speed.nearest(spec, seen)
    if found is None:
        return None
    if counts is None and experience is not None:
        counts = experience.counts(spec.data)
    return Foreseen(
        rate=found,
        plan=speed.plan(spec, found, counts or UNKNOWN),
        counts=counts,
        faster=tuple(speed.faster(spec, seen, found.basis)),
    )


def measured(spec: JobSpec, experience: Experience, where: Place) -> Iterator[speed.Measured]:
    """Yield what the earlier jobs took that are most like a recipe, the nearest first."""
    for job in _nearest(spec, experience.jobs()):
        attempt = next((one for one in reversed(experience.attempts(job.id)) if one.environment is not None), None)
        if attempt is None or attempt.environment is None or (attempt.environment.device == "cpu") != where.on_cpu:
            continue
        one = _measured(job, attempt, attempt.environment, experience.epochs(job.id), here=attempt.host in where.hosts)
        if one is not None:
            yield one


def _nearest(spec: JobSpec, known: Iterable[Job]) -> list[Job]:
    fields = [name for name in forecast.PACE if name in speed.DOUBTS]
    groups: dict[object, list[Job]] = {}
    for job in known:
        if job.spec.train != "head":  # whose epochs are of features
            groups.setdefault((job.spec.shape, *(getattr(job.spec, name) for name in fields)), []).append(job)
    found = [job for alike in groups.values() for job in alike[:_OF_EACH]]

    def otherwise(job: Job) -> float:
        differs = [name for name in fields if getattr(job.spec, name) != getattr(spec, name)]
        return speed.doubt([*differs, *(["network"] if job.spec.shape != spec.shape else [])])

    return sorted(found, key=otherwise)[:READ]


def _measured(
    job: Job, attempt: Attempt, environment: Environment, rows: Sequence[EpochMetric], *, here: bool
) -> speed.Measured | None:
    """Return what the epochs of the whole recipe took; None where there is none yet."""
    spec = job.spec
    own = [row for row in rows if row.attempt == attempt.attempt and row.images and row.seconds]
    whole = [
        row
        for row in own
        if spec.train_size(row.epoch - 1) == spec.image_size and spec.learning(row.epoch - 1) == spec.train
    ]
    train = [row for row in whole if row.split == "train"][-forecast.RECENT :]
    if not train:
        return None
    waits = [row.usage.waiting for row in train if row.usage is not None]
    return speed.Measured(
        spec=spec,
        layout=environment.layout,
        precision=environment.precision,
        compiled=environment.compiled,
        train=tuple(row.seconds / row.images for row in train),
        val=tuple(row.seconds / row.images for row in whole if row.split == "val")[-forecast.RECENT :],
        waiting=sum(waits) / len(waits) if waits else 0.0,
        job=job.id,
        host=attempt.host,
        here=here,
    )
