"""The tables. Migrations make them; a test keeps both equal.

A row of an attempt counts (is on the *winning line*) up to the attempt's `line_end`: where a later attempt resumed.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Named,
    String,
    Table,
    Text,
    TypedColumns,
    false,
    text,
    true,
)

from orchestrator.core.states import After, Ended, JobState, Reason, Stage, Wish, WorkerState, WorkerWish
from orchestrator.store import columns

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class JobColumns(TypedColumns):
    """Columns of `jobs`."""

    seq: Named[int] = Column(columns.Sequence, primary_key=True, comment="order of submission")
    id: Named[str] = Column(columns.JobId, unique=True, comment="eight random characters, Crockford base 32")
    name: Named[str | None] = Column(Text, comment="given by a person; need not be unique")
    submitted_by: Named[str] = Column(Text, comment="user")
    tags: Named[list[str]] = Column(JSON, comment="list of text")
    priority: Named[int] = Column(Integer, comment="one point is worth an hour of waiting")
    rank: Named[float] = Column(Double, comment="order among the jobs of a user, seconds: lowest first")
    spec: Named[dict[str, Any]] = Column(JSON, comment="the job spec")
    spec_hash: Named[str] = Column(String(64), comment="sha256 of the spec in canonical JSON")
    spec_version: Named[int] = Column(Integer, comment="workers that know only older versions decline the job")
    idempotency_key: Named[str | None] = Column(Text, unique=True, comment="a second submit with it returns this job")
    state: Named[JobState] = Column(columns.choice(JobState, "state"), comment="where the job stands")
    stage: Named[Stage] = Column(columns.choice(Stage, "stage"), comment="what it does now or next")
    wish: Named[Wish] = Column(columns.choice(Wish, "wish"), comment="what is wished of the running job")
    run: Named[int] = Column(Integer, comment="from 1; a retry by a person begins the next")
    attempt: Named[int] = Column(Integer, comment="fencing token: counts every claim")
    beat: Named[int] = Column(Integer, comment="the lease lives as long as this counter moves")
    worker: Named[str | None] = Column(Text, comment="worker that holds the lease")
    retries: Named[int] = Column(Integer, comment="since the last progress")
    total_retries: Named[int] = Column(Integer, comment="of this run")
    furthest_step: Named[int] = Column(BigInteger, comment="a checkpoint beyond this step is progress")
    reason: Named[Reason | None] = Column(columns.choice(Reason, "reason"), comment="why it failed")
    error: Named[str | None] = Column(columns.ForeignText, comment="what happened, for people")
    hint: Named[str | None] = Column(columns.ForeignText, comment="what to do about it")
    progress_done: Named[int] = Column(BigInteger, comment="units of this stage that are done")
    progress_total: Named[int | None] = Column(BigInteger, comment="units of this stage in all")
    progress_unit: Named[str] = Column(String(16), comment="bytes, steps or images")
    progress_epoch: Named[int | None] = Column(Integer, comment="epoch in work, from 1")
    progress_epochs: Named[int | None] = Column(Integer, comment="epochs in all")
    progress_rate: Named[float | None] = Column(Double, comment="units a second")
    progress_at: Named[datetime | None] = Column(columns.UtcDateTime, comment="when it was reported")
    data_hash: Named[str | None] = Column(Text, comment="content hash of the data set")
    artifact_root: Named[str | None] = Column(Text, comment="id of the root that holds its checkpoints")
    best_accuracy: Named[float | None] = Column(Double, comment="best validation accuracy, 0 to 1")
    submitted_at: Named[datetime] = Column(columns.UtcDateTime, comment="when it was submitted")
    not_before: Named[datetime | None] = Column(
        columns.UtcDateTime, comment="claimed no earlier; of a blocked job: when to look at it again"
    )
    started_at: Named[datetime | None] = Column(columns.UtcDateTime, comment="first claim of this run")
    finished_at: Named[datetime | None] = Column(columns.UtcDateTime, comment="end of this run")
    blocked: Named[bool] = Column(
        Boolean, server_default=false(), comment="waits for its hour or for other jobs: not to be claimed"
    )
    start_after: Named[datetime | None] = Column(columns.UtcDateTime, comment="begins no earlier, as a person asked")
    parent: Named[str | None] = Column(columns.JobId, comment="job that it was made from")
    start_step: Named[int | None] = Column(
        BigInteger, comment="step of its parent's checkpoint that its training begins with"
    )
    note: Named[str | None] = Column(Text, comment="what a person noted of it")
    demand: Named[str] = Column(
        Text, server_default="", comment="what its worker must have, as JSON; nothing where any device will do"
    )
    yields_to: Named[str | None] = Column(columns.JobId, comment="urgent job that it makes room for")


# What is blocked does not stand in the way of a claim, however much of it there is. PostgreSQL's condition stands in
# store/postgres.py: here it would have SQLAlchemy import that dialect, a twentieth of a command's time on SQLite.
jobs_due = Index("ix_jobs_due", "not_before", "rank", "seq", sqlite_where=text("blocked = 1"))

jobs = Table(
    "jobs",
    metadata,
    JobColumns,
    CheckConstraint("length(id) = 8", name="id"),
    CheckConstraint("(state = 'running') = (worker IS NOT NULL)", name="running_has_worker"),
    CheckConstraint("state <> 'running' OR attempt > 0", name="running_has_attempt"),
    CheckConstraint("(state = 'failed') = (reason IS NOT NULL)", name="failed_has_reason"),
    CheckConstraint(
        "(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="final_has_end"
    ),
    CheckConstraint("state <> 'succeeded' OR stage = 'evaluate'", name="succeeded_was_evaluated"),
    CheckConstraint("wish = 'run' OR state = 'running'", name="wish_is_of_running"),
    CheckConstraint("(wish = 'yield') = (yields_to IS NOT NULL)", name="yields_to_another"),
    CheckConstraint("best_accuracy BETWEEN 0 AND 1", name="best_accuracy"),
    CheckConstraint("state = 'queued' OR NOT blocked", name="blocked_waits"),
    CheckConstraint("start_step IS NULL OR parent IS NOT NULL", name="start_is_of_parent"),
    CheckConstraint(
        "run >= 1 AND attempt >= 0 AND beat >= 0 AND retries BETWEEN 0 AND total_retries AND furthest_step >= 0"
        " AND progress_done >= 0",
        name="counters",
    ),
    Index(None, "name"),
    # A claim finds its users, what runs of each, what their jobs demand, and the first of each demand; with not_before
    # in it, counting needs no row.
    Index(
        "ix_jobs_claim",
        *("state", "stage", "blocked", "submitted_by", "demand", "artifact_root", "rank", "seq", "not_before"),
    ),
    jobs_due,
    Index(None, "parent"),
    Index("ix_jobs_spec_hash", "spec_hash", "state", "seq"),
    Index(None, "state", "seq"),
    sqlite_autoincrement=True,
    comment="Jobs: the row is the truth, messages only say that there is one.",
)


class DependencyColumns(TypedColumns):
    """Columns of `dependencies`."""

    job_id: Named[str] = Column(
        columns.JobId, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, comment="the job that waits"
    )
    needs: Named[str] = Column(
        columns.JobId, primary_key=True, comment="the job that it waits for; may have been deleted"
    )
    rule: Named[After] = Column(columns.choice(After, "rule"), comment="which end of it will do: success, or any")
    ended: Named[Ended | None] = Column(columns.choice(Ended, "ended"), comment="how that one ended")


dependencies = Table(
    "dependencies",
    metadata,
    DependencyColumns,
    CheckConstraint("job_id <> needs", name="needs_another"),
    Index(None, "needs"),
    comment="Which jobs a job waits for.",
)


def _of_attempt() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["job_id", "attempt"], ["attempts.job_id", "attempts.attempt"], ondelete="CASCADE")


class AttemptColumns(TypedColumns):
    """Columns of `attempts`."""

    job_id: Named[str] = Column(
        columns.JobId, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, comment="the job"
    )
    attempt: Named[int] = Column(Integer, primary_key=True, autoincrement=False, comment="fencing token, from 1")
    run: Named[int] = Column(Integer, comment="run of the job")
    stage: Named[Stage] = Column(columns.choice(Stage, "stage"), comment="the stage that was claimed")
    worker: Named[str] = Column(Text, comment="who claimed it")
    host: Named[str] = Column(Text, comment="the worker's host")
    device: Named[str] = Column(Text, comment="cpu or the UUID of a GPU")
    artifact_root: Named[str] = Column(Text, comment="id of the root that its checkpoints lie under")
    started_at: Named[datetime] = Column(columns.UtcDateTime, comment="when it was claimed")
    ended_at: Named[datetime | None] = Column(columns.UtcDateTime, comment="when it ended")
    outcome: Named[str | None] = Column(String(16), comment="how it ended")
    reason: Named[Reason | None] = Column(columns.choice(Reason, "reason"), comment="why it failed")
    resumed_from: Named[int | None] = Column(Integer, comment="attempt whose checkpoint it went on from")
    first_step: Named[int | None] = Column(BigInteger, comment="step of that checkpoint; 0 at the start")
    last_step: Named[int | None] = Column(BigInteger, comment="last step that it did")
    line_end: Named[int | None] = Column(
        BigInteger, comment="its rows past this step were left behind by a later attempt"
    )
    submitted_by: Named[str | None] = Column(Text, comment="the job's user: users take turns")
    environment: Named[dict[str, Any] | None] = Column(
        JSON(none_as_null=True), comment="versions, device and numbers that it trained with"
    )
    devices: Named[list[str] | None] = Column(
        JSON(none_as_null=True), comment="ids of the devices that it holds; NULL: a download, or not told"
    )


attempts = Table(
    "attempts",
    metadata,
    AttemptColumns,
    CheckConstraint("attempt >= 1 AND run >= 1", name="counters"),
    CheckConstraint(
        "outcome IN ('done', 'drained', 'paused', 'yielded', 'cancelled', 'failed', 'lost')", name="outcome"
    ),
    CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended_has_outcome"),
    CheckConstraint("reason IS NULL OR outcome IN ('failed', 'lost')", name="reason_is_of_failure"),
    CheckConstraint("resumed_from < attempt", name="resumed_from_earlier"),
    Index("ix_attempts_turn", "submitted_by", "stage", "started_at"),
    comment="One row for each claim of a stage.",
)


class SourceColumns(TypedColumns):
    """Columns of `sources`."""

    job_id: Named[str] = Column(
        columns.JobId, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, comment="job"
    )
    origins: Named[dict[str, str]] = Column(JSON, comment="where each value of the spec comes from")
    revision: Named[str | None] = Column(String(64), comment="git commit of the folder it was submitted in")
    branch: Named[str | None] = Column(columns.ForeignText, comment="its branch")
    dirty: Named[bool | None] = Column(Boolean, comment="whether tracked files differed from the commit")
    diff: Named[str | None] = Column(columns.ForeignText, comment="how they differed, secrets masked")
    diff_sha256: Named[str | None] = Column(String(64), comment="of the difference as git wrote it")
    diff_bytes: Named[int | None] = Column(BigInteger, comment="size of that")
    remark: Named[str | None] = Column(Text, comment="what is not as git wrote it, or missing, and why")


sources = Table("sources", metadata, SourceColumns, comment="Where jobs come from.")


class EventColumns(TypedColumns):
    """Columns of `events`."""

    seq: Named[int] = Column(columns.Sequence, primary_key=True, comment="order of events")
    job_id: Named[str] = Column(columns.JobId, ForeignKey("jobs.id", ondelete="CASCADE"), comment="the job")
    run: Named[int] = Column(Integer, comment="run of the job")
    attempt: Named[int] = Column(Integer, comment="attempt of the job, 0 before the first")
    at: Named[datetime] = Column(columns.UtcDateTime, comment="when")
    actor: Named[str] = Column(Text, comment="who: a user, a worker, the reconciler")
    kind: Named[str] = Column(String(32), comment="what happened")
    old_state: Named[JobState | None] = Column(columns.choice(JobState, "old_state"), comment="before, if it changed")
    new_state: Named[JobState | None] = Column(columns.choice(JobState, "new_state"), comment="after, if it changed")
    stage: Named[Stage | None] = Column(columns.choice(Stage, "stage"), comment="the job's stage")
    reason: Named[Reason | None] = Column(columns.choice(Reason, "reason"), comment="why, of a failure")
    detail: Named[str | None] = Column(columns.ForeignText, comment="more, for people")


events = Table(
    "events",
    metadata,
    EventColumns,
    Index(None, "job_id", "seq"),
    sqlite_autoincrement=True,
    comment="Append only: one row for every change of state, written in the same transaction.",
)


class EpochMetricColumns(TypedColumns):
    """Columns of `epoch_metrics`."""

    job_id: Named[str] = Column(columns.JobId, primary_key=True, comment="the job")
    attempt: Named[int] = Column(Integer, primary_key=True, autoincrement=False, comment="attempt that closed it")
    epoch: Named[int] = Column(Integer, primary_key=True, autoincrement=False, comment="from 1")
    split: Named[str] = Column(String(8), primary_key=True, comment="train or val")
    step: Named[int] = Column(BigInteger, comment="optimizer steps done when it closed")
    loss: Named[float] = Column(columns.Measure, nullable=True, comment="mean cross-entropy, nats; NULL is NaN")
    accuracy: Named[float] = Column(Double, comment="0 to 1")
    images: Named[int] = Column(Integer, comment="pictures seen")
    seconds: Named[float] = Column(Double, comment="time it took")
    lr: Named[float | None] = Column(Double, comment="learning rate")
    usage: Named[dict[str, Any] | None] = Column(
        JSON(none_as_null=True), comment="cores, memory and GPU that the training took, share of waiting"
    )


epoch_metrics = Table(
    "epoch_metrics",
    metadata,
    EpochMetricColumns,
    _of_attempt(),
    CheckConstraint("split IN ('train', 'val')", name="split"),
    CheckConstraint("epoch >= 1 AND images >= 0 AND accuracy BETWEEN 0 AND 1", name="ranges"),
    comment="Loss and accuracy of each epoch and split, of every attempt.",
)


class StepMetricColumns(TypedColumns):
    """Columns of `step_metrics`."""

    job_id: Named[str] = Column(columns.JobId, primary_key=True, comment="the job")
    attempt: Named[int] = Column(Integer, primary_key=True, autoincrement=False, comment="attempt that did the step")
    name: Named[str] = Column(String(64), primary_key=True, comment="loss, lr, …")
    step: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False, comment="optimizer step, from 1")
    value: Named[float] = Column(columns.Measure, nullable=True, comment="NULL is NaN")


step_metrics = Table(
    "step_metrics",
    metadata,
    StepMetricColumns,
    _of_attempt(),
    sqlite_with_rowid=False,  # the key is most of the row: keep it once
    comment="Values of single optimizer steps, of every attempt.",
)


class CheckpointColumns(TypedColumns):
    """Columns of `checkpoints`."""

    job_id: Named[str] = Column(columns.JobId, primary_key=True, comment="the job")
    attempt: Named[int] = Column(Integer, primary_key=True, autoincrement=False, comment="attempt that wrote it")
    step: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False, comment="optimizer steps done")
    epoch: Named[int] = Column(Integer, comment="epochs completed")
    path: Named[str] = Column(Text, comment="below the artifact root, POSIX")
    bytes: Named[int] = Column(BigInteger, comment="size of all its files")
    sha256: Named[str] = Column(String(64), comment="digest of its content")
    best: Named[bool] = Column(Boolean, comment="highest validation accuracy on the line")
    last: Named[bool] = Column(Boolean, comment="newest on the line")
    resumable: Named[bool] = Column(
        Boolean, server_default=true(), comment="unused: always true, written by workers older than this schema"
    )
    accuracy: Named[float | None] = Column(Double, comment="validation accuracy, where it closes an epoch")
    created_at: Named[datetime] = Column(columns.UtcDateTime, comment="when it was recorded")


checkpoints = Table(
    "checkpoints",
    metadata,
    CheckpointColumns,
    _of_attempt(),
    CheckConstraint("path <> '' AND path NOT LIKE '/%'", name="path_is_relative"),
    CheckConstraint("epoch >= 0 AND step >= 0 AND bytes >= 0 AND accuracy BETWEEN 0 AND 1", name="ranges"),
    comment="Checkpoints that were whole on disk when they were recorded.",
)


class DeletedJobColumns(TypedColumns):
    """Columns of `deleted_jobs`."""

    id: Named[str] = Column(columns.JobId, primary_key=True, comment="the job's id")
    state: Named[JobState] = Column(columns.choice(JobState, "state"), comment="where the job stood")
    run: Named[int] = Column(Integer, comment="its last run")
    attempt: Named[int] = Column(Integer, comment="its last attempt")
    deleted_by: Named[str] = Column(Text, comment="user")
    deleted_at: Named[datetime] = Column(columns.UtcDateTime, comment="when")


deleted_jobs = Table(
    "deleted_jobs",
    metadata,
    DeletedJobColumns,
    CheckConstraint("state <> 'running'", name="not_running"),
    comment="What a person has deleted: a job in neither table was lost.",
)


class DatasetColumns(TypedColumns):
    """Columns of `datasets`."""

    hash: Named[str] = Column(String(80), primary_key=True, comment="content hash")
    source: Named[str] = Column(Text, comment="where it came from")
    classes: Named[list[str]] = Column(JSON, comment="names, in order of their numbers")
    counts: Named[dict[str, int]] = Column(JSON, comment="pictures per split")
    bytes: Named[int] = Column(BigInteger, comment="size on disk")
    path: Named[str] = Column(Text, comment="folder on the host that recorded it last")
    created_at: Named[datetime] = Column(columns.UtcDateTime, comment="when it was recorded")


datasets = Table("datasets", metadata, DatasetColumns, comment="Data sets by content.")


class CopyColumns(TypedColumns):
    """Columns of `copies`."""

    host: Named[str] = Column(Text, primary_key=True, comment="its name")
    hash: Named[str] = Column(String(80), primary_key=True, comment="content hash")
    source: Named[str] = Column(Text, comment="where jobs say that it is from, secrets masked")
    seen_at: Named[datetime] = Column(columns.UtcDateTime, comment="when a job had it there")


copies = Table("copies", metadata, CopyColumns, comment="Which hosts have which data sets, as jobs have told.")


class EvaluationColumns(TypedColumns):
    """Columns of `evaluations`."""

    job_id: Named[str] = Column(columns.JobId, primary_key=True, comment="the job")
    attempt: Named[int] = Column(Integer, primary_key=True, autoincrement=False, comment="attempt that measured")
    checkpoint_step: Named[int] = Column(BigInteger, comment="step of the checkpoint that was measured")
    checkpoint_sha256: Named[str] = Column(String(64), comment="its digest")
    loss: Named[float] = Column(columns.Measure, nullable=True, comment="mean cross-entropy, nats; NULL is NaN")
    accuracy: Named[float] = Column(Double, comment="0 to 1")
    images: Named[int] = Column(Integer, comment="pictures of the validation split")
    classes: Named[list[str]] = Column(JSON, comment="names, in order of their numbers")
    precision: Named[list[float]] = Column(JSON, comment="per class")
    recall: Named[list[float]] = Column(JSON, comment="per class")
    confusion: Named[list[list[int]]] = Column(JSON, comment="rows: truth, columns: prediction")
    seconds: Named[float] = Column(Double, comment="time it took")
    created_at: Named[datetime] = Column(columns.UtcDateTime, comment="when it was recorded")


evaluations = Table(
    "evaluations",
    metadata,
    EvaluationColumns,
    _of_attempt(),
    CheckConstraint("images >= 0 AND accuracy BETWEEN 0 AND 1", name="ranges"),
    comment="What a checkpoint does on the validation split.",
)


class WorkerColumns(TypedColumns):
    """Columns of `workers`."""

    id: Named[str] = Column(Text, primary_key=True, comment="the worker's name")
    host: Named[str] = Column(Text, comment="name of its host")
    boot_id: Named[str] = Column(Text, comment="boot of the host, as the kernel has it")
    pid_namespace: Named[str] = Column(Text, comment="inode of the namespace that the pid is of")
    pid: Named[int] = Column(BigInteger, comment="process id")
    pid_started: Named[float] = Column(Double, comment="start time of the process, as the kernel has it")
    state: Named[WorkerState] = Column(columns.choice(WorkerState, "state"), comment="where the worker stands")
    devices: Named[list[str]] = Column(JSON, comment="one entry a slot")
    versions: Named[dict[str, str]] = Column(JSON, comment="of orch, Python, torch, …")
    artifact_root: Named[str | None] = Column(Text, comment="id of the root that it reaches")
    started_at: Named[datetime] = Column(columns.UtcDateTime, comment="when it started")
    beat: Named[int] = Column(Integer, comment="the worker lives as long as this counter moves")
    beat_at: Named[datetime] = Column(columns.UtcDateTime, comment="its last beat")
    ended_at: Named[datetime | None] = Column(columns.UtcDateTime, comment="when it stopped or was found lost")
    wish: Named[WorkerWish] = Column(
        columns.choice(WorkerWish, "wish"), server_default="run", comment="what a person wants of it"
    )
    limits: Named[dict[str, dict[str, int]] | None] = Column(
        JSON(none_as_null=True), comment="trainings at once, by user and tag"
    )
    slots: Named[list[dict[str, Any]] | None] = Column(
        JSON(none_as_null=True), comment="what each slot works on: id, kind, name and memory in bytes"
    )
    labels: Named[list[str] | None] = Column(JSON(none_as_null=True), comment="list of text")


workers = Table(
    "workers",
    metadata,
    WorkerColumns,
    CheckConstraint("(state IN ('stopped', 'lost')) = (ended_at IS NOT NULL)", name="ended_has_end"),
    Index(None, "host"),
    comment="Nodes: one row for each start of a worker.",
)


class LogChunkColumns(TypedColumns):
    """Columns of `log_chunks`."""

    job_id: Named[str] = Column(columns.JobId, primary_key=True, comment="the job")
    attempt: Named[int] = Column(Integer, primary_key=True, autoincrement=False, comment="attempt that wrote it")
    sequence: Named[int] = Column(Integer, primary_key=True, autoincrement=False, comment="from 0 in each attempt")
    text: Named[str] = Column(columns.ForeignText, comment="a piece of the log")


log_chunks = Table(
    "log_chunks",
    metadata,
    LogChunkColumns,
    _of_attempt(),
    CheckConstraint("sequence >= 0", name="sequence"),
    comment="What the processes of an attempt printed.",
)


class TellingColumns(TypedColumns):
    """Columns of `tellings`."""

    job_id: Named[str] = Column(
        columns.JobId, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, comment="job"
    )
    target: Named[str] = Column(Text, primary_key=True, comment="URL, with its secrets")
    occasions: Named[list[str]] = Column(JSON, comment="list of what is told")


tellings = Table("tellings", metadata, TellingColumns, comment="Who is told of a job.")


class NoticeColumns(TypedColumns):
    """Columns of `notices`."""

    seq: Named[int] = Column(columns.Sequence, primary_key=True, comment="order of what happened")
    job_id: Named[str] = Column(columns.JobId, ForeignKey("jobs.id", ondelete="CASCADE"), comment="job")
    target: Named[str] = Column(Text, comment="URL, with its secrets")
    message: Named[dict[str, Any]] = Column(JSON, comment="what is told")
    tries: Named[int] = Column(Integer, comment="that have begun")
    maybe_heard: Named[int] = Column(Integer, comment="tries of which nobody knows that they failed")
    due_at: Named[datetime | None] = Column(columns.UtcDateTime, comment="when to try next; NULL: never again")
    told_at: Named[datetime | None] = Column(columns.UtcDateTime, comment="when it was heard")


notices = Table(
    "notices",
    metadata,
    NoticeColumns,
    CheckConstraint("maybe_heard BETWEEN 0 AND tries", name="tries"),
    CheckConstraint("told_at IS NULL OR due_at IS NULL", name="told_once"),
    Index(None, "due_at"),
    Index(None, "job_id"),
    sqlite_autoincrement=True,
    comment="The outbox: what is to be told, and what was.",
)
