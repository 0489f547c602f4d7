"""What each epoch's training took of its host."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "epoch_metrics",
        sa.Column(
            "usage", sa.JSON(), nullable=True, comment="cores, memory and GPU that the training took, share of waiting"
        ),
    )
