"""Late deliveries of a conversation stand in line, one behind the other"""

from __future__ import annotations

from alembic import op

from relay.store.schema import LATE_IN_LINE

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_index(
        "ix_deliveries_late",
        "deliveries",
        ["lane_id", "seq"],
        unique=False,
        sqlite_where=LATE_IN_LINE,
        postgresql_where=LATE_IN_LINE,
    )


def downgrade() -> None:
    # Nobody promotes them in what comes before.
    op.execute(
        "UPDATE deliveries SET state = 'pending', due_at = created_at"
        " WHERE state = 'waiting' AND late"
    )
    op.drop_index("ix_deliveries_late", table_name="deliveries")
