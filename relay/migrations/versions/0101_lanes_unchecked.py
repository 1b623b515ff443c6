"""No index of all deliveries by lane, and no reference to the lane that would need it"""

from __future__ import annotations

from alembic import op

revision = "0101"
down_revision = "0100"
# Only what removes old events is slower there without the index.
serves = "0100"

# As SQLAlchemy writes them in SQLite's statement of the table.
_TO_EVENT = ", \n\tCONSTRAINT fk_deliveries_event_id FOREIGN KEY(event_id) REFERENCES events (id)"
_TO_LANE = ", \n\tCONSTRAINT fk_deliveries_lane_id FOREIGN KEY(lane_id) REFERENCES lanes (id)"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _rewrite(_TO_LANE, "")
    else:
        op.drop_constraint("fk_deliveries_lane_id", "deliveries", type_="foreignkey")
    op.drop_index("ix_deliveries_lane", "deliveries")


def downgrade() -> None:
    op.create_index("ix_deliveries_lane", "deliveries", ["lane_id", "event_id"], unique=False)
    if op.get_context().dialect.name == "sqlite":
        _rewrite(_TO_EVENT, _TO_EVENT + _TO_LANE)
    else:
        op.create_foreign_key("fk_deliveries_lane_id", "deliveries", "lanes", ["lane_id"], ["id"])


def _rewrite(old: str, new: str) -> None:
    """Change the statement that made the table, as SQLite's manual advises for a reference.

    Alembic would copy all deliveries and make all their indexes again. The index that comes or
    goes in the same transaction tells other connections to read the schema anew.
    """
    op.execute("PRAGMA writable_schema = ON")
    op.execute(
        f"UPDATE sqlite_master SET sql = replace(sql, '{old}', '{new}')"
        " WHERE type = 'table' AND name = 'deliveries'"
    )
    op.execute("PRAGMA writable_schema = RESET")
