"""Pages of events, requests, what stopped and attempts, on both databases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import pytest
from fakes import (
    NOON,
    accept,
    accept_apart,
    arrival,
    customer,
    delivered,
    failed,
    finish,
    request,
    take,
    take_one,
)

from relay.rules.delivery import OutcomeKind, State
from relay.rules.text import ending
from relay.rules.wording import Wording
from relay.store import Database, Inbox, Queue
from relay.store.pages import Page, Pages
from relay.store.search import Filter
from relay.store.texts import Texts

ON_BOTH = True

MINUTE = timedelta(minutes=1)
T = TypeVar("T")


@pytest.fixture
def pages(database: Database) -> Pages:
    return Pages(database)


def _all(turn: Callable[[Any], Page[T, Any]]) -> Iterator[Sequence[T]]:
    """Turn pages to the last one."""
    page = turn(None)
    yield page.items
    while page.next is not None:
        page = turn(page.next)
        yield page.items


def _names(turn: Callable[[Any], Page[Any, Any]]) -> list[str]:
    return [each.event.message_id for items in _all(turn) for each in items]


#: Filters that find all events.
ALL = [
    Filter(),
    Filter(destinations=("crm",)),
    Filter(destinations=("crm", "chat"), states=(State.PENDING, State.WAITING)),
    Filter(since=NOON),
    Filter(type="SMS_REPLY"),
    Filter(type="SMS_REPLY", since=NOON, until=NOON + MINUTE),
    Filter(wording=Wording.of("hello")),
    Filter(ending=ending("00000001")),
]


def test_pages_of_events_have_each_event_once_the_newest_first(
    inbox: Inbox, pages: Pages, database: Database
) -> None:
    names = [f"m{number}" for number in range(9)]
    for name in names:
        accept(inbox, name, to=("crm", "chat"))
        # Of a destination's events, those of one millisecond have no order.
        time.sleep(0.002)

    def found(wanted: Filter) -> list[str]:
        return _names(lambda before: pages.events(wanted, limit=2, before=before))

    assert [wanted for wanted in ALL if found(wanted) != names[::-1]] == []
    Texts(database).index()
    assert [wanted for wanted in ALL if found(wanted) != names[::-1]] == []


def test_what_comes_meanwhile_neither_repeats_nor_hides_anything(
    inbox: Inbox, pages: Pages
) -> None:
    accept(inbox, "a", "b", "c")

    first = pages.events(limit=2)
    accept(inbox, "d")
    second = pages.events(limit=2, before=first.next)

    assert [each.event.message_id for each in first.items] == ["c", "b"]
    assert [each.event.message_id for each in second.items] == ["a"]
    assert second.next is None


def test_a_page_looks_at_some_and_the_next_one_goes_on(inbox: Inbox, pages: Pages) -> None:
    inbox.accept(arrival("wanted", type="SMS_RECEIVED", to=()))
    accept_apart(inbox, 10)
    wanted = Filter(type="SMS_RECEIVED", since=NOON)
    other = Filter(type="SMS_REPLY", states=(State.DEAD,), since=NOON)

    found = [*_all(lambda place: pages.events(wanted, limit=2, before=place, look_at=3))]
    none = [*_all(lambda place: pages.events(other, limit=2, before=place, look_at=3))]

    assert [len(items) for items in found][-1] == 1
    assert not any(none)


def test_a_conversation_has_all_of_a_customer_with_where_it_is(
    inbox: Inbox, queue: Queue, pages: Pages
) -> None:
    accept_apart(inbox, 3)
    accept(inbox, "x", "y", customer=customer(1), to=("crm", "chat"))
    for claim in take(queue):
        finish(queue, claim, delivered("ticket 1013", thread="1013"))

    found = [*_all(lambda before: pages.conversation(customer(1), limit=2, before=before))]

    assert [[each.event.message_id for each in items] for items in found] == [["y", "x"], ["m1"]]
    (first,) = found[1][0].deliveries
    assert (first.thread, first.reference) == ("1013", "ticket 1013")
    assert first.url == "https://example.com/ticket 1013"


def test_pages_of_requests_have_each_once_whether_or_not_they_brought_an_event(
    inbox: Inbox, pages: Pages
) -> None:
    for number in range(6):
        at = NOON + number * MINUTE
        inbox.accept(arrival(f"m{number}", at=at))
        inbox.accept(arrival(f"m{number}", at=at + MINUTE / 4))
        refused = request(
            at=at + MINUTE / 2, status=401, outcome="refused", signed=number % 2 == 0
        )
        inbox.refuse([refused])

    only = Filter(standings=("refused",))
    for limit in (1, 2, 3, 20):
        ask = partial(pages.requests, limit=limit)
        found = [each for items in _all(lambda p, ask=ask: ask(before=p)) for each in items]
        refused = _all(lambda p, ask=ask: ask(only, before=p))

        assert [each.outcome for each in found] == ["refused", "duplicate", "accepted"] * 6
        assert sorted((each.at for each in found), reverse=True) == [each.at for each in found]
        assert [each.outcome for items in refused for each in items] == ["refused"] * 6


def test_pages_of_requests_look_at_some_and_go_on(inbox: Inbox, pages: Pages) -> None:
    inbox.refuse([request(status=401, outcome="refused", body=b'{"messageBody": "find me"}')])
    accept_apart(inbox, 5)
    inbox.refuse([request(status=401, outcome="refused", body=b"{}") for _ in range(5)])
    wanted = Filter(wording=Wording.of("find me"))

    turned = [*_all(lambda place: pages.requests(wanted, limit=3, before=place, look_at=2))]

    assert len(turned) > 1
    assert [each.outcome for items in turned for each in items] == ["refused"]


def test_what_stopped_comes_page_by_page_over_all_destinations(
    inbox: Inbox, queue: Queue, pages: Pages
) -> None:
    accept_apart(inbox, 4, to=("crm", "chat"))
    for destination in ("crm", "chat"):
        for claim in take(queue, destination=destination, limit=3):
            finish(queue, claim, failed(OutcomeKind.REFUSED))

    found = [*_all(lambda before: pages.stopped(limit=4, before=before))]

    seqs = [each.seq for items in found for each in items]
    assert [len(items) for items in found] == [4, 2]
    assert seqs == sorted(seqs, reverse=True)
    chat = pages.stopped(Filter(destinations=("chat",)), limit=9)
    assert [each.destination for each in chat.items] == ["chat"] * 3


def test_attempts_of_a_delivery_come_page_by_page(
    inbox: Inbox, queue: Queue, pages: Pages
) -> None:
    accept(inbox, "m1")
    for number in range(3):
        now = NOON + number * timedelta(hours=1)
        claim = take_one(queue, now=now)
        finish(queue, claim, failed(OutcomeKind.TRANSIENT, f"try {number}"), now=now)

    turned = [*_all(lambda p: pages.attempts(claim.delivery_id, limit=2, before=p))]

    assert [[each.detail for each in items] for items in turned] == [["try 2", "try 1"], ["try 0"]]
