"""Where a job comes from: the commit it was submitted at, the origin of its values, and what its attempts ran on."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

JOB_ID = sa.String(8).with_variant(sa.String(8, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sources",
        sa.Column("job_id", JOB_ID, nullable=False, comment="job"),
        sa.Column("origins", sa.JSON(), nullable=False, comment="where each value of the spec comes from"),
        sa.Column("revision", sa.String(64), nullable=True, comment="git commit of the folder it was submitted in"),
        sa.Column("branch", sa.Text(), nullable=True, comment="its branch"),
        sa.Column("dirty", sa.Boolean(), nullable=True, comment="whether tracked files differed from the commit"),
        sa.Column("diff", sa.Text(), nullable=True, comment="how they differed, secrets masked"),
        sa.Column("diff_sha256", sa.String(64), nullable=True, comment="of the difference as git wrote it"),
        sa.Column("diff_bytes", sa.BigInteger(), nullable=True, comment="size of that"),
        sa.Column("remark", sa.Text(), nullable=True, comment="what is not as git wrote it, or missing, and why"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_sources_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_sources")),
        comment="Where jobs come from.",
    )
    op.add_column(
        "attempts",
        sa.Column("environment", sa.JSON(), nullable=True, comment="versions, device and numbers that it trained with"),
    )
    op.create_index("ix_jobs_spec_hash", "jobs", ["spec_hash", "state", "seq"])
