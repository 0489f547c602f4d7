"""Which hosts have which data sets, as jobs have told."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "copies",
        sa.Column("host", sa.Text(), nullable=False, comment="its name"),
        sa.Column("hash", sa.String(80), nullable=False, comment="content hash"),
        sa.Column("source", sa.Text(), nullable=False, comment="where jobs say that it is from, secrets masked"),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, comment="when a job had it there"),
        sa.PrimaryKeyConstraint("host", "hash", name=op.f("pk_copies")),
        comment="Which hosts have which data sets, as jobs have told.",
    )
