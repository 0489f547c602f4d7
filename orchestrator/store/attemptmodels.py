"""The tables of attempts: each claim of a job, and what it has recorded.

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
    Named,
    String,
    Table,
    Text,
    TypedColumns,
    true,
)

from orchestrator.core.states import Reason, Stage
from orchestrator.store import columns


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
    columns.metadata,
    AttemptColumns,
    CheckConstraint("attempt >= 1 AND run >= 1", name="counters"),
    CheckConstraint(
        "outcome IN ('done', 'drained', 'paused', 'yielded', 'cancelled', 'failed', 'lost')", name="outcome"
    ),
    CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended_has_outcome"),
    CheckConstraint("reason IS NULL OR outcome IN ('failed', 'lost')", name="reason_is_of_failure"),
    CheckConstraint("resumed_from < attempt", name="resumed_from_earlier"),
    Index("ix_attempts_turn", "submitted_by", "stage", "started_at"),
    Index("ix_attempts_ended", "worker", "ended_at"),
    comment="One row for each claim of a stage.",
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
    columns.metadata,
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
    columns.metadata,
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
    columns.metadata,
    CheckpointColumns,
    _of_attempt(),
    CheckConstraint("path <> '' AND path NOT LIKE '/%'", name="path_is_relative"),
    CheckConstraint("epoch >= 0 AND step >= 0 AND bytes >= 0 AND accuracy BETWEEN 0 AND 1", name="ranges"),
    comment="Checkpoints that were whole on disk when they were recorded.",
)


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
    columns.metadata,
    EvaluationColumns,
    _of_attempt(),
    CheckConstraint("images >= 0 AND accuracy BETWEEN 0 AND 1", name="ranges"),
    comment="What a checkpoint does on the validation split.",
)


class LogChunkColumns(TypedColumns):
    """Columns of `log_chunks`."""

    job_id: Named[str] = Column(columns.JobId, primary_key=True, comment="the job")
    attempt: Named[int] = Column(Integer, primary_key=True, autoincrement=False, comment="attempt that wrote it")
    sequence: Named[int] = Column(Integer, primary_key=True, autoincrement=False, comment="from 0 in each attempt")
    text: Named[str] = Column(columns.ForeignText, comment="a piece of the log")


log_chunks = Table(
    "log_chunks",
    columns.metadata,
    LogChunkColumns,
    _of_attempt(),
    CheckConstraint("sequence >= 0", name="sequence"),
    comment="What the processes of an attempt printed.",
)
