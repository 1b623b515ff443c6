"""Which deliveries a name or a filter means."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fakes import NOON, accept, accept_apart, arrival, customer, failed, finish, take, take_one
from recoveries import HOLD, LATER, act, refuse

from relay.rules import recovery
from relay.rules.delivery import OutcomeKind, State
from relay.store import Inbox, Queue, Recovery
from relay.store.search import Filter, Unknown

ON_BOTH = True
MINUTE = timedelta(minutes=1)


def test_a_name_means_a_delivery_or_the_newest_ones_of_an_event(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    accept(inbox, "m1", to=("crm", "chat"))
    finish(queue, take_one(queue))
    crm, chat = desk.deliveries_named("m1")

    assert (crm.destination, chat.destination) == ("crm", "chat")
    assert desk.deliveries_named(crm.event_id) == [crm, chat]
    assert desk.deliveries_named(chat.id) == [chat]
    with pytest.raises(Unknown, match='no event or delivery "m2"'):
        desk.deliveries_named("m2")


def test_a_message_id_that_two_endpoints_had_is_no_name(inbox: Inbox, desk: Recovery) -> None:
    first, second = arrival("m1"), arrival("m1", key=b"k" * 32)
    inbox.accept(first)
    inbox.accept(second)

    with pytest.raises(Unknown, match=f"name one of {first.event.id}.*{second.event.id}"):
        desk.deliveries_named("m1")


def _various(inbox: Inbox, queue: Queue) -> None:
    """Store deliveries that stopped for different reasons, and one that did not."""
    for number, (detail, to) in enumerate(
        [
            ("contact 4711 is archived", "crm"),
            ("contact 8150 is archived", "crm"),
            ("HTTP 400", "crm"),
            ("HTTP 403", "crm"),
            ("HTTP 400", "chat"),
        ]
    ):
        new = arrival(f"m{number}", customer=customer(number), at=NOON + number * MINUTE, to=(to,))
        inbox.accept(new)
        (claim,) = take(queue, destination=to, now=LATER)
        policy = HOLD if number == 3 else None
        finish(queue, claim, failed(OutcomeKind.REFUSED, detail), policy=policy)
    accept(inbox, "m5", type="SMS_RECEIVED", direction="inbound")


STOPPED = (State.DEAD, State.HELD)


#: Filters, and what each finds among these.
FOUND = [
    (Filter(), "m0 m1 m2 m3 m4 m5"),
    (Filter(states=STOPPED), "m0 m1 m2 m3 m4"),
    (Filter(states=[State.HELD]), "m3"),
    (Filter(states=STOPPED, destinations=["chat"]), "m4"),
    (Filter(reason="refused: contact * is archived"), "m0 m1"),
    (Filter(reason="refused: HTTP 400"), "m2 m4"),
    (Filter(reason="*http*"), "m2 m3 m4"),
    (Filter(reason="refused: %"), ""),
    (Filter(reason="refused: HTTP_400"), ""),
    (Filter(reason="refused: \\*"), ""),
    (Filter(since=NOON + MINUTE, until=NOON + 3 * MINUTE), "m1 m2"),
    (Filter(customer=customer(2)), "m2"),
    (Filter(type="SMS_RECEIVED"), "m5"),
    (Filter(endpoint="/elsewhere"), ""),
]


def test_a_filter_finds_what_it_means(inbox: Inbox, queue: Queue, desk: Recovery) -> None:
    _various(inbox, queue)

    for wanted, found in FOUND:
        pages = list(desk.pages(wanted, size=2))

        assert [case.message_id for page in pages for case in page] == found.split(), wanted
        assert all(len(page) <= 2 for page in pages)
        assert desk.count(wanted) == len(found.split())


def test_what_stopped_is_grouped_by_destination_and_reason(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    _various(inbox, queue)

    piles = desk.groups(Filter(states=STOPPED))

    assert [(pile.destination, pile.reason, pile.number) for pile in piles] == [
        ("crm", "refused: contact * is archived", 2),
        ("chat", "refused: HTTP 400", 1),
        ("crm", "refused: HTTP 400", 1),
        ("crm", "refused: HTTP 403", 1),
    ]
    assert (piles[0].oldest, piles[0].newest) == (NOON, NOON + MINUTE)


def test_the_reason_of_a_group_finds_all_of_the_group(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    _various(inbox, queue)

    for pile in desk.groups(Filter(states=STOPPED)):
        wanted = Filter(states=STOPPED, destinations=[pile.destination], reason=pile.reason)
        assert desk.count(wanted) == pile.number


def test_what_dies_again_while_pages_are_worked_off_is_not_met_twice(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    accept_apart(inbox, 5)
    refuse(queue)
    met = []

    for page in desk.pages(Filter(states=[State.DEAD]), size=2):
        desk.do([recovery.resend(case, again=False, now=LATER) for case in page], act())
        met += [case.message_id for case in page]
        refuse(queue)

    assert met == [f"m{number}" for number in range(5)]
