"""Validation pictures of a job with what its best checkpoint makes of them."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from orchestrator import config, errors
from orchestrator.service import drafts, trained
from orchestrator.service.doing import Doing
from orchestrator.store.base import Store


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture and what the network makes of it."""

    image: str
    true: str
    predicted: str
    probability: float  #: of the predicted class
    true_probability: float


def samples(
    settings: config.Settings, store: Store, text: str, *, which: str, count: int, output: Path | None
) -> Iterator[Doing | Sample]:
    """Yield how far the looking is, then the pictures that are chosen; draws their sheet to `output`, whole or not.

    Raises:
        NotFound: no such job, or a job without a checkpoint on this host.
        OrchError: its data is not here, torch is missing, the sheet cannot be written, or the process failed.

    """
    job = store.find(text)
    found = []
    with drafts.drafts(output) if output else nullcontext((None,)) as (draft,):
        wanted = {
            "data_hash": job.data_hash or "",
            "which": which,
            "count": count,
            "sheet": str(draft) if draft else None,
            "threads": settings.threads or len(os.sched_getaffinity(0)),
        }
        for answer in trained.ask(settings, store, job, "worker.training.samples", wanted):
            if "progress" in answer:
                yield Doing(**answer["progress"])
            else:
                found.append(Sample(**answer))
        if not found:
            raise errors.OrchError("The process that looks at the pictures said nothing.")
    yield from found
