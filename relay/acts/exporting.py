"""Everything that the store has of one customer, to be given to that person."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.acts.person import Person
from relay.config.model import Config
from relay.rules import text
from relay.rules.mentions import Mentions
from relay.shapes.actions import EntryJson, entry_json
from relay.shapes.explanation import Circumstances, WholeEventJson, whole_event_json
from relay.shapes.requests import RequestJson, request_json
from relay.shapes.times import full_time, iso
from relay.shapes.words import count
from relay.store import Database, Queries
from relay.store.actions import Actions
from relay.store.mentioned import Mentioned
from relay.store.search import Filter
from relay.store.values import EventView


class ExportJson(TypedDict):
    """Everything that the store has of one customer."""

    customer: str
    exported_at: str
    events: list[WholeEventJson]
    #: Requests that were refused and mention the customer.
    refused_requests: list[RequestJson]
    #: What people wrote that mentions the customer.
    mentioned_in: list[EntryJson]


def export(config: Config, database: Database, number: str, person: Person) -> ExportJson | None:
    """Return what the store has of the customer *number*, and note who was given it.

    None: it has nothing.
    """
    queries, now = Queries(database), database.clock()
    around = Circumstances.of(
        config, queries, now=now, show_time=lambda time: full_time(time, zone=config.zone)
    )
    events = [whole_event_json(view, around) for view in _views(queries, number)]
    mentioned = Mentioned(
        database, Mentions(number, {each["body"] for each in events if each["body"]})
    )
    requests = [request_json(each) for each in mentioned.requests()]
    entries = [entry_json(each) for each in mentioned.actions()]
    if not (events or requests or entries):
        return None
    what = f"{count(len(events), 'event', 'events')} of {text.masked(number)} given out"
    Actions(database).note(person.act(now), "export", detail=what)
    return {
        "customer": number,
        "exported_at": iso(now),
        "events": events,
        "refused_requests": requests,
        "mentioned_in": entries,
    }


def _views(queries: Queries, number: str) -> list[EventView]:
    """Return the customer's events, the oldest first, each with everything that belongs to it."""
    wanted = Filter(customer=number, ending=text.ending(number))
    views = (queries.event(view.event.id) for view in queries.events(wanted))
    return [view for view in views if view is not None]
