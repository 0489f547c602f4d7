"""What a worker's attempts came to is asked at each of its beats, and sought among all that there ever were."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_attempts_ended", "attempts", ["worker", "ended_at"])
