"""First tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JOB_ID = sa.String(8).with_variant(sa.String(8, collation="C"), "postgresql")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)

STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")
STAGES = ("download", "train", "evaluate")
REASONS = (
    "bad_input",
    "user_error",
    "oom",
    "gpu_error",
    "diverged",
    "stalled",
    "lost",
    "timeout",
    "disk_full",
    "poison",
    "no_valid_checkpoint",
    "unreachable",
    "dependency",
    "internal",
)


def choice(values: tuple[str, ...], name: str) -> sa.Enum:
    return sa.Enum(*values, native_enum=False, length=24, create_constraint=True, name=name)


def of_attempt(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["job_id", "attempt"],
        ["attempts.job_id", "attempts.attempt"],
        name=op.f(f"fk_{table}_job_id_attempt_attempts"),
        ondelete="CASCADE",
    )


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("hash", sa.String(length=80), nullable=False, comment="content hash"),
        sa.Column("source", sa.Text(), nullable=False, comment="where it came from"),
        sa.Column("classes", sa.JSON(), nullable=False, comment="names, in order of their numbers"),
        sa.Column("counts", sa.JSON(), nullable=False, comment="pictures per split"),
        sa.Column("bytes", sa.BigInteger(), nullable=False, comment="size on disk"),
        sa.Column("path", sa.Text(), nullable=False, comment="folder on the host that recorded it last"),
        sa.Column("created_at", MOMENT, nullable=False, comment="when it was recorded"),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_datasets")),
        comment="Data sets by content.",
    )
    op.create_table(
        "jobs",
        sa.Column("seq", SEQUENCE, nullable=False, comment="order of submission"),
        sa.Column("id", JOB_ID, nullable=False, comment="eight random characters, Crockford base 32"),
        sa.Column("name", sa.Text(), nullable=True, comment="given by a person; need not be unique"),
        sa.Column("submitted_by", sa.Text(), nullable=False, comment="user"),
        sa.Column("tags", sa.JSON(), nullable=False, comment="list of text"),
        sa.Column("priority", sa.Integer(), nullable=False, comment="one point is worth an hour of waiting"),
        sa.Column(
            "rank", sa.Double(), nullable=False, comment="order of claiming, seconds: lowest first, never changes"
        ),
        sa.Column("spec", sa.JSON(), nullable=False, comment="the job spec"),
        sa.Column("spec_hash", sa.String(length=64), nullable=False, comment="sha256 of the spec in canonical JSON"),
        sa.Column(
            "spec_version",
            sa.Integer(),
            nullable=False,
            comment="workers that know only older versions decline the job",
        ),
        sa.Column("idempotency_key", sa.Text(), nullable=True, comment="a second submit with it returns this job"),
        sa.Column("state", choice(STATES, "state"), nullable=False, comment="where the job stands"),
        sa.Column("stage", choice(STAGES, "stage"), nullable=False, comment="what it does now or next"),
        sa.Column(
            "wish",
            choice(("run", "pause", "cancel"), "wish"),
            nullable=False,
            comment="what a person wants of the running job",
        ),
        sa.Column("run", sa.Integer(), nullable=False, comment="from 1; a retry by a person begins the next"),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="fencing token: counts every claim"),
        sa.Column("beat", sa.Integer(), nullable=False, comment="the lease lives as long as this counter moves"),
        sa.Column("worker", sa.Text(), nullable=True, comment="worker that holds the lease"),
        sa.Column("retries", sa.Integer(), nullable=False, comment="since the last progress"),
        sa.Column("total_retries", sa.Integer(), nullable=False, comment="of this run"),
        sa.Column(
            "furthest_step", sa.BigInteger(), nullable=False, comment="a checkpoint beyond this step is progress"
        ),
        sa.Column("reason", choice(REASONS, "reason"), nullable=True, comment="why it failed"),
        sa.Column("error", sa.Text(), nullable=True, comment="what happened, for people"),
        sa.Column("hint", sa.Text(), nullable=True, comment="what to do about it"),
        sa.Column("progress_done", sa.BigInteger(), nullable=False, comment="units of this stage that are done"),
        sa.Column("progress_total", sa.BigInteger(), nullable=True, comment="units of this stage in all"),
        sa.Column("progress_unit", sa.String(length=16), nullable=False, comment="bytes, steps or images"),
        sa.Column("progress_epoch", sa.Integer(), nullable=True, comment="epoch in work, from 1"),
        sa.Column("progress_epochs", sa.Integer(), nullable=True, comment="epochs in all"),
        sa.Column("progress_rate", sa.Double(), nullable=True, comment="units a second"),
        sa.Column("progress_at", MOMENT, nullable=True, comment="when it was reported"),
        sa.Column("data_hash", sa.Text(), nullable=True, comment="content hash of the data set"),
        sa.Column("artifact_root", sa.Text(), nullable=True, comment="id of the root that holds its checkpoints"),
        sa.Column("best_accuracy", sa.Double(), nullable=True, comment="best validation accuracy, 0 to 1"),
        sa.Column("submitted_at", MOMENT, nullable=False, comment="when it was submitted"),
        sa.Column("not_before", MOMENT, nullable=True, comment="claimed no earlier: backoff"),
        sa.Column("started_at", MOMENT, nullable=True, comment="first claim of this run"),
        sa.Column("finished_at", MOMENT, nullable=True, comment="end of this run"),
        sa.CheckConstraint("(state = 'failed') = (reason IS NOT NULL)", name=op.f("ck_jobs_failed_has_reason")),
        sa.CheckConstraint("(state = 'running') = (worker IS NOT NULL)", name=op.f("ck_jobs_running_has_worker")),
        sa.CheckConstraint(
            "(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_final_has_end"),
        ),
        sa.CheckConstraint("state <> 'running' OR attempt > 0", name=op.f("ck_jobs_running_has_attempt")),
        sa.CheckConstraint("state <> 'succeeded' OR stage = 'evaluate'", name=op.f("ck_jobs_succeeded_was_evaluated")),
        sa.CheckConstraint("wish = 'run' OR state = 'running'", name=op.f("ck_jobs_wish_is_of_running")),
        sa.CheckConstraint("best_accuracy BETWEEN 0 AND 1", name=op.f("ck_jobs_best_accuracy")),
        sa.CheckConstraint("length(id) = 8", name=op.f("ck_jobs_id")),
        sa.CheckConstraint(
            "run >= 1 AND attempt >= 0 AND beat >= 0 AND retries BETWEEN 0 AND total_retries AND furthest_step >= 0"
            " AND progress_done >= 0",
            name=op.f("ck_jobs_counters"),
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_jobs_idempotency_key")),
        comment="Jobs: the row is the truth, messages only say that there is one.",
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_claim", "jobs", ["state", "stage", "rank", "seq", "not_before"], unique=False)
    op.create_index(op.f("ix_jobs_name"), "jobs", ["name"], unique=False)
    op.create_index(op.f("ix_jobs_state_seq"), "jobs", ["state", "seq"], unique=False)
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False, comment="the worker's name"),
        sa.Column("host", sa.Text(), nullable=False, comment="name of its host"),
        sa.Column("boot_id", sa.Text(), nullable=False, comment="boot of the host, as the kernel has it"),
        sa.Column("pid_namespace", sa.Text(), nullable=False, comment="inode of the namespace that the pid is of"),
        sa.Column("pid", sa.BigInteger(), nullable=False, comment="process id"),
        sa.Column(
            "pid_started", sa.Double(), nullable=False, comment="start time of the process, as the kernel has it"
        ),
        sa.Column(
            "state",
            choice(("active", "draining", "unhealthy", "stopped", "lost"), "state"),
            nullable=False,
            comment="where the worker stands",
        ),
        sa.Column("devices", sa.JSON(), nullable=False, comment="one entry a slot"),
        sa.Column("versions", sa.JSON(), nullable=False, comment="of orch, Python, torch, …"),
        sa.Column("artifact_root", sa.Text(), nullable=True, comment="id of the root that it reaches"),
        sa.Column("started_at", MOMENT, nullable=False, comment="when it started"),
        sa.Column("beat", sa.Integer(), nullable=False, comment="the worker lives as long as this counter moves"),
        sa.Column("beat_at", MOMENT, nullable=False, comment="its last beat"),
        sa.Column("ended_at", MOMENT, nullable=True, comment="when it stopped or was found lost"),
        sa.CheckConstraint(
            "(state IN ('stopped', 'lost')) = (ended_at IS NOT NULL)", name=op.f("ck_workers_ended_has_end")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
        comment="Nodes: one row for each start of a worker.",
    )
    op.create_index(op.f("ix_workers_host"), "workers", ["host"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("job_id", JOB_ID, nullable=False, comment="the job"),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False, comment="fencing token, from 1"),
        sa.Column("run", sa.Integer(), nullable=False, comment="run of the job"),
        sa.Column("stage", choice(STAGES, "stage"), nullable=False, comment="the stage that was claimed"),
        sa.Column("worker", sa.Text(), nullable=False, comment="who claimed it"),
        sa.Column("host", sa.Text(), nullable=False, comment="the worker's host"),
        sa.Column("device", sa.Text(), nullable=False, comment="cpu or the UUID of a GPU"),
        sa.Column("artifact_root", sa.Text(), nullable=False, comment="id of the root that its checkpoints lie under"),
        sa.Column("started_at", MOMENT, nullable=False, comment="when it was claimed"),
        sa.Column("ended_at", MOMENT, nullable=True, comment="when it ended"),
        sa.Column("outcome", sa.String(length=16), nullable=True, comment="how it ended"),
        sa.Column("reason", choice(REASONS, "reason"), nullable=True, comment="why it failed"),
        sa.Column("resumed_from", sa.Integer(), nullable=True, comment="attempt whose checkpoint it went on from"),
        sa.Column("first_step", sa.BigInteger(), nullable=True, comment="step of that checkpoint; 0 at the start"),
        sa.Column("last_step", sa.BigInteger(), nullable=True, comment="last step that it did"),
        sa.Column(
            "line_end",
            sa.BigInteger(),
            nullable=True,
            comment="its rows past this step were left behind by a later attempt",
        ),
        sa.CheckConstraint(
            "outcome IN ('done', 'drained', 'cancelled', 'failed', 'lost')", name=op.f("ck_attempts_outcome")
        ),
        sa.CheckConstraint(
            "reason IS NULL OR outcome IN ('failed', 'lost')", name=op.f("ck_attempts_reason_is_of_failure")
        ),
        sa.CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name=op.f("ck_attempts_ended_has_outcome")),
        sa.CheckConstraint("attempt >= 1 AND run >= 1", name=op.f("ck_attempts_counters")),
        sa.CheckConstraint("resumed_from < attempt", name=op.f("ck_attempts_resumed_from_earlier")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_attempts")),
        comment="One row for each claim of a stage.",
    )
    op.create_table(
        "events",
        sa.Column("seq", SEQUENCE, nullable=False, comment="order of events"),
        sa.Column("job_id", JOB_ID, nullable=False, comment="the job"),
        sa.Column("run", sa.Integer(), nullable=False, comment="run of the job"),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="attempt of the job, 0 before the first"),
        sa.Column("at", MOMENT, nullable=False, comment="when"),
        sa.Column("actor", sa.Text(), nullable=False, comment="who: a user, a worker, the reconciler"),
        sa.Column("kind", sa.String(length=32), nullable=False, comment="what happened"),
        sa.Column("old_state", choice(STATES, "old_state"), nullable=True, comment="before, if it changed"),
        sa.Column("new_state", choice(STATES, "new_state"), nullable=True, comment="after, if it changed"),
        sa.Column("stage", choice(STAGES, "stage"), nullable=True, comment="the job's stage"),
        sa.Column("reason", choice(REASONS, "reason"), nullable=True, comment="why, of a failure"),
        sa.Column("detail", sa.Text(), nullable=True, comment="more, for people"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_events_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_events")),
        comment="Append only: one row for every change of state, written in the same transaction.",
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_events_job_id_seq"), "events", ["job_id", "seq"], unique=False)
    op.create_table(
        "checkpoints",
        sa.Column("job_id", JOB_ID, nullable=False, comment="the job"),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False, comment="attempt that wrote it"),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False, comment="optimizer steps done"),
        sa.Column("epoch", sa.Integer(), nullable=False, comment="epochs completed"),
        sa.Column("path", sa.Text(), nullable=False, comment="below the artifact root, POSIX"),
        sa.Column("bytes", sa.BigInteger(), nullable=False, comment="size of all its files"),
        sa.Column("sha256", sa.String(length=64), nullable=False, comment="digest of its content"),
        sa.Column("best", sa.Boolean(), nullable=False, comment="highest validation accuracy on the line"),
        sa.Column("last", sa.Boolean(), nullable=False, comment="newest on the line"),
        sa.Column("resumable", sa.Boolean(), nullable=False, comment="training can go on from it"),
        sa.Column("accuracy", sa.Double(), nullable=True, comment="validation accuracy, where it closes an epoch"),
        sa.Column("created_at", MOMENT, nullable=False, comment="when it was recorded"),
        sa.CheckConstraint("path <> '' AND path NOT LIKE '/%'", name=op.f("ck_checkpoints_path_is_relative")),
        sa.CheckConstraint(
            "epoch >= 0 AND step >= 0 AND bytes >= 0 AND accuracy BETWEEN 0 AND 1", name=op.f("ck_checkpoints_ranges")
        ),
        of_attempt("checkpoints"),
        sa.PrimaryKeyConstraint("job_id", "attempt", "step", name=op.f("pk_checkpoints")),
        comment="Checkpoints that were whole on disk when they were recorded.",
    )
    op.create_table(
        "epoch_metrics",
        sa.Column("job_id", JOB_ID, nullable=False, comment="the job"),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False, comment="attempt that closed it"),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False, comment="from 1"),
        sa.Column("split", sa.String(length=8), nullable=False, comment="train or val"),
        sa.Column("step", sa.BigInteger(), nullable=False, comment="optimizer steps done when it closed"),
        sa.Column("loss", sa.Double(), nullable=True, comment="mean cross-entropy, nats; NULL is NaN"),
        sa.Column("accuracy", sa.Double(), nullable=False, comment="0 to 1"),
        sa.Column("images", sa.Integer(), nullable=False, comment="pictures seen"),
        sa.Column("seconds", sa.Double(), nullable=False, comment="time it took"),
        sa.Column("lr", sa.Double(), nullable=True, comment="learning rate"),
        sa.CheckConstraint("split IN ('train', 'val')", name=op.f("ck_epoch_metrics_split")),
        sa.CheckConstraint(
            "epoch >= 1 AND images >= 0 AND accuracy BETWEEN 0 AND 1", name=op.f("ck_epoch_metrics_ranges")
        ),
        of_attempt("epoch_metrics"),
        sa.PrimaryKeyConstraint("job_id", "attempt", "epoch", "split", name=op.f("pk_epoch_metrics")),
        comment="Loss and accuracy of each epoch and split, of every attempt.",
    )
    op.create_table(
        "evaluations",
        sa.Column("job_id", JOB_ID, nullable=False, comment="the job"),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False, comment="attempt that measured"),
        sa.Column(
            "checkpoint_step", sa.BigInteger(), nullable=False, comment="step of the checkpoint that was measured"
        ),
        sa.Column("checkpoint_sha256", sa.String(length=64), nullable=False, comment="its digest"),
        sa.Column("loss", sa.Double(), nullable=True, comment="mean cross-entropy, nats; NULL is NaN"),
        sa.Column("accuracy", sa.Double(), nullable=False, comment="0 to 1"),
        sa.Column("images", sa.Integer(), nullable=False, comment="pictures of the validation split"),
        sa.Column("classes", sa.JSON(), nullable=False, comment="names, in order of their numbers"),
        sa.Column("precision", sa.JSON(), nullable=False, comment="per class"),
        sa.Column("recall", sa.JSON(), nullable=False, comment="per class"),
        sa.Column("confusion", sa.JSON(), nullable=False, comment="rows: truth, columns: prediction"),
        sa.Column("seconds", sa.Double(), nullable=False, comment="time it took"),
        sa.Column("created_at", MOMENT, nullable=False, comment="when it was recorded"),
        sa.CheckConstraint("images >= 0 AND accuracy BETWEEN 0 AND 1", name=op.f("ck_evaluations_ranges")),
        of_attempt("evaluations"),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_evaluations")),
        comment="What a checkpoint does on the validation split.",
    )
    op.create_table(
        "log_chunks",
        sa.Column("job_id", JOB_ID, nullable=False, comment="the job"),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False, comment="attempt that wrote it"),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False, comment="from 0 in each attempt"),
        sa.Column("text", sa.Text(), nullable=False, comment="a piece of the log"),
        sa.CheckConstraint("sequence >= 0", name=op.f("ck_log_chunks_sequence")),
        of_attempt("log_chunks"),
        sa.PrimaryKeyConstraint("job_id", "attempt", "sequence", name=op.f("pk_log_chunks")),
        comment="What the processes of an attempt printed.",
    )
    op.create_table(
        "step_metrics",
        sa.Column("job_id", JOB_ID, nullable=False, comment="the job"),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False, comment="attempt that did the step"),
        sa.Column("name", sa.String(length=64), nullable=False, comment="loss, lr, …"),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False, comment="optimizer step, from 1"),
        sa.Column("value", sa.Double(), nullable=True, comment="NULL is NaN"),
        of_attempt("step_metrics"),
        sa.PrimaryKeyConstraint("job_id", "attempt", "name", "step", name=op.f("pk_step_metrics")),
        comment="Values of single optimizer steps, of every attempt.",
        sqlite_with_rowid=False,
    )
    # ### end Alembic commands ###
