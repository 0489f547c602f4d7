"""Attempts that were paused, jobs that were deleted; every checkpoint can be resumed from.

`checkpoints.resumable` stays for workers that run during the upgrade and write it; a later revision can drop it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JOB_ID = sa.String(8).with_variant(sa.String(8, collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)

STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")

OUTCOME = "ck_attempts_outcome"


def upgrade() -> None:
    op.create_table(
        "deleted_jobs",
        sa.Column("id", JOB_ID, nullable=False, comment="the job's id"),
        sa.Column(
            "state",
            sa.Enum(*STATES, native_enum=False, length=24, create_constraint=True, name="state"),
            nullable=False,
            comment="where the job stood",
        ),
        sa.Column("run", sa.Integer(), nullable=False, comment="its last run"),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="its last attempt"),
        sa.Column("deleted_by", sa.Text(), nullable=False, comment="user"),
        sa.Column("deleted_at", MOMENT, nullable=False, comment="when"),
        sa.CheckConstraint("state <> 'running'", name=op.f("ck_deleted_jobs_not_running")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_jobs")),
        comment="What a person has deleted: a job in neither table was lost.",
    )
    with op.batch_alter_table("checkpoints") as checkpoints:
        checkpoints.alter_column(
            "resumable",
            existing_type=sa.Boolean(),
            existing_nullable=False,
            existing_comment="training can go on from it",
            server_default=sa.true(),
            comment="unused: always true, written by workers older than this schema",
        )
    with op.batch_alter_table("attempts") as attempts:
        attempts.drop_constraint(op.f(OUTCOME), type_="check")
        attempts.create_check_constraint(
            op.f(OUTCOME), "outcome IN ('done', 'drained', 'paused', 'cancelled', 'failed', 'lost')"
        )
