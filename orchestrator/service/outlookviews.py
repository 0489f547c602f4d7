"""What `submit --dry-run --json` prints."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from orchestrator.core import memory
from orchestrator.service import jobfile, speeds, views


class SecondsPart(views.Part):
    """An interval of seconds."""

    low: float
    high: float


class FasterPart(views.Part):
    """Changes to the recipe, and how many times as fast it is with them."""

    changes: dict[str, Any]
    times: float
    measured: bool = Field(description="else reckoned, at the most")
    why: str


class OutlookPart(views.Part):
    """How long the training takes, by the nearest recipe that was measured."""

    epoch: SecondsPart
    total: SecondsPart
    counts: dict[str, int] | None = Field(
        description="pictures per split; null: nobody knows them yet, and an epoch stands for 1,000 pictures"
    )
    job: str | None = Field(description="that was measured; null: the table that orch brings along")
    host: str | None = Field(description="that was measured")
    differs: tuple[str, ...] = Field(description="in what the measured recipe is another")
    faster: tuple[FasterPart, ...]


class ResolvedPayload(views.Payload):
    """What a dry run found: the spec, where each of its values comes from, and what it would take."""

    spec: views.ShownSpec
    spec_hash: str
    origins: dict[str, str]
    memory: int = Field(description="bytes at the peak of a training on the CPU in fp32; of each of its processes")
    outlook: OutlookPart | None = Field(description="null: nothing was measured on such a device")
    notes: tuple[str, ...]


def resolved(resolved: jobfile.Resolved, foreseen: speeds.Foreseen | None, notes: Sequence[str]) -> ResolvedPayload:
    """Return the payload of a dry run."""
    spec = resolved.spec
    return ResolvedPayload(
        spec=spec,
        spec_hash=spec.digest(),
        origins=resolved.origins,
        memory=memory.peak(spec, mode=spec.memory),
        outlook=_outlook(foreseen) if foreseen else None,
        notes=tuple(notes),
    )


def _outlook(foreseen: speeds.Foreseen) -> OutlookPart:
    basis, counts = foreseen.rate.basis, foreseen.counts
    return OutlookPart(
        epoch=SecondsPart.model_validate(foreseen.plan.epoch),
        total=SecondsPart.model_validate(foreseen.plan.total),
        counts=dict(counts) if counts is not None else None,
        job=basis.job,
        host=basis.host,
        differs=foreseen.rate.differs,
        faster=tuple(FasterPart.model_validate(one) for one in foreseen.faster),
    )
