"""What people are told of a delivery: where it is, what comes next, what to tell a customer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from relay.console import wording
from relay.rules.delivery import State
from relay.rules.health import Pause
from relay.shapes.explanation import OVERDUE, Circumstances
from relay.store.values import Ahead, DeliveryView, EventView

#: Names of a connector's system: as the place where a message arrived, and for a customer.
_SYSTEMS: Mapping[str, tuple[str, str]] = {
    "zendesk": ("Zendesk", "our helpdesk"),
    "hubspot": ("the HubSpot timeline", "our customer file"),
    "teams": ("Teams", "our team's chat"),
    "email": ("the shared inbox", "our shared inbox"),
    "archive": ("the archive", "our archive"),
}
_TICKET = re.compile(r"ticket \d+")
_SKIPPED = "skipped: "
#: What the delivery ahead is doing while the next one of its conversation waits.
_AHEAD: Mapping[State, str] = {
    State.WAITING: "waits, too",
    State.PENDING: "will be sent",
    State.IN_FLIGHT: "is being sent",
    State.DEAD: "did not arrive",
    State.HELD: "needs a decision",
    State.DELIVERED: "has just arrived",
}


def place(delivery: DeliveryView, around: Circumstances) -> str:
    """Say where a delivery that arrived is: ``in Zendesk ticket 1013``."""
    settings = around.destinations.get(delivery.destination)
    system, _ = _SYSTEMS.get(settings.connector if settings else "", (delivery.destination, ""))
    if delivery.reference is None:
        return f"in {system} (a person says so)"
    if delivery.reference.startswith(_SKIPPED):
        return f"not in {system}: {delivery.reference.removeprefix(_SKIPPED)}"
    ticket = _TICKET.match(delivery.reference)
    return f"in {system} {ticket[0]}" if ticket else f"in {system}"


def next_of(delivery: DeliveryView, around: Circumstances) -> str:
    """Say what happens next with a delivery, and when."""
    match delivery.state:
        case State.WAITING:
            return _join(_waits(delivery.ahead, around), _unserved(delivery, around))
        case State.PENDING:
            return _next_attempt(delivery, around)
        case State.IN_FLIGHT:
            return _runs(delivery, around)
        case State.DELIVERED:
            return ""
        case State.DEAD:
            return "Nothing more happens by itself: somebody resends it, or leaves it."
        case State.HELD:
            parks = "Later messages of this conversation wait for that." if delivery.parks else ""
            return _join("It may have arrived or not: somebody looks, and decides.", parks)


def read_out(view: EventView, around: Circumstances) -> str:
    """Return a sentence to read out to a customer whose message did not arrive everywhere."""
    event = view.event
    arrived = {each.destination for each in view.deliveries if each.state is State.DELIVERED}
    left = [each for each in newest(view) if each.destination not in arrived]
    is_theirs = event.customer is not None and event.customer == event.sender
    if not is_theirs or view.standing != "accepted" or event.test:
        return ""
    if view.deliveries and not left:
        return ""
    begins = f"Your message of {_spoken(event.received_at, around)} reached us, but"
    if not view.deliveries:
        return f"{begins} nobody was given it. I can see it here, and will pass it on."
    where = _list([_called(each, around) for each in left])
    states = {each.state for each in left}
    if State.DEAD in states:
        return f"{begins} it is not in {where}. I can see it here, and will pass it on."
    if State.HELD in states:
        return f"{begins} I am not sure that it is in {where}. I can see it, and will find out."
    pauses = [
        around.pauses[each.destination] for each in left if each.destination in around.pauses
    ]
    if any(each.until is None for each in pauses):
        return f"{begins} it is not in {where} yet: nothing goes there now. I can see it here."
    moments = [each.due_at for each in left] + [each.until for each in pauses]
    dues = [each for each in moments if each and each > around.now]
    again = f", and will be tried again at about {_brief(min(dues), around)}" if dues else ""
    return f"{begins} it is not in {where} yet. It is on its way{again}."


def _spoken(time: datetime, around: Circumstances) -> str:
    """Say a time as one says it: the day of the week, and the date if that is long ago."""
    local = time.astimezone(wording.zone())
    date = f" {local.day} {local:%B}" if around.now - time > timedelta(days=6) else ""
    return f"{local:%A}{date} {local:%H:%M}"


def newest(view: EventView) -> list[DeliveryView]:
    """Return the deliveries of an event that count: the newest to each destination."""
    return list({each.destination: each for each in view.deliveries}.values())


def _called(delivery: DeliveryView, around: Circumstances) -> str:
    """Return what a destination is called towards a customer."""
    settings = around.destinations.get(delivery.destination)
    name = delivery.destination
    return _SYSTEMS.get(settings.connector if settings else "", ("", name))[1]


def _waits(ahead: Ahead | None, around: Circumstances) -> str:
    if ahead is None:
        return "It waits, although nothing is before it: the relay has to be looked at."
    number = wording.count(ahead.number, "message", "messages")
    begins = f"It waits for {number} before it in this conversation"
    at = f" {_at(ahead.due_at, around)}" if ahead.state is State.PENDING and ahead.due_at else ""
    which = "; that one" if ahead.number == 1 else "; the first of them"
    return f"{begins}{which} {_AHEAD[ahead.state]}{at}."


def _next_attempt(delivery: DeliveryView, around: Circumstances) -> str:
    unserved = _unserved(delivery, around)
    due = delivery.due_at or around.now
    again = "tried again" if delivery.attempts else "sent"
    if due > around.now:
        return _join(f"It will be {again} {_at(due, around)}.", _last(delivery, around), unserved)
    if unserved:
        return unserved
    if around.now - due > OVERDUE:
        since = _brief(due, around)
        return f"It has been due since {since}, and nobody takes it: is a worker running?"
    return f"It will be {again} in a moment."


def _last(delivery: DeliveryView, around: Circumstances) -> str:
    settings = around.destinations.get(delivery.destination)
    if settings is None or delivery.failing_since is None:
        return ""
    ends = delivery.failing_since + settings.policy.window
    return f"If it goes on failing, the relay gives up {_at(ends, around)}."


def _runs(delivery: DeliveryView, around: Circumstances) -> str:
    if delivery.lease_until is not None and delivery.lease_until < around.now:
        silent = _brief(delivery.lease_until, around)
        return f"Nothing was heard of this attempt since {silent}: it will be repeated."
    return "It is being sent now."


def _unserved(delivery: DeliveryView, around: Circumstances) -> str:
    name = delivery.destination
    if name not in around.destinations:
        return f"{name} is not in the config any more, so nothing goes there."
    pause = around.pauses.get(name)
    return "" if pause is None else f"{name} {said_pause(name, pause, around)}"


def said_pause(name: str, pause: Pause, around: Circumstances) -> str:
    """Say since when, why and until when a destination is not served."""
    who = f" by {around.pausers.get(name, 'somebody')}" if pause.cause == "operator" else ""
    reason = f" ({pause.reason})" if pause.reason else ""
    until = f" until {_brief(pause.until, around)}" if pause.until else ""
    return f"is paused{who} since {_brief(pause.since, around)}{until}{reason}."


def _at(time: datetime, around: Circumstances) -> str:
    return f"at {_brief(time, around)}, {wording.ago(time, around.now)}"


def _brief(time: datetime, around: Circumstances) -> str:
    return wording.brief(time, around.now, wording.zone())


def _list(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _join(*sentences: str) -> str:
    return " ".join(filter(None, sentences))
