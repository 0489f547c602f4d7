"""Curves of a training: which quantities there are, against what they are drawn, smoothed and thinned."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.core.jobs import EpochMetric, Job, StepMetric
from orchestrator.core.states import Stage

Point = tuple[float, float]


class Metric(StrEnum):
    """What is drawn."""

    LOSS = "loss"  #: training loss of each step
    TRAIN_LOSS = "train_loss"  #: the others of each epoch
    VAL_LOSS = "val_loss"
    TRAIN_ACCURACY = "train_accuracy"
    VAL_ACCURACY = "val_accuracy"
    LR = "lr"

    @property
    def quantity(self) -> str:
        """What it measures: metrics of one quantity share a picture."""
        return {"loss": "loss", "accuracy": "accuracy", "lr": "learning rate"}[self.rpartition("_")[2]]


class Axis(StrEnum):
    """Against what it is drawn."""

    STEP = "step"  #: optimizer steps
    EPOCH = "epoch"  #: epochs, a step being its share of one
    TIME = "time"  #: seconds of training and validation, without waiting and what was done twice


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One metric of one job."""

    job: str
    metric: Metric
    points: tuple[Point, ...]


def curve(job: Job, metric: Metric, axis: Axis, *, epochs: Sequence[EpochMetric], steps: Sequence[StepMetric]) -> Curve:
    """Return the curve of a job; points whose place on the axis is not known yet are left out."""
    ruler = _Ruler(job, epochs)
    if metric is Metric.LOSS:
        placed = [(ruler.at(step.step, axis), step.value) for step in steps]
    else:
        placed = [(ruler.end(row, axis), value) for row, value in _of_epochs(metric, epochs)]
    return Curve(job=job.id, metric=metric, points=tuple((x, y) for x, y in placed if x is not None))


def _of_epochs(metric: Metric, epochs: Sequence[EpochMetric]) -> list[tuple[EpochMetric, float]]:
    split, _, name = metric.rpartition("_")
    rows = [row for row in epochs if row.split == (split or "train")]
    return [(row, getattr(row, name)) for row in rows if getattr(row, name) is not None]


class _Ruler:
    """Where the steps and epochs of a job lie on an axis."""

    def __init__(self, job: Job, epochs: Sequence[EpochMetric]) -> None:
        self._seconds = list(itertools.accumulate((row.seconds for row in epochs), initial=0.0))
        self._place = {(row.epoch, row.split): number for number, row in enumerate(epochs, 1)}
        self._training = {row.epoch: row.seconds for row in epochs if row.split == "train"}
        self._per_epoch = _steps_per_epoch(job, epochs)

    def end(self, row: EpochMetric, axis: Axis) -> float | None:
        """Return where the split of an epoch ends."""
        match axis:
            case Axis.STEP:
                return row.step
            case Axis.EPOCH:
                return row.epoch
            case Axis.TIME:
                return self._seconds[self._place[row.epoch, row.split]]

    def at(self, step: int, axis: Axis) -> float | None:
        """Return where a step ends: in the time of its epoch as if its steps were equally long."""
        if axis is Axis.STEP:
            return step
        if self._per_epoch is None:
            return None
        if axis is Axis.EPOCH:
            return step / self._per_epoch
        if not self._training:
            return None
        before = int((step - 1) // self._per_epoch)
        known = min(before + 1, max(self._training))  # an epoch in work goes as fast as the one before it
        done = (step - before * self._per_epoch) / self._per_epoch
        return self._begins(before + 1) + done * self._training[known]

    def _begins(self, epoch: int) -> float:
        place = self._place.get((epoch, "train"))
        return self._seconds[-1] if place is None else self._seconds[place - 1]


def _steps_per_epoch(job: Job, epochs: Sequence[EpochMetric]) -> float | None:
    known = next((row.step / row.epoch for row in epochs if row.step is not None), None)
    progress = job.progress
    if known is None and job.stage is Stage.TRAIN and progress.unit == "steps" and progress.total and progress.epochs:
        return progress.total / progress.epochs
    return known


def smoothed(curve: Curve, weight: float) -> Curve:
    """Return the curve as a running average in which the past weighs `weight`, from 0 (as it is) to below 1.

    The average is corrected for beginning at nothing, as Adam's are (https://arxiv.org/abs/1412.6980, section 3).
    """
    if not weight:
        return curve
    mean, points = 0.0, []
    for number, (x, y) in enumerate(curve.points, 1):
        mean = weight * mean + (1 - weight) * y
        points.append((x, mean / (1 - weight**number)))
    return replace(curve, points=tuple(points))


def thinned(points: Sequence[Point], most: int) -> tuple[Point, ...]:
    """Return at most so many points: the means of neighbours, each at the place of its last one."""
    size = max(1, math.ceil(len(points) / most))
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple((chunk[-1][0], sum(y for _, y in chunk) / len(chunk)) for chunk in chunks)
