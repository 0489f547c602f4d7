"""What `--json` prints: documented models with a schema version, apart from the domain objects, which may change.

`schema_version` is raised when a field is renamed, removed or means something else; new fields may come at any time.
Times are ISO 8601 in UTC, durations seconds, sizes bytes, accuracies 0 to 1.
"""

from collections.abc import Container
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from orchestrator import config
from orchestrator.core.jobs import Job
from orchestrator.core.specs import JobSpec
from orchestrator.core.states import JobState, Reason, Stage, Wish, WorkerState
from orchestrator.service import query

SCHEMA_VERSION = 1

ShownSpec = Annotated[JobSpec, AfterValidator(JobSpec.masked)]


class Part(BaseModel):
    """A piece of a payload."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class Payload(Part):
    """A whole payload: one document, or one line of a stream."""

    schema_version: int = SCHEMA_VERSION


class ProgressPart(Part):
    """How far the present stage is."""

    done: int
    total: int | None
    unit: str = Field(description="bytes, steps or images")
    epoch: int | None = Field(description="the epoch in work, from 1")
    epochs: int | None
    rate: float | None = Field(description="units a second; images a second while training")
    at: datetime | None


class DemandPart(Part):
    """What a job demands of its worker; the number of devices is the spec's."""

    gpus: int = Field(description="devices of one host that train it together")
    device: str | None = Field(description="cpu, gpu, or a part of the GPU's name")
    gpu_memory: int | None = Field(description="bytes that each GPU has at least")
    labels: tuple[str, ...]


class JobPayload(Payload):
    """One job."""

    id: str
    name: str | None
    user: str
    tags: tuple[str, ...]
    priority: int
    state: JobState
    doing: str = Field(
        description="the state, or while it runs the stage (downloading, training, evaluating), yielding, pausing or "
        "cancelling; "
        "silent where its worker has not been heard of"
    )
    stage: Stage
    wish: Wish
    run: int = Field(description="from 1; a retry starts the next")
    attempt: int
    retries: int = Field(description="since the last progress")
    reason: Reason | None
    error: str | None
    hint: str | None
    progress: ProgressPart
    eta: float | None = Field(description="seconds to the end of the present stage")
    worker: str | None
    best_accuracy: float | None
    idempotency_key: str | None
    spec: ShownSpec
    spec_hash: str
    submitted_at: datetime
    not_before: datetime | None = Field(
        description="claimed no earlier; of a blocked job: when it is looked at again, in 1970: as soon as may be"
    )
    start_after: datetime | None = Field(None, description="begins no earlier, as a person asked")
    blocked: bool = Field(False, description="waits for its time, after a failure, or for other jobs")
    parent: str | None = Field(None, description="job that it was made from")
    note: str | None = None
    demand: DemandPart = Field(description="what its worker must have")
    yields_to: str | None = Field(None, description="urgent job that it makes room for")
    started_at: datetime | None
    finished_at: datetime | None


class JobsPayload(Payload):
    """Jobs, the newest first."""

    jobs: tuple[JobPayload, ...]


class SubmittedPayload(Payload):
    """What became of a submit."""

    job: JobPayload
    is_new: bool
    same: bool = Field(
        False, description="nothing was queued: this job has succeeded with the same spec, data and versions"
    )
    ahead: int
    notes: tuple[str, ...]


class DeletedPayload(Payload):
    """A job that was deleted."""

    id: str
    left_in: tuple[str, ...] = Field(description="artifact roots whose workers still have to remove its files")


class AttemptPart(Part):
    """One claim of one stage."""

    attempt: int
    run: int
    stage: Stage
    worker: str
    host: str
    device: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    reason: Reason | None
    resumed_from: int | None
    first_step: int | None
    last_step: int | None


class UsagePart(Part):
    """What an epoch's training took of its host, as far as its last attempt did it."""

    cores: float = Field(description="CPU cores in use on average")
    memory: int = Field(description="at most; what its processes share is counted in each")
    waiting: float = Field(description="share of the time that it waited for data")
    gpu: float | None = Field(description="share of the time in which the GPU was busy")
    gpu_memory: int | None


class EpochPart(Part):
    """One epoch on one split."""

    epoch: int
    split: str
    loss: float
    accuracy: float
    images: int
    seconds: float
    lr: float | None
    attempt: int | None
    usage: UsagePart | None = None


class CheckpointPart(Part):
    """A checkpoint on disk."""

    attempt: int
    epoch: int
    step: int
    path: str = Field(description="absolute, on hosts that have the artifact folder")
    bytes: int
    sha256: str
    best: bool
    last: bool
    accuracy: float | None
    created_at: datetime | None


class EvaluationPart(Part):
    """A checkpoint on the validation split: the best one of when the job last ended."""

    checkpoint_step: int
    checkpoint_sha256: str
    loss: float
    accuracy: float
    images: int
    classes: tuple[str, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...] = Field(description="rows: truth, columns: prediction")
    seconds: float


class DatasetPart(Part):
    """The data set."""

    hash: str
    source: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    bytes: int


class ReportPayload(Payload):
    """Everything about one job."""

    job: JobPayload
    ahead: int | None
    stranded: bool = Field(description="it waits for checkpoints that no running worker has")
    attempts: tuple[AttemptPart, ...]
    epochs: tuple[EpochPart, ...]
    stopped_early: str | None
    checkpoints: tuple[CheckpointPart, ...]
    evaluation: EvaluationPart | None
    dataset: DatasetPart | None


class WorkerPart(Part):
    """A worker."""

    id: str
    host: str
    pid: int
    state: WorkerState = Field(description="what it has said last")
    silent: bool = Field(description="it has not said goodbye, and has not been heard of for six heartbeats")
    silence: float = Field(description="seconds since its last beat, by the database's clock")
    devices: tuple[str, ...]
    versions: dict[str, str]
    started_at: datetime
    beat_at: datetime
    jobs: tuple[str, ...]


class BrokerPart(Part):
    """The broker."""

    where: str
    answers: bool
    why: str | None


class OverviewPayload(Payload):
    """The queue and the workers at a glance."""

    states: dict[JobState, int]
    eligible: dict[Stage, int]
    active: tuple[JobPayload, ...]
    workers: tuple[WorkerPart, ...]
    broker: BrokerPart
    database: str


class EventPayload(Payload):
    """One line of a job's history."""

    seq: int
    job_id: str
    run: int
    attempt: int
    at: datetime
    actor: str
    kind: str
    old_state: JobState | None
    new_state: JobState | None
    stage: Stage | None
    reason: Reason | None
    detail: str | None


class LogPayload(Payload):
    """A piece of a job's output."""

    job_id: str
    text: str


def job(job: Job, silent: Container[str] = ()) -> JobPayload:
    """Return the payload of a job; `silent` are the ids of workers that have not been heard of."""
    fields = {name: getattr(job, name) for name in JobPayload.model_fields if hasattr(job, name)}
    return JobPayload(
        **{
            **fields,
            "progress": ProgressPart.model_validate(job.progress),
            "demand": DemandPart.model_validate(job.demand),
        },
        doing=query.doing(job, silent),
        eta=None if job.worker in silent else query.eta(job),
    )


def report(report: query.Report, settings: config.Settings) -> ReportPayload:
    """Return the payload of a report."""
    silent = query.silent_ids(report.workers, settings)
    checkpoints = [
        CheckpointPart.model_validate(checkpoint).model_copy(
            update={"path": str(query.checkpoint_file(settings, checkpoint))}
        )
        for checkpoint in report.checkpoints
    ]
    return ReportPayload(
        job=job(report.job, silent),
        ahead=report.ahead,
        stranded=query.stranded(report.job, report.workers, silent),
        attempts=tuple(AttemptPart.model_validate(attempt) for attempt in report.attempts),
        epochs=tuple(EpochPart.model_validate(epoch) for epoch in report.epochs),
        stopped_early=report.stopped_early,
        checkpoints=tuple(checkpoints),
        evaluation=EvaluationPart.model_validate(report.evaluation) if report.evaluation else None,
        dataset=DatasetPart.model_validate(report.dataset) if report.dataset else None,
    )


def overview(overview: query.Overview, settings: config.Settings) -> OverviewPayload:
    """Return the payload of an overview."""
    silent = query.silent_ids(overview.workers, settings)
    by_hand = {"host", "pid", "silent"}
    return OverviewPayload(
        states=overview.counts.states,
        eligible=overview.counts.eligible,
        active=tuple(job(active, silent) for active in overview.active),
        workers=tuple(
            WorkerPart(
                **{name: getattr(worker, name) for name in WorkerPart.model_fields.keys() - by_hand},
                host=worker.identity.host,
                pid=worker.identity.pid,
                silent=worker.id in silent,
            )
            for worker in overview.workers
        ),
        broker=BrokerPart.model_validate(overview.broker),
        database=overview.database,
    )
