"""Lanes: who is at the head of a conversation, and who follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa

from relay.delivery import State
from relay.store import schema

_deliveries, _lanes = schema.deliveries, schema.lanes
_d = _deliveries.c

_lane: sa.BindParameter[str] = sa.bindparam("b_lane")
_AHEAD = sa.select(1).select_from(_deliveries).where(_d.lane_id == _lane, schema.AT_HEAD)
_PARKED = sa.select(1).where(_lanes.c.id == _lane, _lanes.c.parked_by.is_not(None))
_FOLLOWING = (
    sa.select(_d.seq)
    .where(_d.lane_id == _lane, schema.IN_LINE, _d.state == State.WAITING)
    .order_by(_d.seq)
    .limit(1)
)
_PROMOTE = (
    sa.update(_deliveries)
    .where(_d.seq == _FOLLOWING.scalar_subquery(), ~_AHEAD.exists(), ~_PARKED.exists())
    .values(state=State.PENDING, due_at=sa.bindparam("b_now", type_=schema.UtcTime()))
)
_LOCK = (
    sa.select(_lanes.c.id)
    .where(_lanes.c.id.in_(sa.bindparam("b_lanes", expanding=True)))
    .order_by(_lanes.c.id)
    .with_for_update()
)


def lock_lanes(db: sa.Connection, lane_ids: Iterable[str]) -> None:
    """Lock lanes in the order of their keys, as everybody does who changes who is at a head."""
    db.execute(_LOCK, {"b_lanes": sorted(lane_ids)}).all()


def promote(db: sa.Connection, lane_id: str, *, now: datetime) -> None:
    """Make the next delivery of a lane due, if nothing is at its head."""
    promote_all(db, [(lane_id, now)])


def promote_all(db: sa.Connection, lanes: Sequence[tuple[str, datetime]]) -> None:
    """Do so in several lanes, each from its own time on."""
    if lanes:
        db.execute(_PROMOTE, [{"b_lane": lane_id, "b_now": now} for lane_id, now in lanes])
