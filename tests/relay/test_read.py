"""Reading: everything there is, in its order, page after page."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import NOON, accept, accept_apart, arrival, failed, finish, locked, request, take_one

from relay.rules.delivery import OutcomeKind, State
from relay.rules.routing import Check, Match, RouteCheck
from relay.store import Database, Inbox, Queries, Queue, StoreUnavailable, connect
from relay.store.read import _PAGE

ON_BOTH = True

MORE_THAN_TWO_PAGES = 2 * _PAGE + 7


def _names(queries: Queries, *, limit: int | None = None) -> list[str | None]:
    return [view.event.message_id for view in queries.events(limit=limit)]


def test_events_come_oldest_first(inbox: Inbox, queries: Queries) -> None:
    accept(inbox, "m3", "m1", "m2")

    assert _names(queries) == ["m3", "m1", "m2"]


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, ["m3"]), (2, ["m2", "m3"]), (3, ["m1", "m2", "m3"]), (9, None)]
)
def test_a_limit_means_the_newest(
    inbox: Inbox, queries: Queries, limit: int, expected: list[str] | None
) -> None:
    accept(inbox, "m1", "m2", "m3")

    assert _names(queries, limit=limit) == (expected or ["m1", "m2", "m3"])


def test_a_limit_of_nothing_shows_nothing(inbox: Inbox, queries: Queries) -> None:
    accept(inbox, "m1")

    assert _names(queries, limit=0) == []
    assert list(queries.requests(limit=0)) == []


def test_an_empty_store_has_nothing_to_show(queries: Queries) -> None:
    assert list(queries.events()) == []
    assert list(queries.events(limit=5)) == []
    assert list(queries.requests()) == []
    assert queries.event("m1") is None
    assert queries.backlog() == {}


def test_a_listing_goes_over_pages(inbox: Inbox, queries: Queries) -> None:
    everything: list[str] = []
    for count in (_PAGE, _PAGE + 1, MORE_THAN_TWO_PAGES):
        more = [f"m{number}" for number in range(len(everything), count)]
        accept(inbox, *more, to=())
        everything += more

        assert _names(queries) == everything
        assert _names(queries, limit=_PAGE + 3) == everything[-_PAGE - 3 :]
        assert [each.message_id for each in queries.requests()] == everything


def test_a_listing_holds_no_transaction_open(inbox: Inbox, queries: Queries) -> None:
    accept(inbox, *(f"m{number}" for number in range(_PAGE + 1)), to=())
    listing = queries.events()
    next(listing)

    accept(inbox, "came meanwhile", to=())

    assert [view.event.message_id for view in listing][-1] == "came meanwhile"


def test_each_event_has_its_own_deliveries(inbox: Inbox, queries: Queries) -> None:
    accept(inbox, "m1", to=("crm", "chat"))
    accept(inbox, "m2", to=())
    accept(inbox, "m3", to=("chat",))

    shown = {
        view.event.message_id: [(each.destination, each.state.value) for each in view.deliveries]
        for view in queries.events()
    }

    assert shown == {
        "m1": [("crm", "pending"), ("chat", "pending")],
        "m2": [],
        "m3": [("chat", "waiting")],
    }


def test_an_event_is_found_by_its_id_and_by_its_message_id(inbox: Inbox, queries: Queries) -> None:
    acceptance = inbox.accept(arrival("m1"))
    accept(inbox, "m2")

    by_id, by_message = queries.event(acceptance.event_id), queries.event("m1")

    assert by_id is not None
    assert by_id == by_message
    assert by_id.event.message_id == "m1"
    assert queries.event("m") is None


def test_an_event_without_message_id_is_found_by_its_id(inbox: Inbox, queries: Queries) -> None:
    acceptance = inbox.accept(arrival(None))

    view = queries.event(acceptance.event_id)

    assert view is not None
    assert view.event.message_id is None


def test_an_accepted_event_is_preferred_to_its_conflicts(inbox: Inbox, queries: Queries) -> None:
    first = inbox.accept(arrival("m1"))
    conflict = inbox.accept(arrival("m1", body="other"))
    assert conflict.event_id != first.event_id

    by_message, by_id = queries.event("m1"), queries.event(conflict.event_id)

    assert by_message is not None and by_id is not None
    assert (by_message.event.id, by_message.standing) == (first.event_id, "accepted")
    assert (by_id.event.id, by_id.standing) == (conflict.event_id, "conflict")


def test_of_two_accepted_events_with_one_message_id_the_newest_is_shown(
    inbox: Inbox, queries: Queries
) -> None:
    inbox.accept(arrival("m1"))
    newest = inbox.accept(arrival("m1", key=b"of another endpoint" + bytes(13)))

    view = queries.event("m1")

    assert view is not None and view.event.id == newest.event_id


def test_one_event_comes_with_all_its_attempts_and_requests(
    inbox: Inbox, queue: Queue, queries: Queries
) -> None:
    accept(inbox, "m1", "m1")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED, "no such contact", status=404))

    view = queries.event("m1")

    assert view is not None
    assert [each.outcome for each in view.requests] == ["accepted", "duplicate"]
    (delivery,) = view.deliveries
    assert (delivery.state, delivery.error) == (State.DEAD, "refused: no such contact")
    (attempt,) = delivery.history
    assert (attempt.outcome, attempt.detail, attempt.status) == ("refused", "no such contact", 404)


def test_why_an_event_went_where_it_went_is_kept(inbox: Inbox, queries: Queries) -> None:
    check = Check(condition="event", wanted="SMS_REPLY", saw="SMS_REPLY", held=True)
    verdict = RouteCheck(route="replies", matched=True, to=("crm",), checks=(check,))
    inbox.accept(replace(arrival("m1"), match=Match(destinations=("crm",), routes=(verdict,))))

    (view,) = queries.events()

    assert view.routing == [
        {
            "route": "replies",
            "matched": True,
            "to": ["crm"],
            "checks": [
                {"condition": "event", "wanted": "SMS_REPLY", "saw": "SMS_REPLY", "held": True}
            ],
        }
    ]


def test_requests_come_oldest_first_good_and_refused_ones(inbox: Inbox, queries: Queries) -> None:
    good = inbox.accept(arrival("m1"))
    inbox.refuse([request(id="req_bad", status=401, outcome="refused", reason="no signature")])
    inbox.accept(arrival("m1"))

    shown = [(each.outcome, each.status, each.event_id) for each in queries.requests()]

    assert shown == [
        ("accepted", 200, good.event_id),
        ("refused", 401, None),
        ("duplicate", 200, good.event_id),
    ]
    assert [each.outcome for each in queries.requests(limit=2)] == ["refused", "duplicate"]


def test_the_times_of_requests_are_those_of_their_arrival(inbox: Inbox, queries: Queries) -> None:
    accept(inbox, "m1")

    assert [each.at for each in queries.requests()] == [NOON]


def test_the_backlog_counts_states_of_each_destination(
    inbox: Inbox, queue: Queue, queries: Queries
) -> None:
    accept_apart(inbox, 3, to=("crm", "chat"))
    accept(inbox, "behind", customer="+61400000000")
    finish(queue, take_one(queue, limit=1))
    take_one(queue, limit=1)

    assert queries.backlog() == {
        "crm": {"delivered": 1, "in_flight": 1, "pending": 2},
        "chat": {"pending": 3},
    }


def test_a_ledger_reads_while_a_stranger_writes(
    inbox: Inbox, database: Database, queries: Queries
) -> None:
    accept(inbox, "m1")

    with locked(database):
        assert _names(queries) == ["m1"]


def test_reading_fails_when_there_are_no_tables(tmp_path_factory: pytest.TempPathFactory) -> None:
    database = connect(f"sqlite:///{tmp_path_factory.mktemp('empty')}/relay.db")

    with pytest.raises(StoreUnavailable):
        list(Queries(database).events())

    database.close()
