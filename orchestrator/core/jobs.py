"""What the store gives out: frozen pictures of jobs, their attempts, metrics, checkpoints, and of workers."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from orchestrator import errors
from orchestrator.core import masking, resources
from orchestrator.core.dependencies import Dependency
from orchestrator.core.limits import NONE, Limits
from orchestrator.core.provenance import UNKNOWN, Environment, Provenance
from orchestrator.core.specs import JobSpec
from orchestrator.core.states import FINAL, JobState, Reason, Stage, Wish, WorkerState, WorkerWish
from orchestrator.core.telling import Telling

Split = Literal["train", "val"]

#: Farthest priority from the usual 0: more than a month of waiting.
MAX_PRIORITY = 1000

#: Characters of a name, a tag or an idempotency key, which databases index and people type.
MAX_NAME = 200


def is_word(text: str) -> bool:
    """Whether a text can be a name, a tag or a key."""
    return bool(text.strip()) and len(text) <= MAX_NAME and text.isprintable()


def is_tag(text: str) -> bool:
    """Whether a text can be a tag. Its JSON in quotes must be what a person types: databases look for that text."""
    return is_word(text) and not set(text) & {'"', "\\"} and text == text.strip()


def require_tags(tags: Iterable[str]) -> None:
    """Raise `errors.InvalidSpec` for a text that can be no tag."""
    for tag in tags:
        if is_word(tag) and not is_tag(tag):
            raise errors.InvalidSpec(
                f"{tag[:20]!a} cannot be a tag.",
                why="A tag has no double quote, no backslash, and no blank at its ends.",
                hint="Choose another one, such as one with a dash in their place.",
            )
        _require_word(tag)


def _require_word(text: str) -> None:
    if not is_word(text):
        raise errors.InvalidSpec(
            f"{text[:20]!a} cannot be a name, a tag or a key.",
            why=f"These have 1 to {MAX_NAME} characters, all of them printable.",
            hint="Choose another one, or leave it out.",
        )


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the present stage is. Units depend on the stage: bytes, steps or images."""

    done: int = 0
    total: int | None = None
    unit: str = "steps"
    epoch: int | None = None  #: the epoch in work, from 1
    epochs: int | None = None
    rate: float | None = None  #: units a second (images a second while training)
    at: datetime | None = None  #: when it was reported


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the database knows it."""

    id: str
    seq: int
    name: str | None
    user: str
    tags: tuple[str, ...]
    priority: int
    spec: JobSpec
    spec_hash: str
    spec_version: int
    idempotency_key: str | None
    state: JobState
    stage: Stage
    wish: Wish
    run: int  #: from 1; `retry` and `extend` start the next
    attempt: int  #: fencing token: counts every claim of every stage
    retries: int  #: since the last progress
    total_retries: int  #: of this run
    reason: Reason | None
    error: str | None  #: what happened, for people
    hint: str | None  #: what to do about it
    progress: Progress
    worker: str | None  #: id of the worker that holds the lease
    data_hash: str | None  #: content hash of the data set, fixed by the first stage
    artifact_root: str | None  #: id of the root that holds its checkpoints
    best_accuracy: float | None  #: best validation accuracy, 0 to 1
    submitted_at: datetime
    not_before: datetime | None
    started_at: datetime | None  #: of this run
    finished_at: datetime | None  #: of this run
    blocked: bool = False  #: waits for its hour, after a failure, or for other jobs
    start_after: datetime | None = None  #: begins no earlier, as a person asked
    parent: str | None = None  #: id of the job that it was made from
    start_step: int | None = None  #: step of its parent's checkpoint that its training begins with
    note: str | None = None  #: what a person noted of it
    demand: resources.Demand = resources.ANY  #: what its worker must have
    yields_to: str | None = None  #: id of the urgent job that it makes room for

    @property
    def final(self) -> bool:
        """Whether the run has ended."""
        return self.state in FINAL


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job about to be stored; raises `errors.InvalidSpec` for words and numbers that cannot be."""

    spec: JobSpec
    user: str
    name: str | None = None
    tags: tuple[str, ...] = ()
    priority: int = 0
    idempotency_key: str | None = None
    after: tuple[Dependency, ...] = ()
    not_before: datetime | None = None
    parent: str | None = None
    start_step: int | None = None
    notify: Telling | None = None
    provenance: Provenance = UNKNOWN
    demand: resources.Demand = resources.ANY  #: what its worker must have; the number of devices is the spec's

    def __post_init__(self) -> None:
        object.__setattr__(self, "demand", replace(self.demand, gpus=self.spec.gpus))
        if abs(self.priority) > MAX_PRIORITY:
            raise errors.InvalidSpec(
                f"priority = {masking.value(self.priority)}: it is too far out",
                why="A point is worth an hour of waiting.",
                hint=f"Use one between {-MAX_PRIORITY} and {MAX_PRIORITY}.",
            )
        if self.name is not None:
            object.__setattr__(self, "name", self.name.strip())  # as the texts that jobs are looked up by
        if self.name is not None and self.name.startswith("@"):
            raise errors.InvalidSpec(
                f"{self.name[:20]!a} cannot be a name.",
                why="What begins with @ stands for other jobs, as @latest does.",
                hint="Choose a name without the @.",
            )
        for text in (self.user, self.name, self.idempotency_key):
            if text is not None:
                _require_word(text)
        require_tags(self.tags)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A job in the hands of a supervisor: with every later write goes the attempt."""

    job: Job
    attempt: int
    checkpoints: tuple["Checkpoint", ...]  #: on the winning line, newest first
    ran: timedelta = timedelta()  #: what earlier attempts of this run took
    start: "Checkpoint | None" = None  #: of its parent, which its training begins with
    out_of_memory: int = 0  #: trainings of this run that ended for want of memory
    devices: tuple[resources.Device, ...] = ()  #: what its slot holds for it

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A running job's lease as a reconciler sees it: it is alive as long as (attempt, beat) changes."""

    job_id: str
    attempt: int
    beat: int
    worker: str | None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One claim of one stage and how it ended."""

    job_id: str
    attempt: int
    run: int
    stage: Stage
    worker: str
    host: str
    device: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None  #: done, drained, paused, yielded, cancelled, failed, lost
    reason: Reason | None
    resumed_from: int | None  #: attempt whose checkpoint it went on from
    first_step: int | None  #: steps done when its training went on; None while that is not known
    last_step: int | None  #: last step that the database heard of, once it has ended
    line_end: int | None = None  #: its rows past this step were left behind by a later attempt
    environment: Environment | None = None  #: what it trained with, from its first step on


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of a job's history."""

    seq: int
    job_id: str
    run: int
    attempt: int
    at: datetime
    actor: str  #: who: a user, a worker, the reconciler
    kind: str  #: submitted, claimed, stage_done, drained, lost, retried, cancel_requested, new_run, …
    old_state: JobState | None
    new_state: JobState | None
    stage: Stage | None
    reason: Reason | None
    detail: str | None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What an epoch's training took of its host, as far as its last attempt did it."""

    cores: float  #: CPU cores in use on average, those of the processes that load pictures among them
    memory: int  #: bytes, at most; what its processes share is counted in each
    waiting: float  #: share of the time that it waited for data, 0 to 1
    gpu: float | None = None  #: share of the time in which the GPU worked, 0 to 1
    gpu_memory: int | None = None  #: bytes in use on the GPU, at most


@dataclass(frozen=True, kw_only=True)
class EpochMetric:
    """Loss and accuracy of one epoch on one split."""

    epoch: int  #: from 1
    split: Split
    loss: float  #: mean cross-entropy, nats
    accuracy: float  #: 0 to 1
    images: int
    seconds: float
    lr: float | None = None
    attempt: int | None = None
    step: int | None = None  #: optimizer steps done when it closed
    usage: Usage | None = None  #: of the train split


@dataclass(frozen=True, kw_only=True)
class StepMetric:
    """One named value of one optimizer step, counted from 1 over the whole training."""

    step: int
    name: str
    value: float
    attempt: int | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk, recorded after it was whole."""

    attempt: int
    epoch: int  #: epochs completed
    step: int  #: optimizer steps completed, over the whole training
    path: str  #: below the artifact root, POSIX
    bytes: int
    sha256: str
    best: bool = False
    last: bool = False
    accuracy: float | None = None  #: validation accuracy, where it closes an epoch
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set in a host's cache."""

    hash: str
    source: str
    classes: tuple[str, ...]
    counts: dict[str, int]  #: pictures per split: train, val
    bytes: int
    path: str
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the best checkpoint of a run does on the validation split."""

    attempt: int
    checkpoint_step: int
    checkpoint_sha256: str
    loss: float
    accuracy: float
    images: int
    classes: tuple[str, ...]
    precision: tuple[float, ...]  #: per class; 0 where nothing was predicted as the class
    recall: tuple[float, ...]  #: per class
    confusion: tuple[tuple[int, ...], ...]  #: rows: truth, columns: prediction
    seconds: float
    created_at: datetime | None = None

    def is_of_best(self, checkpoints: Iterable[Checkpoint]) -> bool:
        """Whether it is of the best of the job's checkpoints: a job that goes on may have found a better one since."""
        best = next((one for one in checkpoints if one.best), None)
        return best is not None and best.sha256 == self.checkpoint_sha256


@dataclass(frozen=True, kw_only=True)
class LogChunk:
    """A piece of a job's log."""

    attempt: int
    sequence: int  #: from 0 in each attempt
    text: str


@dataclass(frozen=True, kw_only=True)
class WorkerIdentity:
    """Which process a worker is, so that its own host can tell whether it still lives."""

    id: str
    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    pid_started: float  #: start time of the process, as the kernel has it


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A node: one `orch worker`."""

    identity: WorkerIdentity
    state: WorkerState
    devices: tuple[str, ...]  #: one entry a slot, for people
    versions: dict[str, str]
    artifact_root: str | None
    started_at: datetime
    beat: int
    beat_at: datetime
    jobs: tuple[str, ...] = field(default=())  #: ids of the jobs it holds
    wish: WorkerWish = WorkerWish.RUN
    limits: Limits = NONE  #: that it keeps to
    silence: float = 0.0  #: seconds since its last beat, by the clock that all users of the database share
    slots: tuple[resources.Device, ...] = ()  #: what each works on; a worker of an earlier version does not tell
    labels: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The worker's id."""
        return self.identity.id

    @property
    def offer(self) -> resources.Offer:
        """What it has for jobs."""
        return resources.offered(slots=self.slots, devices=self.devices, labels=self.labels)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended, as its supervisor sees it."""

    kind: Literal["done", "drained", "paused", "yielded", "cancelled", "failed"]
    reason: Reason | None = None
    error: str | None = None
    hint: str | None = None
    last_step: int | None = None


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs to list. Empty fields do not filter."""

    states: tuple[JobState, ...] = ()
    tags: tuple[str, ...] = ()
    user: str | None = None
    ids: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    data_hash: str | None = None  #: content hash of their data set
    limit: int | None = None
    oldest_first: bool = False  #: the order, and which of them a limit keeps; else the newest


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many jobs stand in each state, and what waits at each stage and could start now."""

    states: dict[JobState, int]
    eligible: dict[Stage, int]
