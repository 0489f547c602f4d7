"""Notices: who is told of a job, and the outbox of what is to be told."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JOB_ID = sa.String(8).with_variant(sa.String(8, collation="C"), "postgresql")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "tellings",
        sa.Column("job_id", JOB_ID, nullable=False, comment="job"),
        sa.Column("target", sa.Text(), nullable=False, comment="URL, with its secrets"),
        sa.Column("occasions", sa.JSON(), nullable=False, comment="list of what is told"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_tellings_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "target", name=op.f("pk_tellings")),
        comment="Who is told of a job.",
    )
    op.create_table(
        "notices",
        sa.Column("seq", SEQUENCE, nullable=False, comment="order of what happened"),
        sa.Column("job_id", JOB_ID, nullable=False, comment="job"),
        sa.Column("target", sa.Text(), nullable=False, comment="URL, with its secrets"),
        sa.Column("message", sa.JSON(), nullable=False, comment="what is told"),
        sa.Column("tries", sa.Integer(), nullable=False, comment="that have begun"),
        sa.Column("maybe_heard", sa.Integer(), nullable=False, comment="tries of which nobody knows that they failed"),
        sa.Column("due_at", MOMENT, nullable=True, comment="when to try next; NULL: never again"),
        sa.Column("told_at", MOMENT, nullable=True, comment="when it was heard"),
        sa.CheckConstraint("maybe_heard BETWEEN 0 AND tries", name=op.f("ck_notices_tries")),
        sa.CheckConstraint("told_at IS NULL OR due_at IS NULL", name=op.f("ck_notices_told_once")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_notices_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_notices")),
        sqlite_autoincrement=True,
        comment="The outbox: what is to be told, and what was.",
    )
    op.create_index(op.f("ix_notices_due_at"), "notices", ["due_at"])
    op.create_index(op.f("ix_notices_job_id"), "notices", ["job_id"])
