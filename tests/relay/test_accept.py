"""Accepting: each event once, in one transaction, whatever comes with it and however often."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import (
    NOON,
    Commits,
    accept_together,
    arrival,
    arrival_of,
    customer,
    failed,
    finish,
    locked,
    request,
    take,
    take_one,
)

from relay.rules.delivery import OutcomeKind, Policy, State
from relay.store import (
    Database,
    Inbox,
    Queries,
    Queue,
    RowRefused,
    StoreUnavailable,
    connect,
    refused,
    schema,
)
from relay.store.accept import DUPLICATES_KEPT
from relay.store.values import Arrival, DeliveryView, Request

ON_BOTH = True

LATER = NOON + timedelta(hours=1)

FindDelivery = Callable[..., DeliveryView]


def _count(database: Database, table: sa.Table) -> int:
    with database.reading() as db:
        return db.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _standings(queries: Queries) -> list[tuple[str, int]]:
    return [(view.standing, view.duplicates) for view in queries.events()]


def _kill(queue: Queue) -> None:
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED, "no such contact"))


def test_a_new_event_is_stored_with_its_request_and_deliveries_in_one_commit(
    inbox: Inbox, queries: Queries, commits: Commits
) -> None:
    new = arrival("m1", body="hello", to=("crm", "chat"))

    acceptance = inbox.accept(new)

    assert acceptance.standing == "accepted"
    assert commits.count == 1
    view = queries.event("m1")
    assert view is not None
    assert view.event == new.event
    assert view.event.id == acceptance.event_id
    assert [(each.outcome, each.event_id) for each in view.requests] == [
        ("accepted", new.event.id)
    ]
    assert [(d.destination, d.state, d.due_at) for d in view.deliveries] == [
        ("crm", State.PENDING, NOON),
        ("chat", State.PENDING, NOON),
    ]


def test_a_duplicate_is_counted_and_nothing_else_happens(
    inbox: Inbox, database: Database, queries: Queries
) -> None:
    first = inbox.accept(arrival("m1"))

    again = [inbox.accept(arrival("m1", at=LATER)) for _ in range(3)]

    assert {each.standing for each in again} == {"duplicate"}
    assert {each.event_id for each in again} == {first.event_id}
    assert _standings(queries) == [("accepted", 3)]
    assert _count(database, schema.deliveries) == 1
    assert [each.outcome for each in queries.requests()] == ["accepted"] + ["duplicate"] * 3
    with database.reading() as db:
        known = db.execute(sa.select(schema.keys)).one()
    assert (known.first_at, known.last_at) == (NOON, LATER)


def test_the_same_message_id_at_another_endpoint_is_another_event(inbox: Inbox) -> None:
    inbox.accept(arrival("m1"))
    other = arrival("m1")

    assert inbox.accept(replace(other, key=b"another endpoint" * 2)).standing == "accepted"


@pytest.mark.parametrize(
    "difference",
    [
        {"type": "SMS_RECEIVED"},
        {"direction": "inbound"},
        {"customer": "+61400000009"},
        {"ours": "+61700000009"},
        {"body": "something else"},
    ],
    ids=lambda difference: next(iter(difference)),
)
def test_the_same_id_with_another_meaning_is_a_conflict_that_is_kept_and_not_delivered(
    inbox: Inbox, database: Database, queries: Queries, difference: dict[str, Any]
) -> None:
    inbox.accept(arrival("m1"))
    other = arrival("m1", **difference)

    acceptance = inbox.accept(other)

    assert acceptance.standing == "conflict"
    kept = queries.event(acceptance.event_id)
    assert kept is not None
    assert kept.event == other.event
    assert (kept.standing, kept.deliveries) == ("conflict", ())
    assert _standings(queries) == [("accepted", 0), ("conflict", 0)]
    assert _count(database, schema.deliveries) == 1


@pytest.mark.parametrize("bodies", [("hello", None), (None, "hello"), (None, None)])
def test_texts_are_compared_only_when_both_came(
    inbox: Inbox, bodies: tuple[str | None, str | None]
) -> None:
    first, second = bodies
    inbox.accept(arrival("m1", body=first))

    assert inbox.accept(arrival("m1", body=second)).standing == "duplicate"


def test_what_a_resend_may_renew_is_no_conflict(inbox: Inbox) -> None:
    said = {"messageId": "m1", "eventType": "SMS_REPLY", "messageBody": "hello"}
    inbox.accept(arrival_of(json.dumps(said | {"eventTimestamp": "2026-11-24"}).encode()))
    renewed = said | {"eventTimestamp": "2026-11-25", "attempt": 2}

    assert inbox.accept(arrival_of(json.dumps(renewed).encode())).standing == "duplicate"


def test_a_conflict_that_comes_again_is_counted_and_kept_once(
    inbox: Inbox, queries: Queries
) -> None:
    inbox.accept(arrival("m1"))
    kept = inbox.accept(arrival("m1", body="other"))

    again = [inbox.accept(arrival("m1", body="other")) for _ in range(2)]

    assert {(each.standing, each.event_id) for each in again} == {("conflict", kept.event_id)}
    assert _standings(queries) == [("accepted", 0), ("conflict", 2)]


def test_different_conflicts_are_kept_apart(inbox: Inbox, queries: Queries) -> None:
    for body in ("hello", "other", "third"):
        inbox.accept(arrival("m1", body=body))

    assert _standings(queries) == [("accepted", 0), ("conflict", 0), ("conflict", 0)]


def test_the_event_itself_is_still_known_after_a_conflict(inbox: Inbox) -> None:
    first = inbox.accept(arrival("m1"))
    inbox.accept(arrival("m1", body="other"))

    again = inbox.accept(arrival("m1"))

    assert (again.standing, again.event_id) == ("duplicate", first.event_id)


def test_of_equal_keys_in_one_batch_the_first_is_the_event(
    inbox: Inbox, queries: Queries, database: Database
) -> None:
    first = arrival("m1")

    results = accept_together(
        database,
        inbox,
        [first, arrival("m1"), arrival("m1", body="other"), arrival("m2"), arrival("m1")],
    )

    assert [result.standing for result in results] == [
        "accepted", "duplicate", "conflict", "accepted", "duplicate",
    ]  # fmt: skip
    assert {results[0].event_id, results[1].event_id, results[4].event_id} == {first.event.id}
    view = queries.event("m1")
    assert view is not None and view.duplicates == 2
    assert _count(database, schema.deliveries) == 2


def test_a_batch_is_one_commit(inbox: Inbox, database: Database, commits: Commits) -> None:
    accept_together(database, inbox, [arrival(f"m{number}") for number in range(20)])

    before_the_batch = 1
    assert commits.count == before_the_batch + 1


def test_events_of_a_batch_stand_in_the_order_in_which_they_came(
    inbox: Inbox, database: Database, queries: Queries
) -> None:
    names = [f"m{number}" for number in (5, 3, 9, 1)]

    accept_together(database, inbox, [arrival(name) for name in names])

    assert [view.event.message_id for view in queries.events()][1:] == names


def _unstorable(name: str, taken: Arrival) -> Arrival:
    """Make an arrival that the database refuses."""
    event = arrival(name).event
    faults: dict[str, dict[str, Any]] = {
        "text that is no text": {"query": "\ud800"},
        "an id that is taken": {"event": replace(event, id=taken.event.id)},
        "a naive time": {"event": replace(event, occurred_at=NOON.replace(tzinfo=None))},
        "no query": {"query": None},
    }
    return arrival(name, **faults[name])


@pytest.mark.parametrize(
    "fault", ["text that is no text", "an id that is taken", "a naive time", "no query"]
)
def test_an_arrival_that_cannot_be_stored_does_its_neighbours_no_harm(
    inbox: Inbox, database: Database, queries: Queries, fault: str
) -> None:
    inbox.accept(taken := arrival("taken", to=()))

    results = accept_together(
        database, inbox, [arrival("m1"), _unstorable(fault, taken), arrival("m2"), arrival("m1")]
    )

    assert isinstance(results[1], Exception)
    assert not isinstance(results[1], StoreUnavailable)
    assert [results[position].standing for position in (0, 2, 3)] == [
        "accepted", "accepted", "duplicate",
    ]  # fmt: skip
    assert queries.event(fault) is None
    for name in ("m1", "m2"):
        view = queries.event(name)
        assert view is not None and len(view.deliveries) == 1


def test_a_key_whose_event_could_not_be_stored_is_not_taken(inbox: Inbox) -> None:
    with pytest.raises(RowRefused):
        inbox.accept(arrival("m1", query="\ud800"))

    assert inbox.accept(arrival("m1")).standing == "accepted"


def test_a_duplicate_of_an_event_without_deliveries_is_routed_by_todays_routes(
    inbox: Inbox, delivery: FindDelivery
) -> None:
    first = inbox.accept(arrival("m1", to=()))

    second = inbox.accept(arrival("m1", to=("crm",), at=LATER))

    assert (second.standing, second.event_id) == ("duplicate", first.event_id)
    assert (delivery().state, delivery().due_at) == (State.PENDING, LATER)


def test_a_duplicate_makes_no_message_of_a_test(inbox: Inbox, database: Database) -> None:
    first = arrival("m1", to=())
    inbox.accept(replace(first, event=replace(first.event, test=True)))

    # Since then the patterns have changed.
    assert inbox.accept(arrival("m1", to=("crm",))).standing == "duplicate"

    assert _count(database, schema.deliveries) == 0


def test_a_duplicate_of_an_event_with_deliveries_gets_no_more_of_them(
    inbox: Inbox, database: Database
) -> None:
    inbox.accept(arrival("m1", to=("crm",)))

    inbox.accept(arrival("m1", to=("crm", "chat")))

    assert _count(database, schema.deliveries) == 1


def test_an_event_that_is_routed_later_waits_its_turn(
    inbox: Inbox, delivery: FindDelivery
) -> None:
    inbox.accept(arrival("m1", to=()))
    inbox.accept(arrival("m2"))

    inbox.accept(arrival("m1", to=("crm",)))

    assert delivery("m2").state == State.PENDING
    assert delivery("m1").state == State.WAITING


def test_a_duplicate_revives_dead_deliveries_as_late_ones(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    inbox.accept(arrival("m1"))
    _kill(queue)

    inbox.accept(arrival("m1", at=LATER))

    revived = delivery()
    assert (revived.state, revived.late, revived.due_at) == (State.PENDING, True, LATER)
    assert (revived.attempts, revived.error) == (0, None)


def test_a_revived_delivery_keeps_its_key(inbox: Inbox, queue: Queue) -> None:
    inbox.accept(arrival("m1"))
    first = take_one(queue)
    finish(queue, first, failed(OutcomeKind.REFUSED))
    inbox.accept(arrival("m1"))

    second = take_one(queue)

    assert second.key == first.key
    assert second.attempt_id != first.attempt_id


def test_an_endpoint_may_leave_the_dead_alone(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    inbox.accept(arrival("m1"))
    _kill(queue)

    inbox.accept(arrival("m1", on_duplicate="ignore"))

    assert delivery().state == State.DEAD


def test_a_duplicate_touches_no_delivery_that_is_not_dead(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    inbox.accept(arrival("m1", to=("crm", "chat", "desk", "archive")))
    finish(queue, take_one(queue, destination="crm"))
    finish(queue, take_one(queue, destination="desk"), failed(OutcomeKind.REFUSED))
    hold = Policy(on_ambiguous="hold")
    finish(
        queue, take_one(queue, destination="archive"), failed(OutcomeKind.AMBIGUOUS), policy=hold
    )

    inbox.accept(arrival("m1", to=("crm", "chat", "desk", "archive")))

    states = {name: delivery("m1", name).state for name in ("crm", "chat", "desk", "archive")}
    assert states == {"crm": "delivered", "chat": "pending", "desk": "pending", "archive": "held"}
    assert [delivery("m1", name).late for name in states] == [False, False, True, False]


def test_keys_of_deliveries_differ_by_event_and_by_destination(inbox: Inbox, queue: Queue) -> None:
    inbox.accept(arrival("m1", customer=customer(1), to=("crm", "chat")))
    inbox.accept(arrival("m2", customer=customer(2), to=("crm", "chat")))

    keys = {claim.key for name in ("crm", "chat") for claim in take(queue, destination=name)}

    assert len(keys) == 4


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messageId": "m1", "messageBody": "\\ud800 \\u0000 \\udfff"}',
        b'{"messageId": "\\u0000m1\\u0000", "from": "\\u0000", "to": "\\udc00"}',
        b'{"messageId": "m1", "eventType": "\\ud83d\\ude00", "direction": "\\ud83d"}',
        b'{"messageId": ' + b"9" * 900 + b"}",
        b'{"messageId": "m1", "metadata": {"accountId": ' + b"9" * 20_000 + b"}}",
        b'{"messageId": "m1", "eventTimestamp": "9999-12-31T23:59:59.999999-23:59"}',
        b'{"messageId": "m1", "eventTimestamp": "0001-01-01T00:00:00"}',
        b'{"messageId": ["m1"], "eventType": {}, "from": 61400000001, "to": null}',
        b'{"a": ' * 9_000 + b"1" + b"}" * 9_000,
        b"{}",
        '{"messageId": "m1", "messageBody": "\N{SLICE OF PIZZA} à bientôt"}'.encode("utf-16"),
        b'{"messageId": "m1", "messageBody": "\xff\xfe"}',
    ],
    ids=range(12),
)
def test_the_oddest_signed_json_is_stored_and_known_again(
    inbox: Inbox, queries: Queries, queue: Queue, raw: bytes
) -> None:
    first = inbox.accept(arrival_of(raw))

    again = inbox.accept(arrival_of(raw))

    assert (again.standing, again.event_id) == ("duplicate", first.event_id)
    view = queries.event(first.event_id)
    assert view is not None
    assert take_one(queue).event == view.event


def test_requests_with_odd_headers_are_stored(inbox: Inbox, queries: Queries) -> None:
    headers = {"x-odd": "\udc80\x00\U0001f355", "": "x" * 10_000}

    inbox.accept(arrival("m1", request=request(headers=headers)))

    assert [each.headers for each in queries.requests()] == [headers]


def test_thirty_two_callers_are_each_answered_once_with_fewer_commits_than_events(
    inbox: Inbox, queries: Queries, commits: Commits
) -> None:
    start = threading.Barrier(32)

    def accept(caller: int) -> list[tuple[str, str]]:
        start.wait()
        # Each event comes twice: once from this caller and once from its neighbour.
        names = [f"{(caller + step // 10) % 32}-{step % 10}" for step in range(20)]
        return [(name, inbox.accept(arrival(name)).standing) for name in names]

    with ThreadPoolExecutor(32) as callers:
        answers = [answer for each in callers.map(accept, range(32)) for answer in each]

    statuses = Counter(answers)
    assert len(answers) == 640
    assert set(statuses.values()) == {1}
    assert Counter(status for _, status in answers) == {"accepted": 320, "duplicate": 320}
    views = list(queries.events())
    assert sorted(view.event.message_id or "" for view in views) == sorted(
        {name for name, _ in answers}
    )
    assert {(view.duplicates, len(view.deliveries)) for view in views} == {(1, 1)}
    assert commits.count < 320


def test_two_processes_worth_of_inboxes_agree_on_what_is_new(database: Database) -> None:
    other_database = connect(str(database.url))
    inboxes = [Inbox(database), Inbox(other_database)]

    with ThreadPoolExecutor(8) as callers:
        names = [f"m{number}" for number in range(40)] * 2
        turns = [inboxes[position % 2] for position in range(41)] * 2
        accepted = callers.map(
            lambda name, inbox: inbox.accept(arrival(name)).standing, names, turns
        )
        statuses = Counter(accepted)

    for inbox in inboxes:
        inbox.close()
    other_database.close()
    assert statuses == {"accepted": 40, "duplicate": 40}


def test_a_store_that_is_away_keeps_nothing_and_takes_it_when_it_is_back(
    inbox: Inbox, database: Database, queries: Queries
) -> None:
    with locked(database), pytest.raises(StoreUnavailable):
        inbox.accept(arrival("m1"))
    assert list(queries.events()) == []

    assert inbox.accept(arrival("m1")).standing == "accepted"


def test_a_store_that_is_away_is_away_for_the_whole_batch(
    inbox: Inbox, database: Database
) -> None:
    with locked(database), ThreadPoolExecutor(8) as callers:
        results = [callers.submit(inbox.accept, arrival(f"m{number}")) for number in range(8)]
        errors = [result.exception() for result in results]

    assert {type(error) for error in errors} == {StoreUnavailable}


def test_a_closed_inbox_is_unavailable(database: Database) -> None:
    inbox = Inbox(database)
    inbox.close()

    with pytest.raises(StoreUnavailable, match="shutting down"):
        inbox.accept(arrival("m1"))


def test_what_is_known_outlives_the_process(database: Database) -> None:
    for expected in ("accepted", "duplicate"):
        inbox = Inbox(database)
        assert inbox.accept(arrival("m1")).standing == expected
        assert inbox.accept(arrival(f"other {expected}")).standing == "accepted"
        inbox.close()


def test_refused_requests_are_noted(inbox: Inbox, queries: Queries) -> None:
    noted = [
        request(status=401, outcome="refused", reason="signature wrong", body=b"\x00\xff"),
        request(status=415, outcome="refused", reason="content type text/plain"),
    ]

    inbox.refuse(noted)

    assert list(queries.requests()) == noted


def test_the_ring_of_refused_requests_is_bounded(inbox: Inbox, queries: Queries) -> None:
    inbox.accept(arrival("m1"))
    many: Sequence[str] = [f"req_{number}" for number in range(refused.ROWS_KEPT + 50)]
    inbox.refuse([request(id=name, outcome="refused", status=401) for name in many])

    kept = list(queries.requests())

    assert kept[0].outcome == "accepted"
    assert [each.id for each in kept[1:]] == many[-refused.ROWS_KEPT :]


@pytest.mark.slow
def test_the_ring_of_refused_requests_is_bounded_in_bytes(
    inbox: Inbox, database: Database, queries: Queries
) -> None:
    whole = [_large(f"req_{number}") for number in range(100)]
    for start in range(0, 8_000, 100):
        inbox.refuse([replace(each, id=f"{each.id}_{start}") for each in whole])

    kept = [each.id for each in queries.requests()]

    assert kept[-1] == "req_99_7900"
    assert refused.BYTES_KEPT - 20_000 < sum(_sizes(database)) <= refused.BYTES_KEPT
    assert len(kept) == len(_sizes(database)) < 8_000


def _large(name: str) -> Request:
    """Make a refused request as large as one is kept."""
    return request(
        id=name, outcome="refused", status=401, headers={"x": "é" * 4_000}, body=bytes(4_096)
    )


def _sizes(database: Database) -> Sequence[int]:
    """Return the size of each request by what is in its row."""
    c = schema.requests.c
    with database.reading() as db:
        rows = db.execute(sa.select(c.headers, c.body, c.size)).all()
    assert all(row.size == len(row.headers.encode()) + len(row.body) for row in rows)
    return [row.size for row in rows]


def test_only_the_first_duplicates_of_an_event_are_kept_and_all_are_counted(
    inbox: Inbox, queries: Queries
) -> None:
    for _ in range(50):
        inbox.accept(arrival("m1"))
        inbox.accept(arrival("m1", body="another"))

    (event, conflict) = [queries.event(view.event.id) for view in queries.events()]

    assert event is not None and conflict is not None
    assert (event.duplicates, conflict.duplicates) == (49, 49)
    for view, standing in ((event, "duplicate"), (conflict, "conflict")):
        _, *again = view.requests
        assert [each.outcome for each in again] == [standing] * DUPLICATES_KEPT


def test_a_probe_writes_nothing(inbox: Inbox, queries: Queries) -> None:
    inbox.probe()

    assert list(queries.events()) == []


def test_a_probe_notices_that_nothing_can_be_written(inbox: Inbox, database: Database) -> None:
    with locked(database), pytest.raises(StoreUnavailable):
        inbox.probe()

    inbox.probe()
