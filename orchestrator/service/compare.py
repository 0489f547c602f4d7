"""Jobs beside each other: the settings in which they differ, and the best that each has reached."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator import errors
from orchestrator.core.jobs import EpochMetric, Job
from orchestrator.service import curves
from orchestrator.store.base import Store


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a job has reached."""

    job: Job
    label: str  #: what it is called beside the others
    epochs_ended: int
    best_accuracy: float | None  #: of the validation
    best_accuracy_epoch: int | None
    best_loss: float | None  #: of the validation, the lowest
    best_loss_epoch: int | None
    train_loss: float | None  #: of the last epoch
    seconds: float  #: of training and validation
    epoch_seconds: float | None  #: of an epoch, on average


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Jobs beside each other."""

    settings: dict[str, tuple[Any, ...]]  #: those that differ: one value for each job, in JSON's types
    results: tuple[Result, ...]
    same_data: bool  #: whether the figures are of the same pictures, as far as these are known


def compare(store: Store, jobs: Sequence[Job]) -> Comparison:
    """Return the comparison of two jobs or more; raises UsageError for fewer."""
    if len(jobs) < 2:  # noqa: PLR2004 - a comparison
        raise errors.UsageError(
            "One job alone cannot be compared.", hint="Name two jobs or more; `orch status JOB` shows one."
        )
    labels = curves.labels(jobs)
    return Comparison(
        settings=differing(jobs),
        results=tuple(_result(job, labels[job.id], store.epochs(job.id)) for job in jobs),
        same_data=len({job.data_hash for job in jobs if job.data_hash}) < 2,  # noqa: PLR2004 - more than one
    )


def differing(jobs: Sequence[Job]) -> dict[str, tuple[Any, ...]]:
    """Return the settings in which the jobs differ, with the value of each job."""
    kept = [job.spec.masked().model_dump(mode="json") for job in jobs]
    values = {name: tuple(spec[name] for spec in kept) for name in kept[0]}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def _result(job: Job, label: str, epochs: Sequence[EpochMetric]) -> Result:
    accurate = _best(epochs, lambda row: -row.accuracy)
    lowest = _best(epochs, lambda row: row.loss)
    closed = len({row.epoch for row in epochs if row.split == "val"})
    seconds = sum(row.seconds for row in epochs)
    return Result(
        job=job,
        label=label,
        epochs_ended=closed,
        best_accuracy=accurate.accuracy if accurate else None,
        best_accuracy_epoch=accurate.epoch if accurate else None,
        best_loss=lowest.loss if lowest else None,
        best_loss_epoch=lowest.epoch if lowest else None,
        train_loss=next((row.loss for row in reversed(epochs) if row.split == "train"), None),
        seconds=seconds,
        epoch_seconds=seconds / closed if closed else None,
    )


def _best(epochs: Sequence[EpochMetric], key: Callable[[EpochMetric], float]) -> EpochMetric | None:
    """Return the first epoch of the validation with the smallest key."""
    return min((row for row in epochs if row.split == "val"), key=key, default=None)
