"""What `submit --dry-run --json` prints."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from orchestrator.core import memory
from orchestrator.service import jobfile, queueviews, speeds, views
from orchestrator.service.rehearsal import Rehearsal


class FasterPart(views.Part):
    """Changes to the recipe, and how many times as fast it is with them."""

    changes: dict[str, Any]
    times: float
    measured: bool = Field(description="else estimated: up to so many times")
    why: str


class OutlookPart(views.Part):
    """How long the training takes, by the nearest recipe that was measured."""

    epoch: queueviews.IntervalPart
    total: queueviews.IntervalPart
    counts: dict[str, int] | None = Field(
        description="pictures per split; null: nobody knows them yet, and an epoch stands for 1,000 pictures"
    )
    job: str | None = Field(description="that was measured; null: the table that orch brings along")
    host: str | None = Field(description="that was measured")
    differs: tuple[str, ...] = Field(description="fields in which the measured job differs")
    faster: tuple[FasterPart, ...]


class ResolvedPayload(views.Payload):
    """What a dry run found: the spec, where each of its values comes from, and what it would take."""

    spec: views.ShownSpec
    spec_hash: str
    origins: dict[str, str]
    memory: int = Field(
        description="bytes at the peak of a training on the CPU, of each of its processes; auto counts as fp32"
    )
    outlook: OutlookPart | None = Field(description="null: nothing was measured on such a device")
    place: queueviews.StandingPart | None = Field(
        description="how it would stand if it were submitted now; null: there is no database yet, or it is away"
    )
    same: str | None = Field(description="id of the job that has this result already: nothing would be queued")
    notes: tuple[str, ...]


def resolved(resolved: jobfile.Resolved, rehearsed: Rehearsal, notes: Sequence[str]) -> ResolvedPayload:
    """Return the payload of a dry run."""
    spec, foreseen = resolved.spec, rehearsed.foreseen
    return ResolvedPayload(
        spec=spec,
        spec_hash=spec.digest(),
        origins=resolved.origins,
        memory=memory.peak(spec, mode=spec.memory),
        outlook=_outlook(foreseen) if foreseen else None,
        place=queueviews.standing(rehearsed.answer) if rehearsed.answer else None,
        same=rehearsed.same.id if rehearsed.same else None,
        notes=tuple(notes),
    )


def _outlook(foreseen: speeds.Foreseen) -> OutlookPart:
    basis, counts = foreseen.rate.basis, foreseen.counts
    return OutlookPart(
        epoch=queueviews.IntervalPart.model_validate(foreseen.plan.epoch),
        total=queueviews.IntervalPart.model_validate(foreseen.plan.total),
        counts=dict(counts) if counts is not None else None,
        job=basis.job,
        host=basis.host,
        differs=foreseen.rate.differs,
        faster=tuple(FasterPart.model_validate(one) for one in foreseen.faster),
    )
