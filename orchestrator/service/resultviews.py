"""What `--json` prints of results that are looked at: comparisons, curves, confusion matrices."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from orchestrator.core.curves import Axis, Metric
from orchestrator.core.states import JobState
from orchestrator.service import views
from orchestrator.service.compare import Comparison
from orchestrator.service.confusion import Confusion
from orchestrator.service.curves import Panel


class ComparedPart(views.Part):
    """What one of the compared jobs has reached."""

    id: str
    name: str | None
    state: JobState
    epochs_ended: int
    best_accuracy: float | None = Field(description="of the validation")
    best_accuracy_epoch: int | None
    best_loss: float | None = Field(description="of the validation, the lowest")
    best_loss_epoch: int | None
    train_loss: float | None = Field(description="of the last epoch")
    seconds: float = Field(description="of training and validation")
    epoch_seconds: float | None = Field(description="of an epoch, on average")


class ComparisonPayload(views.Payload):
    """Jobs beside each other."""

    jobs: tuple[ComparedPart, ...]
    settings: dict[str, tuple[Any, ...]] = Field(description="those that differ: a value for each job, in order")
    same_data: bool = Field(description="whether the figures are of the same pictures, as far as these are known")


class CurvePart(views.Part):
    """One metric of one job."""

    job: str
    label: str
    metric: Metric
    points: tuple[tuple[float, float], ...] = Field(description="pairs of x and y")


class CurvesPayload(views.Payload):
    """Curves, in the order in which they are drawn."""

    x: Axis | None
    curves: tuple[CurvePart, ...]


class ClassPart(views.Part):
    """How well one class is told from the others."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int = Field(description="its pictures")


class ConfusionPayload(views.Payload):
    """The validation split as a job's checkpoint sees it: the best one of when the job last ended."""

    job: str
    checkpoint_step: int
    of_best: bool = Field(description="no better checkpoint was found since")
    accuracy: float
    loss: float
    images: int
    classes: tuple[ClassPart, ...]
    average: ClassPart = Field(description="of the classes, each counting once")
    confusion: tuple[tuple[int, ...], ...] = Field(description="rows: truth, columns: prediction")


class SamplePayload(views.Payload):
    """A validation picture and what the network makes of it."""

    image: str
    true: str
    predicted: str
    probability: float = Field(description="of the predicted class")
    true_probability: float


def comparison(found: Comparison) -> ComparisonPayload:
    """Return the payload of a comparison."""
    own = ("id", "name", "state")
    return ComparisonPayload(
        jobs=tuple(
            ComparedPart(
                **{name: getattr(one.job, name) for name in own},
                **{name: getattr(one, name) for name in ComparedPart.model_fields if name not in own},
            )
            for one in found.results
        ),
        settings=found.settings,
        same_data=found.same_data,
    )


def curves(panels: Sequence[Panel]) -> CurvesPayload:
    """Return the payload of curves."""
    return CurvesPayload(
        x=panels[0].axis if panels else None,
        curves=tuple(
            CurvePart(job=line.curve.job, label=line.label, metric=line.curve.metric, points=line.curve.points)
            for panel in panels
            for line in panel.lines
        ),
    )


def confusion(found: Confusion) -> ConfusionPayload:
    """Return the payload of a confusion matrix."""
    evaluation = found.evaluation
    return ConfusionPayload(
        job=found.job.id,
        checkpoint_step=evaluation.checkpoint_step,
        of_best=found.of_best,
        accuracy=evaluation.accuracy,
        loss=evaluation.loss,
        images=evaluation.images,
        classes=tuple(ClassPart.model_validate(score) for score in found.scores),
        average=ClassPart.model_validate(found.average),
        confusion=evaluation.confusion,
    )
