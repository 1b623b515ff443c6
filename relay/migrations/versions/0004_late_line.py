"""Late deliveries of a conversation stand in line, one behind the other"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    _index(
        "ix_deliveries_late",
        ["lane_id", "seq"],
        sa.text("state IN ('waiting', 'pending', 'in_flight') AND late"),
    )
    _index(
        "ix_deliveries_late_head",
        ["lane_id"],
        sa.text("state IN ('pending', 'in_flight') AND late"),
    )


def downgrade() -> None:
    # Nobody promotes them in what comes before.
    op.execute(
        "UPDATE deliveries SET state = 'pending', due_at = created_at"
        " WHERE state = 'waiting' AND late"
    )
    op.drop_index("ix_deliveries_late_head", table_name="deliveries")
    op.drop_index("ix_deliveries_late", table_name="deliveries")


def _index(name: str, columns: Sequence[str], where: sa.TextClause) -> None:
    op.create_index(
        name,
        "deliveries",
        columns,
        unique=False,
        sqlite_where=where,
        postgresql_where=where,
    )
