"""Order: jobs that wait for others or for their hour, turns between users, workers that are asked to drain."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JOB_ID = sa.String(8).with_variant(sa.String(8, collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def choice(values: tuple[str, ...], name: str) -> sa.Enum:
    return sa.Enum(*values, native_enum=False, length=24, create_constraint=True, name=name)


def upgrade() -> None:
    op.create_table(
        "dependencies",
        sa.Column("job_id", JOB_ID, nullable=False, comment="the job that waits"),
        sa.Column("needs", JOB_ID, nullable=False, comment="the job that it waits for; may have been deleted"),
        sa.Column(
            "rule", choice(("ok", "any"), "rule"), nullable=False, comment="which end of it will do: success, or any"
        ),
        sa.Column(
            "ended",
            choice(("succeeded", "failed", "cancelled", "deleted"), "ended"),
            nullable=True,
            comment="how that one ended",
        ),
        sa.CheckConstraint("job_id <> needs", name=op.f("ck_dependencies_needs_another")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_dependencies_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "needs", name=op.f("pk_dependencies")),
        comment="Which jobs a job waits for.",
    )
    op.create_index(op.f("ix_dependencies_needs"), "dependencies", ["needs"])
    op.drop_index("ix_jobs_claim", "jobs")
    with op.batch_alter_table("jobs", table_kwargs={"sqlite_autoincrement": True}) as jobs:
        jobs.alter_column(
            "rank",
            existing_type=sa.Double(),
            existing_nullable=False,
            existing_comment="order of claiming, seconds: lowest first, never changes",
            comment="order among the jobs of a user, seconds: lowest first",
        )
        jobs.alter_column(
            "not_before",
            existing_type=MOMENT,
            existing_nullable=True,
            existing_comment="claimed no earlier: backoff",
            comment="claimed no earlier; of a blocked job: when to look at it again",
        )
        jobs.add_column(
            sa.Column(
                "blocked",
                sa.Boolean(),
                nullable=False,
                server_default=sa.false(),
                comment="waits for its hour or for other jobs: not to be claimed",
            )
        )
        jobs.add_column(sa.Column("start_after", MOMENT, nullable=True, comment="begins no earlier, as a person asked"))
        jobs.add_column(sa.Column("parent", JOB_ID, nullable=True, comment="job that it was made from"))
        jobs.add_column(
            sa.Column(
                "start_step",
                sa.BigInteger(),
                nullable=True,
                comment="step of its parent's checkpoint that its training begins with",
            )
        )
        jobs.add_column(sa.Column("note", sa.Text(), nullable=True, comment="what a person noted of it"))
        jobs.create_check_constraint(op.f("ck_jobs_blocked_waits"), "state = 'queued' OR NOT blocked")
        jobs.create_check_constraint(op.f("ck_jobs_start_is_of_parent"), "start_step IS NULL OR parent IS NOT NULL")
    op.execute("UPDATE jobs SET blocked = true WHERE state = 'queued' AND not_before IS NOT NULL")
    op.create_index(
        "ix_jobs_claim",
        "jobs",
        ["state", "stage", "blocked", "submitted_by", "artifact_root", "rank", "seq", "not_before"],
    )
    op.create_index(
        "ix_jobs_due",
        "jobs",
        ["not_before", "rank", "seq"],
        sqlite_where=sa.text("blocked = 1"),
        postgresql_where=sa.text("blocked"),
    )
    op.create_index(op.f("ix_jobs_parent"), "jobs", ["parent"])
    with op.batch_alter_table("attempts") as attempts:
        attempts.add_column(
            sa.Column("submitted_by", sa.Text(), nullable=True, comment="the job's user: users take turns")
        )
    op.create_index("ix_attempts_turn", "attempts", ["submitted_by", "stage", "started_at"])
    with op.batch_alter_table("workers") as workers:
        workers.add_column(
            sa.Column(
                "wish",
                choice(("run", "drain"), "wish"),
                nullable=False,
                server_default="run",
                comment="what a person wants of it",
            )
        )
        workers.add_column(sa.Column("limits", sa.JSON(), nullable=True, comment="trainings at once, by user and tag"))
