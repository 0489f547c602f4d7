"""A trained network measured on any data set, apart from its job: nothing is stored."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator import config
from orchestrator.core import masking
from orchestrator.core.jobs import Evaluation, Job, Split
from orchestrator.service import jobfile, trained
from orchestrator.service.doing import Doing
from orchestrator.store.base import Store


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the best checkpoint of a job does on a split of a data set."""

    job: str
    data: str  #: as it may be shown
    data_hash: str
    split: Split
    evaluation: Evaluation


def evaluate(
    settings: config.Settings, store: Store, text: str, *, data: str | None, sha256: str | None, split: Split
) -> Iterator[Doing | Measured]:
    """Yield how far the measuring is, and last the result; `data` None: the job's own, as it was.

    Raises:
        NotFound: no such job, or a job without a checkpoint on this host.
        InvalidSpec: `data` names no data set.
        OrchError: it cannot be had, its classes are others, torch is missing, or the process failed.

    """
    job = store.find(text)
    wanted = {
        "data": job.spec.data if data is None else jobfile.data_source(data),
        "data_sha256": job.spec.data_sha256 if data is None else sha256,
        "data_hash": job.data_hash if data is None else None,
        "split": split,
        "threads": settings.threads or len(os.sched_getaffinity(0)),
    }
    for answer in trained.ask(settings, store, job, "worker.training.evaluate", wanted):
        if "progress" in answer:
            yield Doing(**answer["progress"])
        else:
            yield _measured(store, job, split, answer)


def _measured(store: Store, job: Job, split: Split, answer: dict[str, Any]) -> Measured:
    found = {name: _tuples(value) for name, value in answer["evaluation"].items()}
    made = (point.attempt for point in store.checkpoints(job.id) if point.sha256 == found["checkpoint_sha256"])
    evaluation = Evaluation(attempt=next(made, job.attempt), **found)
    return Measured(
        job=job.id, data=masking.data(answer["source"]), data_hash=answer["hash"], split=split, evaluation=evaluation
    )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
