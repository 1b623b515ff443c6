"""Requests of accepted events with the event; health with a breaker; what people did"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from relay.store.schema import UtcTime

revision = "0002"
down_revision = "0001"

_REQUEST = ("request_id", "remote", "reason", "headers")
#: What is empty now while nothing is wrong.
_HEALTH: dict[str, sa.types.TypeEngine[Any]] = {
    "cause": sa.Text(),
    "reason": sa.Text(),
    "since": UtcTime(),
}


def upgrade() -> None:
    for name in _REQUEST:
        op.add_column("events", sa.Column(name, sa.Text(), nullable=True))
    op.add_column(
        "deliveries",
        sa.Column("trigger", sa.Text(), server_default="scheduled", nullable=False),
    )
    _index("ix_deliveries_newest", sa.text("state = 'pending'"))
    _index("ix_deliveries_stopped", sa.text("state IN ('dead', 'held')"))
    with op.batch_alter_table("destinations", copy_from=_destinations()) as table:
        table.add_column(sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
        for name, kind in _HEALTH.items():
            table.alter_column(name, existing_type=kind, nullable=True)
    op.create_table(
        "actions",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("delivery_id", sa.Text(), nullable=True),
        sa.Column("destination", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_actions")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_actions_event_id"), "actions", ["event_id"], unique=False)


def downgrade() -> None:
    op.drop_table("actions")
    op.execute("DELETE FROM destinations WHERE cause IS NULL")
    failures = sa.Column("failures", sa.Integer(), nullable=False, server_default="0")
    with op.batch_alter_table("destinations", copy_from=_destinations(failures)) as table:
        for name, kind in _HEALTH.items():
            table.alter_column(name, existing_type=kind, nullable=False)
        table.drop_column("failures")
    for name in ("ix_deliveries_stopped", "ix_deliveries_newest"):
        op.drop_index(name, table_name="deliveries")
    op.drop_column("deliveries", "trigger")
    _give_requests_rows()
    for name in reversed(_REQUEST):
        op.drop_column("events", name)


def _destinations(*more: sa.Column[Any]) -> sa.Table:
    """Return the table as it is, which cannot be looked at where statements are only printed."""
    return sa.Table(
        "destinations",
        sa.MetaData(),
        sa.Column("name", sa.Text(), nullable=False),
        *(sa.Column(name, kind, nullable=bool(more)) for name, kind in _HEALTH.items()),
        sa.Column("until", UtcTime(), nullable=True),
        *more,
        sa.PrimaryKeyConstraint("name", name=op.f("pk_destinations")),
    )


def _index(name: str, where: sa.TextClause) -> None:
    op.create_index(
        name,
        "deliveries",
        ["destination", "seq"],
        unique=False,
        sqlite_where=where,
        postgresql_where=where,
    )


def _give_requests_rows() -> None:
    op.execute(
        "INSERT INTO requests (id, at, endpoint, method, remote, status, outcome, reason,"
        " event_id, message_id, headers)"
        " SELECT request_id, received_at, endpoint, 'POST', remote, 200, standing, reason,"
        " id, message_id, headers FROM events WHERE request_id IS NOT NULL"
    )
