"""Which devices an attempt holds, and workers that have taken on as many jobs as they may."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

STATE = "ck_workers_state"


def upgrade() -> None:
    op.add_column(
        "attempts",
        sa.Column(
            "devices",
            sa.JSON(),
            nullable=True,
            comment="ids of the devices that it holds; NULL: a download, or not told",
        ),
    )
    with op.batch_alter_table("workers") as workers:
        workers.drop_constraint(op.f(STATE), type_="check")
        workers.create_check_constraint(
            op.f(STATE), "state IN ('active', 'spent', 'draining', 'unhealthy', 'stopped', 'lost')"
        )
