"""The tables of jobs: what each is, was and waits for, what happened to it, and who is told."""

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
    Index,
    Integer,
    Named,
    String,
    Table,
    Text,
    TypedColumns,
    false,
    text,
)

from orchestrator.core.states import After, Ended, JobState, Reason, Stage, Wish
from orchestrator.store import columns


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
    columns.metadata,
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
    columns.metadata,
    DependencyColumns,
    CheckConstraint("job_id <> needs", name="needs_another"),
    Index(None, "needs"),
    comment="Which jobs a job waits for.",
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


sources = Table("sources", columns.metadata, SourceColumns, comment="Where jobs come from.")


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
    columns.metadata,
    EventColumns,
    Index(None, "job_id", "seq"),
    sqlite_autoincrement=True,
    comment="Append only: one row for every change of state, written in the same transaction.",
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
    columns.metadata,
    DeletedJobColumns,
    CheckConstraint("state <> 'running'", name="not_running"),
    comment="What a person has deleted: a job in neither table was lost.",
)


class TellingColumns(TypedColumns):
    """Columns of `tellings`."""

    job_id: Named[str] = Column(
        columns.JobId, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, comment="job"
    )
    target: Named[str] = Column(Text, primary_key=True, comment="URL, with its secrets")
    occasions: Named[list[str]] = Column(JSON, comment="list of what is told")


tellings = Table("tellings", columns.metadata, TellingColumns, comment="Who is told of a job.")


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
    columns.metadata,
    NoticeColumns,
    CheckConstraint("maybe_heard BETWEEN 0 AND tries", name="tries"),
    CheckConstraint("told_at IS NULL OR due_at IS NULL", name="told_once"),
    Index(None, "due_at"),
    Index(None, "job_id"),
    sqlite_autoincrement=True,
    comment="The outbox: what is to be told, and what was.",
)
