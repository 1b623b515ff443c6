"""One search box for events, deliveries, requests, customers, tickets and words, on both."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fakes import NOON, accept, arrival, customer, delivered, finish, request, take, take_one

from relay.rules.delivery import State
from relay.store import Database, Inbox, Queue, find
from relay.store.find import Customer, Finder
from relay.store.texts import Texts

ON_BOTH = True

MINUTE = timedelta(minutes=1)


@pytest.fixture
def finder(database: Database) -> Finder:
    return Finder(database)


def test_ids_and_their_beginnings_are_found(inbox: Inbox, queue: Queue, finder: Finder) -> None:
    accepted = inbox.accept(arrival("m1"))
    claim = take_one(queue)
    refused = request(status=401, outcome="refused")
    inbox.refuse([refused])

    for name in (accepted.event_id, accepted.event_id[:20].upper(), "m1"):
        found = finder.find(name)
        assert (found.kinds, found.events[0].event.id) == (["events"], accepted.event_id)
    for name in (claim.delivery_id, claim.delivery_id[:20]):
        found = finder.find(name)
        assert (found.kinds, found.deliveries[0].delivery_id) == (
            ["deliveries"],
            claim.delivery_id,
        )
        assert found.deliveries[0].state is State.IN_FLIGHT
    for name in (refused.id, refused.id[:20]):
        found = finder.find(name)
        assert (found.kinds, found.requests[0].id) == (["requests"], refused.id)
    assert finder.find("evt_ffff").kinds == []


def test_customers_are_found_by_the_end_of_their_number_in_any_form(
    inbox: Inbox, finder: Finder
) -> None:
    for number, at in ((12345678, NOON), (99345678, NOON + MINUTE), (12345678, NOON - MINUTE)):
        inbox.accept(arrival(f"{number} {at}", customer=customer(number), at=at))

    first, second = finder.find("345 678").customers

    assert first == Customer(
        customer="+61499345678", newest_at=NOON + MINUTE, events=1, more=False
    )
    assert (second.customer, second.events) == ("+61412345678", 2)
    for typed in ("0412 345 678", "+61412345678", "(04) 1234-5678", "61412345678"):
        (only,) = finder.find(typed).customers
        assert only.customer == "+61412345678"


def test_a_customer_with_a_name_is_found_by_it(inbox: Inbox, finder: Finder) -> None:
    accept(inbox, "m1", customer="Acme")

    assert [each.customer for each in finder.find("ACME").customers] == ["Acme"]


def test_of_many_customers_some_are_shown_and_events_are_counted_up_to_a_bound(
    inbox: Inbox, finder: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        accept(inbox, f"m{number}", f"n{number}", customer=f"+6140{number}001234")
    monkeypatch.setattr(find, "COUNTED", 1)

    found = finder.find("1234", limit=3)

    assert (len(found.customers), found.more) == (3, {"customers"})
    assert {(each.events, each.more) for each in found.customers} == {(1, True)}


def test_a_ticket_is_found_by_its_number_and_may_be_a_customer_too(
    inbox: Inbox, queue: Queue, finder: Finder
) -> None:
    accept(inbox, "old", customer=customer(1))
    finish(queue, take_one(queue), delivered("ticket 1013 comment 7", thread="1013"))
    accept(inbox, "other", customer=customer(1013))
    finish(queue, take_one(queue), delivered("ticket 10130", thread="10130"))

    for typed in ("1013", "#1013", "ticket 1013"):
        found = finder.find(typed)
        (record,) = found.records
        assert (record.reference, record.thread) == ("ticket 1013 comment 7", "1013")
        assert record.customer == customer(1)
    assert finder.find("1013").kinds == ["customers", "records"]
    assert finder.find("#1013").kinds == ["records"]


def test_a_record_of_another_system_and_a_contact_are_found_by_their_ids(
    inbox: Inbox, queue: Queue, finder: Finder
) -> None:
    accept(inbox, "first", "second")
    finish(queue, take_one(queue), delivered("87001", thread="551"))
    finish(queue, take_one(queue), delivered("87002 (contact 551 keeps an empty phone)"))

    assert [each.reference for each in finder.find("87001").records] == ["87001"]
    assert len(finder.find("551").records) == 2
    assert [each.thread for each in finder.find("87002").records] == ["551"]


def test_a_reference_of_any_length_can_be_recorded(
    inbox: Inbox, queue: Queue, finder: Finder
) -> None:
    long = "".join(f"{number:05}" for number in range(4000))
    accept(inbox, "m1")
    finish(queue, take_one(queue), delivered(f"a{long}", thread=f"t{long}"))

    assert finder.find(f"a{long[:59]}").kinds == ["records"]


def test_what_means_nothing_else_is_words_of_a_text(
    inbox: Inbox, finder: Finder, database: Database
) -> None:
    inbox.accept(arrival("m1", body="Where is my parcel?"))
    inbox.accept(arrival("m2", body="in room 7"))
    Texts(database).index()

    found = finder.find("my PARC")

    assert (found.kinds, found.texts[0].event.message_id) == (["texts"], "m1")
    assert finder.find("room 7").kinds == ["texts"]
    assert finder.find("nowhere").kinds == []


@pytest.mark.parametrize("typed", ["", " ", "\x00", "%", "_", "'; --", "\ud800", "9" * 5000, "#"])
def test_nothing_that_is_typed_is_an_error(inbox: Inbox, finder: Finder, typed: str) -> None:
    accept(inbox, "m1")

    assert finder.find(typed).kinds == []


def test_one_reference_of_very_many_shows_the_newest(
    inbox: Inbox, queue: Queue, finder: Finder
) -> None:
    accept(inbox, *(f"m{number}" for number in range(6)))
    for _ in range(6):
        finish(queue, take_one(queue), delivered("ticket 5"))
    assert not take(queue)

    found = finder.find("#5", limit=4)

    assert (len(found.records), found.more) == (4, {"records"})
