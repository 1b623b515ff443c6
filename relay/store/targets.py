"""Deliveries and events that a person would act on, as they are found before that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.rules.recovery import FoundDelivery, FoundEvent, Latest
from relay.store import schema
from relay.store.search import Filter, event_named, of_delivery, of_event, whole_id
from relay.store.values import load_event

_d, _e, _lanes = schema.deliveries.c, schema.events.c, schema.lanes.c
_DELIVERY = {each.name for each in fields(FoundDelivery)}


def select_deliveries(wanted: Filter) -> sa.Select[Any]:
    """Select the deliveries that *wanted* matches, in no order."""
    return _found().where(*of_delivery(wanted), *of_event(wanted))


def load_deliveries(db: sa.Connection, wanted: sa.Select[Any]) -> list[FoundDelivery]:
    """Load the deliveries of a selection."""
    return [_delivery(row) for row in db.execute(wanted).mappings()]


def load_events(db: sa.Connection, wanted: sa.Select[Any]) -> list[FoundEvent]:
    """Load the events of a selection, with what a replay needs to know."""
    rows = db.execute(wanted).mappings().all()
    latest = latest_of(db, [row["id"] for row in rows])
    return [
        FoundEvent(
            seq=row["seq"],
            event=load_event(row),
            key=row["key"],
            standing=row["standing"],
            then=_routed(row["routing"]),
            deliveries=latest.get(row["id"], {}),
        )
        for row in rows
    ]


def latest_of(db: sa.Connection, event_ids: Sequence[str]) -> dict[str, dict[str, Latest]]:
    """Return the newest delivery of each event to each destination."""
    columns = (_d.event_id, _d.destination, _d.id, _d.state)
    found: dict[str, dict[str, Latest]] = {}
    wanted = sa.select(*columns).where(_d.event_id.in_(event_ids)).order_by(_d.seq)
    for row in db.execute(wanted):
        latest = Latest(id=row.id, state=State(row.state))
        found.setdefault(row.event_id, {})[row.destination] = latest
    return found


def deliveries_named(db: sa.Connection, name: str) -> list[FoundDelivery]:
    """Return the delivery *name*, or the newest ones of the event or messageId *name*.

    The beginning of an id will do if no other begins so. Raises :class:`Unknown`.
    """
    found = load_deliveries(db, _found().where(_d.id == name))
    if not found and name.startswith("dlv_"):
        found = load_deliveries(db, _found().where(_d.id == whole_id(db, name)))
    if found:
        return found
    event = sa.select(_e.id).where(_e.id == event_named(db, name))
    every = load_deliveries(db, _found().where(_d.event_id.in_(event)).order_by(_d.seq))
    return list({each.destination: each for each in every}.values())


def deliveries_with(db: sa.Connection, ids: Sequence[str]) -> dict[str, FoundDelivery]:
    """Return the deliveries with these ids, as far as they exist."""
    return {each.id: each for each in load_deliveries(db, _found().where(_d.id.in_(ids)))}


def _found() -> sa.Select[Any]:
    newer = schema.deliveries.alias("newer")
    copy = (
        sa.select(sa.func.max(newer.c.id))
        .where(
            newer.c.event_id == _d.event_id,
            newer.c.destination == _d.destination,
            newer.c.seq > _d.seq,
        )
        .scalar_subquery()
    )
    parks = sa.func.coalesce(_lanes.parked_by == _d.id, sa.false())
    of_event = (_e.message_id, _e.type, _e.customer, _e.received_at)
    of_delivery = [column for column in _d if column.name in _DELIVERY]
    joined = schema.deliveries.join(schema.events, _e.id == _d.event_id)
    joined = joined.join(schema.lanes, _lanes.id == _d.lane_id)
    return sa.select(
        *of_delivery, *of_event, parks.label("parks"), copy.label("copy")
    ).select_from(joined)


def _delivery(row: sa.RowMapping) -> FoundDelivery:
    values = {name: row[name] for name in _DELIVERY}
    return FoundDelivery(**values | {"state": State(row["state"]), "parks": bool(row["parks"])})


def _routed(routing: str) -> list[str]:
    """Return the destinations to which the event was routed when it came."""
    matched = (route["to"] for route in json.loads(routing) if route["matched"])
    return list(dict.fromkeys(name for to in matched for name in to))
