"""Deliveries are found by their lane, so that one with none is forgotten quickly"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
serves = "0005"


def upgrade() -> None:
    op.create_index("ix_deliveries_lane", "deliveries", ["lane_id", "event_id"])


def downgrade() -> None:
    op.drop_index("ix_deliveries_lane", "deliveries")
