"""The one search box of all pages: it leads to what is meant, or lists what may be."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from relay.api.services import services
from relay.console import conversation, deliveries
from relay.console.pages import is_masked, needs
from relay.rules import text
from relay.rules.access import Scope
from relay.rules.typed import LONGEST
from relay.store.find import Customer, Finder, Found
from relay.store.pages import Pages


def add(console: Blueprint) -> None:
    """Add the page."""

    @console.get("/search")
    @needs(Scope.READ)
    def search() -> ResponseReturnValue:
        typed = request.args.get("q", "").strip()[:LONGEST]
        notes: list[str] = []
        finder = Finder(services().database, tell=lambda said, _: notes.append(said))
        found = finder.find(typed)
        if target := _only(found):
            return redirect(target)
        return render_template(
            "search.html",
            q=typed,
            found=found,
            notes=notes,
            newest=deliveries.newest,
            customer_url=customer_url,
            refused_url=_refused_url(typed),
        )


def customer_url(customer: Customer) -> str:
    """Return where a customer's messages are, without the number if that is hidden."""
    if conversation.is_sayable(customer.customer) and not is_masked():
        return url_for("console.conversation", number=customer.customer)
    page = Pages(services().database).conversation(customer.customer, limit=1)
    return conversation.url_of(page.items[0].event) if page.items else url_for("console.events")


def _refused_url(typed: str) -> str:
    """Return where refused requests are: those that say a number, if it is one."""
    end = text.ending(typed)
    customer = typed if end.isdigit() and len(end) >= text.FEWEST_DIGITS else None
    return url_for("console.requests", standing="refused", customer=customer)


def _only(found: Found) -> str | None:
    """Return the address of what was found, if it is one thing."""
    events = {each.event.id for each in found.events} | {
        each.event_id for each in found.deliveries
    }
    match found.kinds:
        case ["customers"] if len(found.customers) == 1:
            return customer_url(found.customers[0])
        case ["events"] | ["deliveries"] if len(events) == 1:
            return url_for("console.event", id_=events.pop())
        case ["requests"] if len(found.requests) == 1:
            [one] = found.requests
            if one.event_id:
                return url_for("console.event", id_=one.event_id)
            return url_for("console.refused", id_=one.id) if one.outcome == "refused" else None
        case ["records"] if len({each.event_id for each in found.records}) == 1:
            return url_for("console.event", id_=found.records[0].event_id)
    return None
