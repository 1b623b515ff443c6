"""Lanes: which delivery is at the head of a conversation, and which follows.

Late deliveries form a second line in their lane. They do not hold up the first line, but go one
after the other, so that a replay into an empty system makes one ticket and not many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.rules.delivery import State
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
_LATE_AHEAD = sa.select(1).select_from(_deliveries).where(_d.lane_id == _lane, schema.LATE_AT_HEAD)
_LATE_FOLLOWING = (
    sa.select(_d.seq)
    .where(_d.lane_id == _lane, schema.LATE_IN_LINE, _d.state == State.WAITING)
    .order_by(_d.seq)
    .limit(1)
)
_PROMOTE_LATE = (
    sa.update(_deliveries)
    .where(_d.seq == _LATE_FOLLOWING.scalar_subquery(), ~_LATE_AHEAD.exists())
    .values(state=State.PENDING, due_at=sa.bindparam("b_now", type_=schema.UtcTime()))
)
_SEVERAL = _lanes.c.id.in_(sa.bindparam("b_lanes", expanding=True))
# Not whether there is one: PostgreSQL may answer that from all that wait, for each lane anew.
_FIRST_WAITING = sa.select(sa.func.min(_d.seq)).where(
    _d.lane_id == _lanes.c.id, _d.state == State.WAITING
)


def _followed(line: sa.TextClause) -> sa.Select[Any]:
    """Ask in which of several lanes a delivery waits in *line*."""
    first = _FIRST_WAITING.where(line).scalar_subquery()
    return sa.select(_lanes.c.id).where(_SEVERAL, first.is_not(None))


_FOLLOWED, _LATE_FOLLOWED = _followed(schema.IN_LINE), _followed(schema.LATE_IN_LINE)
_LATE = sa.select(1).select_from(_deliveries).where(_d.lane_id == _lane, schema.LATE_IN_LINE)
_LOCK = sa.select(_lanes.c.id).where(_SEVERAL).order_by(_lanes.c.id).with_for_update()


def lane_name(destination: str, conversation: str) -> str:
    """Name a lane by a digest, so that writers need not ask the database for a number first."""
    digest = hashlib.sha256(f"{len(destination)}:{destination}{conversation}".encode())
    return digest.hexdigest()[:32]


def lock_lanes(db: sa.Connection, lane_ids: Iterable[str]) -> None:
    """Lock lanes in the order of their keys, as everyone must who changes a lane's head."""
    if db.dialect.name == "sqlite":
        return  # the file has one writer at a time
    db.execute(_LOCK, {"b_lanes": sorted(lane_ids)}).all()


def forget_empty(db: sa.Connection, lane_ids: Iterable[str]) -> None:
    """Remove lanes without deliveries. The caller has locked them."""
    used = sa.select(1).where(_d.lane_id == _lanes.c.id).exists()
    db.execute(sa.delete(_lanes).where(_lanes.c.id.in_(lane_ids), ~used))


def late_values(db: sa.Connection, lane_id: str, *, now: datetime) -> dict[str, Any]:
    """Return the values of one more late delivery: at the head of its line, or behind others.

    The caller has locked the lane.
    """
    if db.execute(_LATE.limit(1), {"b_lane": lane_id}).first() is None:
        return {"state": State.PENDING, "late": True, "due_at": now}
    return {"state": State.WAITING, "late": True, "due_at": None}


def promote(db: sa.Connection, lane_id: str, *, now: datetime) -> None:
    """Make the next delivery of both lines of a lane due, if no delivery is at the head."""
    promote_all(db, [(lane_id, now)])
    promote_all(db, [(lane_id, now)], late=True)


def promote_all(
    db: sa.Connection, lanes: Sequence[tuple[str, datetime]], *, late: bool = False
) -> None:
    """Make the next delivery of several lanes due at given times; *late*: of their late lines."""
    if not lanes:
        return
    # One query finds the lanes in which a delivery waits, which are few.
    looked_for = {"b_lanes": sorted({lane_id for lane_id, _ in lanes})}
    followed = set(db.scalars(_LATE_FOLLOWED if late else _FOLLOWED, looked_for))
    rows = [{"b_lane": lane_id, "b_now": now} for lane_id, now in lanes if lane_id in followed]
    if rows:
        db.execute(_PROMOTE_LATE if late else _PROMOTE, rows)
