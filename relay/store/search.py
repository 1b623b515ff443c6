"""Which deliveries and events does a person mean, by name or by filter?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.rules.mentions import Ending, texts_in
from relay.rules.wording import Wording
from relay.store import schema
from relay.store.ids import shortened
from relay.store.values import Request

STOPPED = (State.DEAD, State.HELD)

_d, _e = schema.deliveries.c, schema.events.c

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


def select_destinations(wanted: Filter) -> sa.Select[Any]:
    """Select the destinations that *wanted* matches, ignoring its conditions on events."""
    return sa.select(_d.destination).where(*of_delivery(wanted)).distinct()


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
        .where(*of_delivery(wanted), *of_event(wanted))
        .group_by(_d.destination, _d.reason)
    )


def select_events(wanted: Filter) -> sa.Select[Any]:
    """Select the events that *wanted* matches, in no order."""
    return sa.select(schema.events).where(*of_event(wanted))


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


def of_delivery(wanted: Filter) -> Iterable[sa.ColumnExpressionArgument[bool]]:
    """Yield the conditions of *wanted* on deliveries."""
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
    """Yield the conditions of *wanted* on events, which look for no words."""
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
        of_event = sa.select(1).where(_d.event_id == _e.id, *of_delivery(wanted))
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
