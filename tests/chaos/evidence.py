"""Gathers what is left after a run, for the verdict."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

import sqlalchemy as sa
from stage import Relay
from verdict import Evidence, Heard, Stored

from relay.store import connect, schema
from relay.store.values import EventView


def collect(
    relay: Relay,
    records: Sequence[Mapping[str, Any]],
    *,
    acknowledged: Iterable[str],
    heard: Mapping[str, Heard] | None = None,
) -> Evidence:
    """Put together what the sender, the relay and the systems (*records*) can tell."""
    effects: dict[str, list[str]] = {"hubspot": [], "zendesk": [], "teams": []}
    for record in records:
        effects[record["system"]] += re.findall(r"this is \[([^]]+)\]", record["text"])
    stored = [
        Stored(
            name=view.event.message_id or "",
            conversation=view.event.conversation,
            standing=view.standing,
            states={each.destination: each.state.value for each in view.deliveries},
        )
        for view in _as_accepted(relay)
    ]
    return Evidence(
        acknowledged=frozenset(acknowledged), stored=stored, effects=effects, heard=heard or {}
    )


def _as_accepted(relay: Relay) -> list[EventView]:
    """Return the events by their places in line.

    Where several nodes accept, an event has its own number before its conversation is locked.
    """
    table = schema.deliveries.c
    places = sa.select(table.event_id, sa.func.min(table.seq)).group_by(table.event_id)
    with closing(connect(relay.store_url)) as database, database.reading() as db:
        place = {event_id: seq for event_id, seq in db.execute(places)}
    return sorted(relay.events(), key=lambda view: place.get(view.event.id, 0))
