"""Finding events and requests: any filter, on both databases, finds what a look at all finds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fakes import NOON, arrival, customer, failed, finish, request, take

from relay.rules import text
from relay.rules.delivery import OutcomeKind, State
from relay.store import Inbox, Queries, Queue, candidates
from relay.store.search import Filter
from relay.store.values import EventView

ON_BOTH = True

MINUTE = timedelta(minutes=1)
NAMES = ("crm", "chat")
TYPES = ("SMS_REPLY", "SMS_RECEIVED", "ODD" * 2000)


@pytest.fixture
def filled(inbox: Inbox, queue: Queue) -> None:
    """Sixty events of all kinds; those for the crm are delivered, dead or waiting."""
    for number in range(60):
        inbox.accept(
            arrival(
                f"m{number}",
                customer="Acme" if number % 10 == 0 else customer(number % 7),
                type=TYPES[number % 3],
                to=NAMES[: number % 3],
                at=NOON + number * MINUTE,
            )
        )
    inbox.accept(arrival("m1", body="a conflict", customer=customer(1), type=TYPES[1], at=NOON))
    inbox.accept(replace(arrival("old", to=(), at=NOON), standing="stale"))
    for claim in take(queue, now=NOON + 60 * MINUTE):
        is_odd = int((claim.event.message_id or "m0")[1:]) % 2
        finish(queue, claim, failed(OutcomeKind.REFUSED) if is_odd else None)


def _matches(view: EventView, wanted: Filter) -> bool:
    event, deliveries = view.event, view.deliveries
    ending = text.ending(event.customer or "")
    return all(
        (
            not (wanted.destinations or wanted.states)
            or any(
                each.destination in (wanted.destinations or NAMES)
                and each.state in (wanted.states or tuple(State))
                for each in deliveries
            ),
            wanted.since is None or event.received_at >= wanted.since,
            wanted.until is None or event.received_at < wanted.until,
            wanted.type in (None, event.type),
            wanted.message_id in (None, event.message_id),
            not wanted.standings or view.standing in wanted.standings,
            wanted.ending is None
            or (ending.startswith(wanted.ending) if ending.isdigit() else ending == wanted.ending),
        )
    )


CONDITIONS: Sequence[dict[str, Any]] = (
    {"destinations": ("crm",)},
    {"states": (State.DEAD, State.WAITING)},
    {"since": NOON + 20 * MINUTE},
    {"until": NOON + 40 * MINUTE},
    {"type": TYPES[1]},
    {"type": TYPES[2]},
    {"message_id": "m1"},
    {"standings": ("conflict", "stale")},
    {"standings": ("accepted",)},
    {"ending": text.ending("0400 000 001")},
    {"ending": text.ending("003")},
    {"ending": text.ending("ACME")},
)


@pytest.mark.usefixtures("filled")
@pytest.mark.slow
def test_every_filter_and_every_two_find_what_a_look_at_all_events_finds(
    queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "PAGE", 7)
    everything = list(queries.events())
    assert len(everything) == 62
    pairs = itertools.chain(
        ((one, {}) for one in CONDITIONS), itertools.combinations(CONDITIONS, 2)
    )
    for one, other in pairs:
        wanted = Filter(**one | other)
        expected = [view.event.id for view in everything if _matches(view, wanted)]

        found = [view.event.id for view in queries.events(wanted)]
        newest = [view.event.id for view in queries.events(wanted, limit=3)]

        assert sorted(found) == sorted(expected), wanted
        assert len(newest) == min(3, len(expected)), wanted
        assert set(newest) <= set(expected), wanted


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("wanted", [Filter(type=TYPES[0]), Filter(destinations=("crm",))])
def test_a_limit_means_the_newest_that_match_and_they_come_oldest_first(
    queries: Queries, wanted: Filter
) -> None:
    everything = [view.event.message_id for view in queries.events(wanted)]

    newest = [view.event.message_id for view in queries.events(wanted, limit=4)]

    assert newest == everything[-4:]


@pytest.mark.usefixtures("filled")
def test_what_is_followed_is_what_matches_among_the_newest(queries: Queries) -> None:
    found = queries.recent(Filter(states=(State.WAITING,)), among=30)

    everything = queries.events(Filter(states=(State.WAITING,)))
    newest = [view.event.id for view in queries.events(limit=30)]
    assert [each.event.id for each in found] == [
        each.event.id for each in everything if each.event.id in newest
    ]
    assert found


@pytest.mark.parametrize(
    "body",
    [
        b'{"from": "0412 345 678"}', b'{"from": "+61412345678"}', b"from=%2B61412345678&x=1",
        b'{"from": "\\u002b61412345678"',
    ],
)  # fmt: skip
def test_a_refused_request_is_found_by_the_number_in_its_body(
    inbox: Inbox, queries: Queries, body: bytes
) -> None:
    others = b'{"from": "+61412345679", "id": "3456789"}'
    for raw in (body, others):
        inbox.refuse([request(outcome="refused", status=401, body=raw)])

    for number in ("+61412345678", "0412 345 678", "345678"):
        found = list(queries.requests(Filter(ending=text.ending(number))))

        assert [each.body for each in found] == [body], number


def test_requests_are_found_by_what_they_are_and_by_what_they_brought(
    inbox: Inbox, queries: Queries
) -> None:
    inbox.accept(arrival("m1", at=NOON))
    inbox.accept(arrival("m1", at=NOON + MINUTE))
    inbox.accept(arrival("m2", at=NOON + 2 * MINUTE, customer=customer(2), to=("chat",)))
    refused = request(outcome="refused", status=401, at=NOON + 3 * MINUTE, message_id="m1")
    inbox.refuse([refused])

    def outcomes(**wanted: Any) -> list[str]:
        return [each.outcome for each in queries.requests(Filter(**wanted))]

    assert outcomes(message_id="m1") == ["accepted", "duplicate", "refused"]
    assert outcomes(destinations=("crm",)) == ["accepted", "duplicate"]
    assert outcomes(standings=("duplicate", "refused")) == ["duplicate", "refused"]
    assert outcomes(since=NOON + MINUTE) == ["duplicate", "accepted", "refused"]
    assert outcomes(ending=text.ending(customer(1))) == ["accepted", "duplicate"]
    newest = queries.requests(Filter(endpoint=refused.endpoint), limit=2)
    assert [each.outcome for each in newest] == ["accepted", "refused"]
