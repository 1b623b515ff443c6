"""Events: a table of what came, by what one asks for, to look at or to take away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from flask import Blueprint, redirect, render_template, request
from flask.typing import ResponseReturnValue

from relay.api.services import services
from relay.console import deliveries, filters, sheets
from relay.console.filters import Asked
from relay.console.pages import is_masked, needs, number_shown, text_shown
from relay.console.places import number_of
from relay.rules.access import Scope
from relay.shapes import spreadsheet
from relay.store.pages import Page, Pages
from relay.store.values import EventView

#: Events of a page.
LIMIT = 50
STANDINGS = ("accepted", "conflict", "stale")


def add(console: Blueprint) -> None:
    """Add the pages."""

    @console.get("/events")
    @needs(Scope.READ)
    def events() -> ResponseReturnValue:
        asked, before = filters.read(STANDINGS), number_of("before")
        page, notes = _page(asked, before)
        shown = render_template(
            "events.html",
            asked=asked,
            views=_shown(page.items, asked),
            older=page.next,
            before=before,
            notes=notes,
            standings=[(each, each) for each in STANDINGS],
            **filters.choices(),
            newest=deliveries.newest,
            most=sheets.MOST,
            live=5 if before is None and not asked.faults else False,
        )
        return shown, 422 if asked.faults else 200

    @console.get("/events/export.csv")
    @needs(Scope.READ)
    def events_csv() -> ResponseReturnValue:
        asked = filters.read(STANDINGS)
        if asked.faults:
            return redirect(asked.url(request.path.removesuffix("/export.csv")))
        cells = map(_cells, _shown_all(asked))
        return sheets.download(cells, name="events", order="newest")


def _page(asked: Asked, before: int | None) -> tuple[Page[EventView, int], Sequence[str]]:
    """Return a page of events, and what a person should know of how they were found."""

    def ask() -> tuple[Page[EventView, int], Sequence[str]]:
        if asked.faults:
            return Page(items=()), ()
        notes: list[str] = []
        pages = Pages(found.database, tell=lambda said, _: notes.append(said))
        return pages.events(asked.which, limit=LIMIT, before=before), notes

    found = services()
    question = "events", tuple(sorted(asked.given.items())), before
    return found.shared.get(question, ask)


def _shown(views: Sequence[EventView], asked: Asked) -> Sequence[EventView]:
    return [each for each in views if not (asked.hides_tests and each.event.test)]


def _shown_all(asked: Asked) -> Iterator[EventView]:
    """Yield all events that are asked for, page by page, the newest first."""
    pages, before = Pages(services().database), None
    while True:
        page = pages.events(asked.which, limit=sheets.STEP, before=before)
        yield from _shown(page.items, asked)
        if page.next is None:
            return
        before = page.next


def _cells(view: EventView) -> dict[str, Any]:
    event, cells = view.event, spreadsheet.event_cells(view, zone=services().config.zone)
    if not is_masked():
        return cells
    return {
        **cells,
        "from": number_shown(event.sender),
        "to": number_shown(event.recipient),
        "text": text_shown(event.body),
    }
