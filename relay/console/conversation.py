"""One customer's messages as a chat: what they wrote, what we wrote, and where each is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

from flask import Blueprint, abort, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from connectors.base import Event
from relay.api.services import services
from relay.console import acting, deliveries, pages, wording
from relay.console.around import circumstances
from relay.console.pages import needs
from relay.console.places import number_of
from relay.rules import text
from relay.rules.access import Scope
from relay.store.actions import Actions
from relay.store.pages import Pages
from relay.store.values import DeliveryView, EventView

#: Messages of a page.
LIMIT = 50
#: What stands for a number in an address that somebody sees who may not see numbers.
_BY_EVENT = "evt_"
_SAYABLE = re.compile(r"[\w+ @-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """One message of a chat."""

    view: EventView
    #: Whether the customer wrote it.
    is_theirs: bool
    #: What counts of its deliveries.
    deliveries: Sequence[DeliveryView]
    read_out: str


def add(console: Blueprint) -> None:
    """Add the page."""

    @console.route("/conversations/<path:number>", methods=["GET", "POST"])
    @needs(Scope.READ)
    def conversation(number: str) -> ResponseReturnValue:
        customer = _customer(number)
        if request.method == "GET":
            return _page(customer, number)
        if fault := acting.fault_of_why(needed=True):
            return _page(customer, number, fault=fault)
        detail = f"the conversation with {text.masked(customer)} shown"
        act = acting.person().act(services().now())
        Actions(services().database).note(act, "unmask", detail=detail)
        g.unmasked = True
        return _page(customer, number)


def url_of(event: Event) -> str:
    """Return the address of an event's conversation; nothing if it names no customer."""
    if event.customer is None:
        return ""
    is_said = is_sayable(event.customer) and not pages.is_masked()
    return url_for("console.conversation", number=event.customer if is_said else event.id)


def is_sayable(customer: str) -> bool:
    """Return whether an address can say *customer*: browsers change dots and slashes."""
    return bool(_SAYABLE.fullmatch(customer)) and not customer.startswith(_BY_EVENT)


def _customer(number: str) -> str:
    """Return the customer whom an address means."""
    if not number.startswith(_BY_EVENT):
        return text.e164(number) or number
    view = services().queries.event(number)
    if view is None or view.event.customer is None:
        abort(404, "No event has this id, or it names no customer.")
    return view.event.customer


def _page(customer: str, address: str, *, fault: str = "") -> ResponseReturnValue:
    found, before = services(), number_of("before")
    page = found.shared.get(
        ("conversation", customer, before),
        lambda: Pages(found.database).conversation(customer, limit=LIMIT, before=before),
    )
    if not page.items and before is None:
        return redirect(url_for("console.search", q=address))
    if pages.is_masked() and page.items:
        address = page.items[0].event.id
    hides_tests = request.args.get("tests") == "hide"
    said = [_said(each) for each in reversed(page.items) if not (hides_tests and each.event.test)]
    shown = render_template(
        "conversation.html",
        customer=customer,
        address=address,
        days=list(_by_day(said)),
        older=page.next,
        before=before,
        hides_tests=hides_tests,
        tests=sum(each.event.test for each in page.items),
        around=circumstances(),
        place=deliveries.place,
        fault=fault,
        why=acting.why(),
        live=5 if before is None and request.method == "GET" else False,
    )
    return shown, 422 if fault else 200


def _said(view: EventView) -> Said:
    event = view.event
    return Said(
        view=view,
        is_theirs=event.customer == event.sender,
        deliveries=deliveries.newest(view),
        read_out=deliveries.read_out(view, circumstances()),
    )


def _by_day(said: Iterable[Said]) -> Iterator[tuple[str, Sequence[Said]]]:
    """Yield the messages of each day, with how the day is called."""
    today = wording.now().astimezone(wording.zone()).date()

    def day(each: Said) -> date:
        return each.view.event.received_at.astimezone(wording.zone()).date()

    for each, messages in groupby(said, day):
        yield _called(each, today), list(messages)


def _called(day: date, today: date) -> str:
    if day == today:
        return "Today"
    if day == today - timedelta(days=1):
        return "Yesterday"
    year = "" if day.year == today.year else f" {day.year}"
    return f"{day:%A} {day.day} {day:%B}{year}"
