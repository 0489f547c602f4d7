"""What `--json` prints of bundles, and of what training them again has come to."""

from datetime import datetime
from pathlib import Path

from pydantic import Field

from orchestrator.core.reproduction import Outcome
from orchestrator.service import bundle as bundles
from orchestrator.service import reproduce, views


class BundledWeightsPart(views.Part):
    """The weights of a checkpoint."""

    roles: tuple[str, ...] = Field(description="best, last, or both")
    epoch: int
    step: int
    sha256: str = Field(description="of the weights alone, in the order of their names, as a safetensors file")
    included: bool = Field(description="whether that file is in the bundle")


class BundlePayload(views.Payload):
    """A bundle that was written."""

    path: Path
    bytes: int
    job: str
    made_at: datetime
    spec_hash: str
    data: str = Field(description="where its data came from; the pictures are not in the bundle")
    data_hash: str
    accuracy: float
    loss: float
    weights: tuple[BundledWeightsPart, ...]


class ResultPart(views.Part):
    """What a training came to."""

    weights: dict[str, str] = Field(description="sha256 by the role of the checkpoint: best, last")
    accuracy: float
    loss: float
    images: int


class ReproductionPayload(views.Payload):
    """A job next to the one in a bundle."""

    bundle: str = Field(description="id of the job in the bundle")
    job: str = Field(description="id of the job here")
    outcome: Outcome | None = Field(description="null with `--detach`")
    why: str | None = Field(description="why it was not run")
    first: ResultPart
    again: ResultPart | None
    tolerance: float | None = Field(description="largest difference of accuracies that counts as noise")
    epoch: int | None = Field(description="the first epoch whose training loss differs; null: all are equal")
    differences: tuple[str, ...] = Field(description="what differs here, each as `name: there, here`")


def bundle(made: bundles.Bundled) -> BundlePayload:
    """Return the payload of a bundle."""
    manifest = made.manifest
    return BundlePayload(
        path=made.path,
        bytes=made.bytes,
        job=manifest.job,
        made_at=manifest.made_at,
        spec_hash=manifest.spec_hash,
        data=manifest.data.source,
        data_hash=manifest.data.hash,
        accuracy=manifest.evaluation.accuracy,
        loss=manifest.evaluation.loss,
        weights=tuple(
            BundledWeightsPart(
                roles=one.roles, epoch=one.epoch, step=one.step, sha256=one.sha256, included=one.part is not None
            )
            for one in manifest.weights
        ),
    )


def begun(wanted: reproduce.Plan, job_id: str) -> ReproductionPayload:
    """Return the payload of a job that is queued, of which nothing is known yet."""
    nothing = dict.fromkeys(("outcome", "why", "again", "tolerance", "epoch"))
    first = ResultPart.model_validate(wanted.manifest.result)
    return ReproductionPayload(
        bundle=wanted.manifest.job, job=job_id, first=first, differences=wanted.differences, **nothing
    )


def verdict(said: reproduce.Verdict) -> ReproductionPayload:
    """Return the payload of a verdict."""
    return ReproductionPayload.model_validate(said)
