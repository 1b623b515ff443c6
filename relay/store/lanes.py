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

from relay.rules import text
from relay.rules.delivery import State
from relay.store import schema

#: Lanes that one statement looks into.
TOGETHER = 16

_deliveries, _events, _lanes = schema.deliveries, schema.events, schema.lanes
_d, _e = _deliveries.c, _events.c

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


def _used() -> sa.Select[Any]:
    """Ask which of :data:`TOGETHER` lanes have a delivery that came from a customer."""
    names, kind = ("lane", "ending"), sa.Text()
    bound = [
        tuple(sa.bindparam(f"b_{name}_{number}", type_=kind) for name in names)
        for number in range(TOGETHER)
    ]
    rows = sa.values(*(sa.column(name, kind) for name in names), name="asked").data(bound)
    asked = rows.cte("asked")
    # The first will do, whatever else there is of the customer.
    first = (
        sa.select(_d.seq)
        .select_from(_events.join(_deliveries, _d.event_id == _e.id))
        .where(_e.customer_ending == asked.c.ending, _d.lane_id == asked.c.lane)
        .limit(1)
        .scalar_subquery()
    )
    return sa.select(asked.c.lane).where(first.is_not(None))


_USED = _used()


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
    wanted = sa.select(_lanes.c.id, _lanes.c.conversation).where(_lanes.c.id.in_(lane_ids))
    lanes = db.execute(wanted).all()
    empty = {lane.id for lane in lanes} - _used_of(db, lanes)
    # What is in line is lost without its lane, so the line is looked at, too.
    lines = schema.IN_LINE, schema.LATE_IN_LINE
    in_line = (sa.select(1).where(_d.lane_id == _lanes.c.id, line).exists() for line in lines)
    db.execute(sa.delete(_lanes).where(_lanes.c.id.in_(empty), ~sa.or_(*in_line)))


def _used_of(db: sa.Connection, lanes: Sequence[Any]) -> set[str]:
    """Return the ids of those *lanes* that have deliveries."""
    used: set[str] = set()
    asked = [(each.id, ending) for each in lanes for ending in _endings(each.conversation)]
    for start in range(0, len(asked), TOGETHER):
        some = asked[start : start + TOGETHER]
        some += some[-1:] * (TOGETHER - len(some))
        bound = {
            f"b_{name}_{number}": value
            for number, pair in enumerate(some)
            for name, value in zip(("lane", "ending"), pair, strict=True)
        }
        used.update(db.scalars(_USED, bound))
    unnamed = (each for each in lanes if each.conversation.startswith("~"))
    for each in unnamed:
        used.update(db.scalars(select_in_lane(each, _d.lane_id).limit(1)))
    return used


def select_in_lane(lane: Any, *columns: sa.Column[Any]) -> sa.Select[Any]:
    """Select deliveries of *lane* (a row with id and conversation), with those that have ended.

    They are found by the events of its customer: only what is in line has an index by lane. One
    of all deliveries would take each accept to one more page in no order, to read and to write.
    """
    endings = [_e.customer_ending == each for each in _endings(lane.conversation)]
    if lane.conversation.startswith("~"):
        endings.append(_e.customer_ending.is_(None))
    return (
        sa.select(*columns)
        .select_from(_events.join(_deliveries, _d.event_id == _e.id))
        .where(sa.or_(*endings), _d.lane_id == lane.id)
    )


def _endings(conversation: str) -> Sequence[str]:
    """Return how the customer of a conversation may be written in events; none: nobody is named.

    More than one, if the name has the sign that follows it.
    """
    parts = (conversation[:at] for at, letter in enumerate(conversation) if letter == "~")
    return [text.ending(each) for each in parts if each]


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
