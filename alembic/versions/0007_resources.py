"""What jobs demand of their workers, and what workers have."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "demand",
            sa.Text(),
            nullable=False,
            server_default="",
            comment="what its worker must have, as JSON; nothing where any device will do",
        ),
    )
    op.drop_index("ix_jobs_claim", "jobs")
    op.create_index(
        "ix_jobs_claim",
        "jobs",
        ["state", "stage", "blocked", "submitted_by", "demand", "artifact_root", "rank", "seq", "not_before"],
    )
    op.add_column(
        "workers",
        sa.Column(
            "slots", sa.JSON(), nullable=True, comment="what each slot works on: id, kind, name and memory in bytes"
        ),
    )
    op.add_column("workers", sa.Column("labels", sa.JSON(), nullable=True, comment="list of text"))
