"""The events, and conversations of them: ``/events``, ``/conversations``."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field

from relay.api import blueprint as parts
from relay.api import masking
from relay.api.answers import answers
from relay.api.filters import EventStanding, Listing
from relay.api.identity import acting, needs
from relay.api.paging import Answer, Paged, answer, cursor_at, pages
from relay.api.problem import Fault, documented
from relay.api.reading import Asked, NumberEnd, Text, Unmask
from relay.api.services import services
from relay.rules import text
from relay.rules.access import Scope, masked_number
from relay.shapes.events import EventJson, SpokenJson, event_json, spoken_json
from relay.shapes.explanation import (
    Circumstances,
    PurgedJson,
    WholeEventJson,
    keys_of,
    purged_json,
    whole_event_json,
)
from relay.shapes.times import full_time
from relay.store.actions import Actions
from relay.store.pages import Pages
from relay.store.search import Filter
from relay.store.values import EventView, Purged

#: How many customers are named where the last digits mean several.
LISTED = 5
#: Among how many of the newest events with these last digits the customers are looked for.
AMONG = 50


class EventsQuery(Listing, Paged):
    standing: list[EventStanding] = Field(
        [], max_length=3, description="Only those that became this"
    )


class EventPath(Asked):
    id: Text = Field(
        description="Id or messageId of an event, id of a delivery, or the beginning of an id"
    )


class NumberPath(Asked):
    number: NumberEnd = Field(description="A number in any form, or its last digits")


def blueprint() -> APIBlueprint:
    made = parts.blueprint("events", about="What GoFax sent, and what became of it")

    @made.get("/events", summary="List events, the newest first", responses=pages(EventJson))
    @needs(Scope.READ)
    def list_events(query: EventsQuery) -> Answer:
        found = Pages(services().database).events(
            query.of_standing(query.standing), limit=query.limit, before=query.before
        )
        items = [masking.shown(event_json(each)) for each in found.items]
        return answer(items, None if found.next is None else cursor_at(found.next))

    @made.get(
        "/events/<id>",
        summary="Show an event, what happened to it and why, and what comes next",
        responses=answers(WholeEventJson) | _gone(),
    )
    @needs(Scope.READ)
    def get_event(path: EventPath) -> WholeEventJson | tuple[PurgedJson, int]:
        found = _named(path.id)
        if isinstance(found, EventView):
            return masking.shown(_whole(found))
        return masking.shown(purged_json(found)), 410

    @made.post(
        "/events/<id>/unmask",
        summary="Show an event whose number and text are hidden; the audit log has it",
        responses=answers(WholeEventJson) | _gone(),
    )
    @needs(Scope.READ)
    def unmask_event(path: EventPath, body: Unmask) -> WholeEventJson | tuple[PurgedJson, int]:
        found = _named(path.id)
        if not isinstance(found, EventView):
            return purged_json(found), 410
        Actions(services().database).note(
            acting(body.why),
            "unmask",
            detail="numbers and texts shown",
            event_id=found.event.id,
        )
        return _whole(found)

    @made.get(
        "/conversations/<number>",
        summary="List everything with one customer, the newest first",
        responses=pages(SpokenJson) | documented(409),
    )
    @needs(Scope.READ)
    def get_conversation(path: NumberPath, query: Paged) -> Answer:
        store = Pages(services().database)
        found = store.conversation(
            _customer(store, path.number), limit=query.limit, before=query.before
        )
        items = [masking.shown(spoken_json(each)) for each in found.items]
        return answer(items, None if found.next is None else cursor_at(found.next))

    @made.post(
        "/conversations/<number>/unmask",
        summary="List what is hidden of a conversation; the audit log has it",
        responses=pages(SpokenJson) | documented(409),
    )
    @needs(Scope.READ)
    def unmask_conversation(path: NumberPath, query: Paged, body: Unmask) -> Answer:
        store = Pages(services().database)
        customer = _customer(store, path.number)
        found = store.conversation(customer, limit=query.limit, before=query.before)
        detail = f"the conversation with {text.masked(customer)} shown"
        Actions(services().database).note(acting(body.why), "unmask", detail=detail)
        items = [spoken_json(each) for each in found.items]
        return answer(items, None if found.next is None else cursor_at(found.next))

    return made


def _gone() -> dict[str | int | HTTPStatus, Any]:
    return answers(PurgedJson, status=410)


def _named(name: str) -> EventView | Purged:
    """Return an event, or what is left of it. Raises :class:`Fault`."""
    found = services()
    view = found.queries.event(name)
    if view is not None:
        return view
    purged = found.queries.purged(name, keys_of(name, found.config.endpoints))
    if purged is None:
        raise Fault(404, f"no event {name}")
    return purged


def _whole(view: EventView) -> WholeEventJson:
    found = services()
    around = Circumstances.of(
        found.config,
        found.queries,
        now=found.now(),
        show_time=partial(full_time, zone=found.config.zone),
    )
    return whole_event_json(view, around)


def _customer(store: Pages, ending: str) -> str:
    """Return the one customer whose number ends so. Raises :class:`Fault`."""
    newest = store.events(Filter(ending=ending), limit=AMONG).items
    customers = sorted({view.event.customer for view in newest if view.event.customer})
    if not customers:
        raise Fault(404, f"no events with a customer {ending}")
    if len(customers) > 1:
        which = [each if not masking.is_masked() else masked_number(each) for each in customers]
        listed = ", ".join(map(str, which[:LISTED])) + (", …" if len(which) > LISTED else "")
        raise Fault(409, f"several customers' numbers end so: {listed}")
    return customers[0]
