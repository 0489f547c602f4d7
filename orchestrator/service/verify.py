"""Whether a training goes on from a checkpoint to the same bits: a part of it is done once more."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from orchestrator import config, errors
from orchestrator.core.jobs import Attempt, Checkpoint, Job
from orchestrator.service import asking, query
from orchestrator.service.doing import Doing
from orchestrator.store.base import Store

_MODULE = "worker.training.replay"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which part of a training: from behind a checkpoint, or the start, to a step."""

    begin: Checkpoint | None  #: None: from the first step on
    until: Checkpoint | None  #: the checkpoint that it ends with, where it comes so far
    last_step: int

    @property
    def first_step(self) -> int:
        """Steps done before it."""
        return self.begin.step if self.begin else 0


@dataclass(frozen=True, kw_only=True)
class OtherLoss:
    """The first step whose loss differs."""

    step: int
    recorded: float
    replayed: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of doing a part of a training again."""

    job: str
    first_step: int  #: steps done before it
    last_step: int
    losses: int  #: steps whose losses were compared
    loss: OtherLoss | None  #: None where all are equal to the last bit
    differing: tuple[str, ...] | None  #: what differs in the checkpoint at its end; None where none was compared
    elsewhere: tuple[str, ...]  #: what differs here from where it trained

    @property
    def equal(self) -> bool:
        """Whether all that was compared is equal to the last bit."""
        return self.loss is None and not self.differing


def verify(
    settings: config.Settings, store: Store, text: str, *, steps: int | None = None, from_start: bool = False
) -> Iterator[Doing | Verdict]:
    """Yield how far the replay is, and last what it came to; nothing of the job changes.

    Raises:
        NotFound: no such job, or nothing of it is on this host that could be compared.
        OrchError: it trained on a GPU, its data cannot be had, torch is missing, or the process failed.

    """
    job = store.find(text)
    trained = [attempt for attempt in store.attempts(job.id) if attempt.environment is not None]
    _require_cpu(job, trained)
    here = [point for point in store.checkpoints(job.id) if query.checkpoint_file(settings, point).exists()]
    known = {row.step: row.value for row in store.steps(job.id) if math.isfinite(row.value)}
    part = choose(here, max(known, default=0), steps=steps, from_start=from_start)
    if part is None:
        raise errors.NotFound(
            f"Nothing of job {job.id} can be compared on this host.",
            why="It has neither a checkpoint here nor a step whose loss was recorded.",
            hint=f"`orch status {job.id}` says how far it is.",
        )
    wanted = _request(settings, store, job, part, trained)
    wanted["losses"] = {step: loss for step, loss in known.items() if part.first_step < step <= part.last_step}
    for answer in asking.ask(settings, _MODULE, wanted):
        if "progress" in answer:
            yield Doing(**answer["progress"])
        else:
            yield _verdict(job, answer["compared"])


def choose(checkpoints: Sequence[Checkpoint], furthest: int, *, steps: int | None, from_start: bool) -> Part | None:
    """Return the shortest part between two checkpoints, or from the start to the first; None where there is none.

    `furthest` is the last step whose loss is known: without a checkpoint the part ends there. `steps` shortens it.
    """
    ascending = sorted(checkpoints, key=lambda point: (point.step, point.epoch))
    pairs: list[tuple[Checkpoint | None, Checkpoint]] = [(one, other) for one, other in pairwise(ascending)]
    if from_start or not pairs:
        pairs = [(None, point) for point in ascending[:1]]
    if pairs:
        begin, until = min(pairs, key=lambda pair: pair[1].step - (pair[0].step if pair[0] else 0))
        last = until.step
    else:
        begin, until, last = None, None, furthest
    first = begin.step if begin else 0
    if steps is not None and first + steps < last:
        until, last = None, first + steps
    return Part(begin=begin, until=until, last_step=last) if last > first else None


def _require_cpu(job: Job, trained: Sequence[Attempt]) -> None:
    for attempt in trained:
        if attempt.environment is not None and attempt.environment.device != "cpu":
            raise errors.OrchError(
                f"Job {job.id} cannot be verified.",
                why=f"It trained on {attempt.environment.device}: equal bits are promised for the CPU alone.",
                hint=f"`orch evaluate {job.id}` measures what it came to.",
            )


def _request(
    settings: config.Settings, store: Store, job: Job, part: Part, trained: Sequence[Attempt]
) -> dict[str, Any]:
    begun_by = part.begin.attempt if part.begin else 0
    # Who trained it: the first attempt that began there or later; of the start, the first of all.
    ran = next((attempt for attempt in trained if attempt.attempt >= begun_by), None)
    used = ran.environment if ran else None
    threads = used.threads if used else settings.threads
    root = settings.artifact_dir
    assignment = {
        "attempt": job.attempt,
        "spec": job.spec.model_dump(mode="json"),
        "data_hash": job.data_hash,
        "checkpoints": [_info(part.begin)] if part.begin else [],
        "start": _info(start) if (start := _start(store, job)) else None,
        "artifact_root": str(root),
        "attempt_dir": str(root / job.id / "replay"),  # nothing is written into it
        "data_dir": str(settings.data_dir),
        "devices": ["cpu"] * job.spec.gpus,
        "threads": threads or max(1, len(os.sched_getaffinity(0)) // job.spec.gpus),
    }
    return {
        "assignment": assignment,
        "last_step": part.last_step,
        "until": _info(part.until) if part.until else None,
        "ran_on": asdict(used) if used else None,
    }


def _start(store: Store, job: Job) -> Checkpoint | None:
    """Return the checkpoint of its parent that the job's training began with, where there is one still."""
    if job.parent is None or job.start_step is None:
        return None
    return next((point for point in store.checkpoints(job.parent) if point.step == job.start_step), None)


def _info(point: Checkpoint) -> dict[str, Any]:
    names = ("attempt", "epoch", "step", "path", "bytes", "sha256", "best", "accuracy")
    return {name: getattr(point, name) for name in names}


def _verdict(job: Job, said: dict[str, Any]) -> Verdict:
    return Verdict(
        job=job.id,
        first_step=said["first_step"],
        last_step=said["last_step"],
        losses=said["losses"],
        loss=OtherLoss(**said["loss"]) if said["loss"] else None,
        differing=None if said["tensors"] is None else tuple(said["tensors"]),
        elsewhere=tuple(said["elsewhere"]),
    )
