"""What belongs to an event, as people see it: deliveries, attempts, requests, acts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.store import schema
from relay.store.values import (
    ActionView,
    Ahead,
    AttemptView,
    DeliveryView,
    EventView,
    Request,
    load_event,
    load_request,
    request_of,
)


def select_events() -> sa.Select[Any]:
    """Select events, with what :func:`views` needs of their keys."""
    events, keys = schema.events, schema.keys
    joined = events.outerjoin(keys, events.c.key == keys.c.key)
    return sa.select(events, keys.c.duplicates).select_from(joined)


def select_brought() -> sa.Select[Any]:
    """Select what the events keep of their requests, with the texts, without the payloads."""
    c = schema.events.c
    columns = (c.seq, c.id, c.standing, c.endpoint, c.message_id, c.received_at, c.body,
               c.request_id, c.remote, c.reason, c.headers)  # fmt: skip
    return sa.select(*columns).where(c.request_id.is_not(None))


def views(
    db: sa.Connection, rows: Sequence[sa.RowMapping], *, whole: bool = False
) -> list[EventView]:
    """Add to rows of events what belongs to them; all of it, or the deliveries."""
    ids = [row["id"] for row in rows]
    deliveries = _deliveries(db, ids, whole=whole)
    requests = _requests(db, ids) if whole else {}
    acts = actions(db, ids) if whole else {}
    others = {row["id"]: _contradictions(db, row) for row in rows} if whole else {}
    return [
        EventView(
            event=load_event(row),
            standing=row["standing"],
            duplicates=row["duplicates"] or 0,
            deliveries=deliveries.get(row["id"], ()),
            routing=json.loads(row["routing"]),
            requests=_with_first(row, requests.get(row["id"], ())) if whole else (),
            actions=acts.get(row["id"], ()),
            **others.get(row["id"], {}),
        )
        for row in rows
    ]


def _deliveries(
    db: sa.Connection, event_ids: Sequence[str], *, whole: bool
) -> Mapping[str, Sequence[DeliveryView]]:
    table = schema.deliveries
    wanted = sa.select(table).where(table.c.event_id.in_(event_ids)).order_by(table.c.seq)
    rows = db.execute(wanted).mappings().all()
    history = _attempts(db, [row["id"] for row in rows]) if whole else {}
    lanes = _lanes(db, [row["lane_id"] for row in rows])
    found: dict[str, list[DeliveryView]] = {}
    for row in rows:
        found.setdefault(row["event_id"], []).append(
            DeliveryView(
                id=row["id"],
                destination=row["destination"],
                state=State(row["state"]),
                attempts=row["attempts"],
                reference=row["reference"],
                url=row["url"],
                error=row["reason"],
                due_at=row["due_at"],
                late=row["late"],
                trigger=row["trigger"],
                config=row["config"],
                failing_since=row["failing_since"],
                node=row["node"],
                lease_until=row["lease_until"],
                ended_at=row["ended_at"],
                history=history.get(row["id"], ()),
                **_place(db, row, lanes[row["lane_id"]], whole=whole),
            )
        )
    return found


def _attempts(
    db: sa.Connection, delivery_ids: Sequence[str]
) -> Mapping[str, Sequence[AttemptView]]:
    table = schema.attempts
    wanted = sa.select(table).where(table.c.delivery_id.in_(delivery_ids)).order_by(table.c.seq)
    found: dict[str, list[AttemptView]] = {}
    for row in db.execute(wanted).mappings():
        found.setdefault(row["delivery_id"], []).append(load_attempt(row))
    return found


def load_attempt(row: sa.RowMapping) -> AttemptView:
    return AttemptView(**{each.name: row[each.name] for each in fields(AttemptView)})


def _lanes(db: sa.Connection, ids: Sequence[str]) -> Mapping[str, Any]:
    lanes = schema.lanes
    rows = db.execute(sa.select(lanes).where(lanes.c.id.in_(ids)))
    return {row.id: row for row in rows}


def _place(db: sa.Connection, row: sa.RowMapping, lane: Any, *, whole: bool) -> dict[str, Any]:
    """Return the thread of a delivery's conversation, and what the delivery waits for."""
    place = {"thread": lane.thread, "parks": lane.parked_by == row["id"]}
    if whole and row["state"] == State.WAITING:
        place["ahead"] = _ahead(db, row, None if row["late"] else lane.parked_by)
    return place


def _ahead(db: sa.Connection, row: sa.RowMapping, parked_by: str | None) -> Ahead | None:
    """Return what the waiting delivery *row* waits for; None if there is nothing."""
    d, e = schema.deliveries.c, schema.events.c
    # A late delivery may stand behind a younger one.
    before = sa.or_(d.seq < row["seq"], d.state != State.WAITING)
    in_line = schema.LATE_IN_LINE if row["late"] else schema.IN_LINE
    line = d.lane_id == row["lane_id"], in_line, before
    number = db.execute(sa.select(sa.func.count()).where(*line)).scalar_one()
    columns = (d.id, d.event_id, d.state, d.due_at, d.reason, e.message_id)
    wanted = sa.select(*columns).join(schema.events, e.id == d.event_id)
    if parked_by is None:
        wanted = wanted.where(*line).order_by(d.state == State.WAITING, d.seq).limit(1)
    else:
        wanted = wanted.where(d.id == parked_by)
    head = db.execute(wanted).first()
    return head and Ahead(
        delivery_id=head.id,
        message_id=head.message_id,
        event_id=head.event_id,
        state=State(head.state),
        due_at=head.due_at,
        reason=head.reason,
        parks=parked_by is not None,
        number=number + (parked_by is not None),
    )


def actions(db: sa.Connection, event_ids: Sequence[str]) -> Mapping[str, Sequence[ActionView]]:
    table = schema.actions
    wanted = sa.select(table).where(table.c.event_id.in_(event_ids)).order_by(table.c.seq)
    found: dict[str, list[ActionView]] = {}
    for row in db.execute(wanted).mappings():
        found.setdefault(row["event_id"], []).append(
            ActionView(**{each.name: row[each.name] for each in fields(ActionView)})
        )
    return found


def _contradictions(db: sa.Connection, row: sa.RowMapping) -> dict[str, Any]:
    """Return the event that a conflict contradicts, or the conflicts with an event."""
    if row["message_id"] is None:
        return {}
    c = schema.events.c
    same = sa.select(c.id).where(c.message_id == row["message_id"], c.endpoint == row["endpoint"])
    if row["standing"] == "conflict":
        known = same.where(c.standing != "conflict").order_by(c.seq).limit(1)
        return {"contradicts": db.scalar(known)}
    conflicts = same.where(c.standing == "conflict").order_by(c.seq)
    return {"contradicted_by": db.scalars(conflicts).all()}


def _with_first(row: sa.RowMapping, others: Sequence[Request]) -> Sequence[Request]:
    return others if row["request_id"] is None else [request_of(row), *others]


def _requests(db: sa.Connection, event_ids: Sequence[str]) -> Mapping[str, Sequence[Request]]:
    table = schema.requests
    wanted = sa.select(table).where(table.c.event_id.in_(event_ids)).order_by(table.c.seq)
    found: dict[str, list[Request]] = {}
    for row in db.execute(wanted).mappings():
        found.setdefault(row["event_id"], []).append(load_request(row))
    return found
