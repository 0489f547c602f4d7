"""Trainings that yield to urgent jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

JOB_ID = sa.String(8).with_variant(sa.String(8, collation="C"), "postgresql")

WISH, OUTCOME = "ck_jobs_wish", "ck_attempts_outcome"


def upgrade() -> None:
    with op.batch_alter_table("jobs", table_kwargs={"sqlite_autoincrement": True}) as jobs:
        jobs.alter_column(
            "wish",
            existing_type=sa.String(24),
            existing_nullable=False,
            existing_comment="what a person wants of the running job",
            comment="what is wished of the running job",
        )
        jobs.drop_constraint(op.f(WISH), type_="check")
        jobs.create_check_constraint(op.f(WISH), "wish IN ('run', 'yield', 'pause', 'cancel')")
        jobs.add_column(sa.Column("yields_to", JOB_ID, nullable=True, comment="urgent job that it makes room for"))
        jobs.create_check_constraint(op.f("ck_jobs_yields_to_another"), "(wish = 'yield') = (yields_to IS NOT NULL)")
    with op.batch_alter_table("attempts") as attempts:
        attempts.drop_constraint(op.f(OUTCOME), type_="check")
        attempts.create_check_constraint(
            op.f(OUTCOME), "outcome IN ('done', 'drained', 'paused', 'yielded', 'cancelled', 'failed', 'lost')"
        )
