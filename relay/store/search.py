"""Deliveries and events that a person means, by name or by filter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.rules.mentions import Ending, texts_in
from relay.rules.recovery import FoundDelivery, FoundEvent, Latest
from relay.rules.wording import Wording
from relay.store import schema
from relay.store.ids import shortened
from relay.store.values import Request, load_event

STOPPED = (State.DEAD, State.HELD)

_d, _e, _lanes = schema.deliveries.c, schema.events.c, schema.lanes.c

#: What may be the beginning of an event's or a delivery's id.
_BEGINNING = re.compile("(evt|dlv)_[0-9a-f]{1,23}")
#: How many ids are listed where a beginning means several.
_LISTED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Which deliveries or events a person means; fields that are not set match everything."""

    destinations: Sequence[str] = ()
    states: Sequence[State] = ()
    #: The whole reason, with ``*`` for anything.
    reason: str | None = None
    #: When the event was received: from, and before.
    since: datetime | None = None
    until: datetime | None = None
    endpoint: str | None = None
    customer: str | None = None
    type: str | None = None
    message_id: str | None = None
    standings: Sequence[str] = ()
    #: The customer's number from its end, as :func:`relay.rules.text.ending` writes it.
    ending: str | None = None
    #: Words of the text, which :func:`says` tests: no condition of SQL can.
    wording: Wording | None = None

    @property
    def is_stopped(self) -> bool:
        """Return whether only stopped deliveries are meant, which have an index of their own."""
        return bool(self.states) and set(self.states) <= set(STOPPED)


class Unknown(LookupError):
    """No event or delivery has this name, or several events have; the text says which."""


def select_deliveries(wanted: Filter) -> sa.Select[Any]:
    """Select the deliveries that *wanted* matches, in no order."""
    return _found().where(*_of_delivery(wanted), *of_event(wanted))


def select_destinations(wanted: Filter) -> sa.Select[Any]:
    """Select the destinations that *wanted* matches, ignoring its conditions on events."""
    return sa.select(_d.destination).where(*_of_delivery(wanted)).distinct()


def select_reasons(wanted: Filter) -> sa.Select[Any]:
    """Count the deliveries that *wanted* matches by destination and reason."""
    columns = (
        _d.destination,
        _d.reason,
        sa.func.count().label("number"),
        sa.func.min(_e.received_at, type_=schema.UtcTime()).label("oldest"),
        sa.func.max(_e.received_at, type_=schema.UtcTime()).label("newest"),
    )
    joined = schema.deliveries.join(schema.events, _e.id == _d.event_id)
    return (
        sa.select(*columns)
        .select_from(joined)
        .where(*_of_delivery(wanted), *of_event(wanted))
        .group_by(_d.destination, _d.reason)
    )


def select_events(wanted: Filter) -> sa.Select[Any]:
    """Select the events that *wanted* matches, in no order."""
    return sa.select(schema.events).where(*of_event(wanted))


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


def event_named(db: sa.Connection, name: str) -> str:
    """Return the id of the event that has the id or messageId *name*. Raises :class:`Unknown`."""
    named = sa.select(_e.id, _e.standing, _e.endpoint)
    if db.execute(named.where(_e.id == name)).first():
        return name
    rows = db.execute(named.where(_e.message_id == name).order_by(_e.seq)).all()
    if not rows and name.startswith("evt_") and (whole := whole_id(db, name)) != name:
        return whole
    if not rows:
        raise Unknown(f'no event or delivery "{name}"')
    accepted = [row for row in rows if row.standing == "accepted"] or rows
    if len(accepted) > 1:
        which = ", ".join(f"{row.id} ({row.endpoint})" for row in accepted)
        raise Unknown(f'"{name}" is the messageId of several events, name one of {which}')
    return str(accepted[0].id)


def whole_id(db: sa.Connection, name: str) -> str:
    """Return the id of the event or delivery that begins with *name*; *name* if none does.

    Raises :class:`Unknown` if several do.
    """
    if not _BEGINNING.fullmatch(name):
        return name
    column = _e.id if name.startswith("evt_") else _d.id
    # Ids are hexadecimal: all that begin with *name* lie before its "g", in any collation.
    begins = column >= name, column < f"{name}g"
    found = db.scalars(sa.select(column).where(*begins).order_by(column).limit(_LISTED + 1)).all()
    if len(found) > 1:
        which = [*found[:_LISTED], *(["…"] if len(found) > _LISTED else [])]
        raise Unknown("\n  ".join([f'several ids begin with "{name}":', *which]))
    return found[0] if found else name


def short_ids(db: sa.Connection, ids: Sequence[str]) -> dict[str, str]:
    """Return the shortest beginning of each of *ids* by which :func:`whole_id` finds it.

    All are events', or all are deliveries'.
    """
    if not ids:
        return {}
    table = schema.events if ids[0].startswith("evt_") else schema.deliveries
    other = table.alias("other")
    before = sa.select(sa.func.max(other.c.id)).where(other.c.id < table.c.id)
    after = sa.select(sa.func.min(other.c.id)).where(other.c.id > table.c.id)
    wanted = sa.select(table.c.id, before.scalar_subquery(), after.scalar_subquery())
    rows = db.execute(wanted.where(table.c.id.in_(ids))).all()
    return {row[0]: shortened(row[0], filter(None, row[1:])) for row in rows}


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


_DELIVERY = {each.name for each in fields(FoundDelivery)}


def _delivery(row: sa.RowMapping) -> FoundDelivery:
    values = {name: row[name] for name in _DELIVERY}
    return FoundDelivery(**values | {"state": State(row["state"]), "parks": bool(row["parks"])})


def _of_delivery(wanted: Filter) -> Iterable[sa.ColumnExpressionArgument[bool]]:
    if wanted.destinations:
        yield _d.destination.in_(wanted.destinations)
    if wanted.states:
        yield _d.state.in_(wanted.states)
        if wanted.is_stopped:
            yield _STOPPED
    if wanted.reason is not None:
        yield sa.func.coalesce(_d.reason, "").ilike(_pattern(wanted.reason), escape="\\")


#: In the same words as the index of stopped deliveries, which are few.
_STOPPED = sa.text("deliveries.state IN ('dead', 'held')")


def of_event(wanted: Filter) -> Iterable[sa.ColumnElement[bool]]:
    # Without it, what has other words would be meant as well.
    assert wanted.wording is None
    if wanted.since is not None:
        yield _e.received_at >= wanted.since
    if wanted.until is not None:
        yield _e.received_at < wanted.until
    if wanted.endpoint is not None:
        yield _e.endpoint == wanted.endpoint
    if wanted.customer is not None:
        yield _e.customer == wanted.customer
    if wanted.type is not None:
        yield _e.type == wanted.type
    if wanted.message_id is not None:
        yield _e.message_id == wanted.message_id
    if wanted.standings:
        yield _e.standing.in_(wanted.standings)
    if wanted.ending is not None:
        yield ends_with(wanted.ending)


def conditions(wanted: Filter) -> Sequence[sa.ColumnElement[bool]]:
    """Return all conditions of *wanted* on events except that of :func:`says`."""
    wanted = replace(wanted, wording=None)
    return [*of_event(wanted), *of_delivery_of_event(wanted)]


def says(body: str | None, wanted: Filter) -> bool:
    """Return whether the text of an event has the words that *wanted* looks for."""
    return wanted.wording is None or wanted.wording.is_in(body or "")


def refused_says(request: Request, wanted: Filter) -> bool:
    """Return whether the body of a refused request has what *wanted* looks for in events."""
    body = request.body or b""
    if wanted.wording and not any(map(wanted.wording.is_in, texts_in(body))):
        return False
    return wanted.ending is None or Ending(wanted.ending).in_body(body)


def of_request(wanted: Filter) -> Iterable[sa.ColumnElement[bool]]:
    """Yield the conditions of *wanted* on requests that brought no event."""
    c, unset = schema.requests.c, Filter()
    if wanted.since is not None:
        yield c.at >= wanted.since
    if wanted.until is not None:
        yield c.at < wanted.until
    if wanted.endpoint is not None:
        yield c.endpoint == wanted.endpoint
    if wanted.message_id is not None:
        yield c.message_id == wanted.message_id
    if wanted.standings:
        yield c.outcome.in_(wanted.standings)
    of_event = replace(
        wanted, since=None, until=None, endpoint=None, message_id=None, standings=()
    )
    if of_event != unset:
        brought = sa.and_(c.event_id.is_not(None), *conditions(of_event))
        said_in_body = replace(of_event, ending=None, wording=None) == unset
        yield sa.or_(brought, c.event_id.is_(None)) if said_in_body else brought


def of_delivery_of_event(wanted: Filter) -> Iterable[sa.ColumnElement[bool]]:
    """Yield that the event has a delivery which *wanted* matches, if it asks for one."""
    if wanted.destinations or wanted.states:
        of_event = sa.select(1).where(_d.event_id == _e.id, *_of_delivery(wanted))
        yield of_event.correlate(schema.events).exists()


def ends_with(ending: str) -> sa.ColumnElement[bool]:
    """Return the condition that the customer's number ends so, or that this is the name."""
    if not ending.isdigit():
        return _e.customer_ending == ending
    # Any collation has letters after digits.
    return sa.and_(_e.customer_ending >= ending, _e.customer_ending < f"{ending}a")


def _pattern(text: str) -> str:
    """Turn a text in which ``*`` stands for anything into a pattern of LIKE."""
    for special in ("\\", "%", "_"):
        text = text.replace(special, "\\" + special)
    return text.replace("*", "%")


def _routed(routing: str) -> list[str]:
    """Return the destinations to which the event was routed when it came."""
    matched = (route["to"] for route in json.loads(routing) if route["matched"])
    return list(dict.fromkeys(name for to in matched for name in to))
