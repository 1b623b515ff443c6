"""Claiming: what is due is claimed once, and what became of it is recorded."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from fakes import (
    NOON,
    Commits,
    accept,
    accept_apart,
    arrival,
    customer,
    delivered,
    eventually,
    failed,
    finish,
    locked,
    record,
    take,
    take_one,
)
from structlog.testing import capture_logs

from relay.rules.delivery import OutcomeKind, Policy, State
from relay.rules.units import RateLimit
from relay.store import Database, Inbox, Queries, Queue, StoreUnavailable
from relay.store.claim import NEWEST_SEEN
from relay.store.values import Claim, Connection, DeliveryView

ON_BOTH = True

FindDelivery = Callable[..., DeliveryView]
NewQueue = Callable[[str], Queue]

SECOND = timedelta(seconds=1)


def _names(claims: Sequence[Claim]) -> list[str | None]:
    return [claim.event.message_id for claim in claims]


def _states(queries: Queries) -> list[str]:
    return [each.state.value for view in queries.events() for each in view.deliveries]


def test_a_claim_has_what_the_connector_needs(inbox: Inbox, queue: Queue) -> None:
    new = arrival("m1")
    inbox.accept(new)

    claim = take_one(queue)

    assert claim.event == new.event
    assert (claim.destination, claim.thread, claim.claimed_at) == ("crm", None, NOON)
    assert (claim.tries.attempts, claim.tries.repeat) == (1, False)


def test_a_claim_counts_its_attempt_and_writes_it_down_at_once(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")

    claim = take_one(queue)

    view = delivery()
    assert (view.state, view.attempts) == (State.IN_FLIGHT, 1)
    (attempt,) = view.history
    assert (attempt.id, attempt.node, attempt.started_at) == (claim.attempt_id, "worker-1", NOON)
    assert (attempt.ended_at, attempt.outcome) == (None, None)


def test_not_more_are_claimed_than_asked_for(inbox: Inbox, queue: Queue) -> None:
    accept_apart(inbox, 5)

    assert [len(take(queue, limit=limit)) for limit in (0, 2, 2, 2, 2)] == [0, 2, 2, 1, 0]


def test_what_was_due_first_is_claimed_first(inbox: Inbox, queue: Queue) -> None:
    for name, minutes in (("m1", 3), ("m2", 1), ("m3", 2), ("m4", 1)):
        at = NOON + timedelta(minutes=minutes)
        accept(inbox, name, customer=customer(int(name[1])), at=at)

    now = NOON + timedelta(hours=1)
    turns = [_names(take(queue, now=now, limit=2)) for _ in range(2)]

    assert turns == [["m2", "m4"], ["m3", "m1"]]


def test_nothing_is_claimed_before_it_is_due(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1", at=NOON)

    assert take(queue, now=NOON - timedelta(microseconds=1)) == []
    assert queue.due(["crm"], NOON - timedelta(microseconds=1)) == set()
    assert queue.due(["crm"], NOON) == {"crm"}
    assert len(take(queue, now=NOON)) == 1


def test_a_destination_gets_only_its_own(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1", to=("crm",))

    assert take(queue, destination="chat") == []
    assert queue.due(["chat", "crm", "nobody"], NOON) == {"crm"}


def test_what_is_claimed_is_not_due(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1")
    take_one(queue)

    assert take(queue) == []
    assert queue.due(["crm"], NOON) == set()


def test_each_delivery_is_claimed_once_under_eight_threads(
    inbox: Inbox, new_queue: NewQueue
) -> None:
    accept_apart(inbox, 200)
    start = threading.Barrier(8)

    def claim_all(part: int) -> list[str]:
        queue = new_queue(f"worker-{part}")
        start.wait()
        claimed: list[str] = []
        while claims := take(queue, limit=3):
            claimed += [claim.delivery_id for claim in claims]
        return claimed

    with ThreadPoolExecutor(8) as threads:
        claimed = [each for part in threads.map(claim_all, range(8)) for each in part]

    assert len(claimed) == len(set(claimed)) == 200


def test_two_workers_together_keep_the_rate_in_any_window_and_use_it_up(
    inbox: Inbox, new_queue: NewQueue
) -> None:
    accept_apart(inbox, 60)
    queues = [new_queue("worker-1"), new_queue("worker-2")]
    started: list[datetime] = []

    for step in range(40):
        now = NOON + step * timedelta(milliseconds=150)
        for queue in queues:
            claims = take(queue, now=now, limit=3, rate=RateLimit(4, SECOND))
            started += [claim.claimed_at for claim in claims]

    for begin in started:
        assert sum(begin <= each < begin + SECOND for each in started) <= 4
    windows = 6  # 40 steps of 150 ms; the rate frees all four at each seventh step
    assert len(started) == 4 * windows


def test_a_rate_that_is_used_up_does_not_bind_other_destinations(
    inbox: Inbox, queue: Queue
) -> None:
    accept_apart(inbox, 3, to=("crm", "chat"))
    rate = RateLimit(2, SECOND)

    counts = [len(take(queue, destination=name, rate=rate)) for name in ("crm", "chat", "crm")]

    assert counts == [2, 2, 0]


def test_destinations_of_one_connection_share_its_rate_over_all_workers(
    inbox: Inbox, new_queue: NewQueue
) -> None:
    names = ("front-desk", "sales")
    accept_apart(inbox, 60, to=names)
    queues = [new_queue("worker-1"), new_queue("worker-2")]
    rate = RateLimit(25, timedelta(minutes=5), burst=5)
    started: list[tuple[datetime, str]] = []

    for second in range(0, 700, 5):
        now = NOON + second * SECOND
        for queue, name in itertools.product(queues, names if second % 2 else names[::-1]):
            claims = take(
                queue, now=now, destination=name, limit=4, rate=rate,
                connection=Connection(name="flow owner", destinations=names),
            )  # fmt: skip
            started += [(claim.claimed_at, name) for claim in claims]

    moments = [moment for moment, _ in started]
    for begin in moments:
        assert sum(begin <= each < begin + rate.period for each in moments) <= 25
    assert moments == [NOON] * 5 + [NOON + 15 * n * SECOND for n in range(1, 47)]
    assert {name for _, name in started} == set(names)


def test_attempts_that_failed_count_against_the_rate(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1")
    finish(
        queue,
        take_one(queue),
        failed(OutcomeKind.TRANSIENT),
        policy=Policy(schedule=(SECOND / 9,)),
    )
    soon, later = NOON + SECOND / 2, NOON + SECOND

    assert take(queue, now=soon, rate=RateLimit(1, SECOND)) == []
    assert len(take(queue, now=later, rate=RateLimit(1, SECOND))) == 1


def test_an_attempt_is_kept_with_its_outcome(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    ended_at = NOON + SECOND

    finish(queue, take_one(queue), failed(OutcomeKind.TRANSIENT, "busy", status=503), now=ended_at)

    (attempt,) = delivery().history
    assert (attempt.outcome, attempt.detail, attempt.status) == ("transient", "busy", 503)
    assert (attempt.started_at, attempt.ended_at) == (NOON, ended_at)
    assert delivery().error == "busy"


def test_a_receipt_is_kept_and_an_old_error_forgotten(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue), failed(OutcomeKind.TRANSIENT, "busy"))

    finish(queue, take_one(queue, now=NOON + timedelta(minutes=1)), delivered("ticket 7"))

    view = delivery()
    assert (view.state, view.attempts, view.error) == (State.DELIVERED, 2, None)
    assert (view.reference, view.url) == ("ticket 7", "https://example.com/ticket 7")


def test_a_failed_delivery_is_due_again_after_its_wait(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")

    finish(
        queue, take_one(queue), failed(OutcomeKind.TRANSIENT), policy=Policy(schedule=(SECOND,))
    )

    assert delivery().due_at == NOON + SECOND
    assert take(queue, now=NOON + SECOND / 2) == []
    again = take_one(queue, now=NOON + SECOND)
    assert (again.tries.attempts, again.tries.failing_since) == (2, NOON)
    assert not again.tries.repeat


def test_after_doubt_the_next_attempt_is_a_repetition(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    first = take_one(queue)

    finish(queue, first, failed(OutcomeKind.AMBIGUOUS))

    again = take_one(queue, now=NOON + timedelta(minutes=1))
    assert again.tries.repeat
    assert again.key == first.key
    assert [attempt.repeat for attempt in delivery().history] == [False, True]


def test_a_thread_is_handed_to_the_next_delivery_of_its_conversation_only(
    inbox: Inbox, queue: Queue
) -> None:
    accept(inbox, "m1", "m2", "m3", to=("crm", "chat"))
    finish(queue, take_one(queue), delivered(thread="ticket 7"))
    accept(inbox, "m4", customer=customer(4))

    second, other = take(queue)

    assert (second.event.message_id, second.thread) == ("m2", "ticket 7")
    assert (other.event.message_id, other.thread) == ("m4", None)
    assert take_one(queue, destination="chat").thread is None


def test_a_thread_stays_until_a_receipt_names_another(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1", "m2", "m3", "m4")
    threads = []
    for outcome in (delivered(thread="a"), delivered(), delivered(thread="b"), delivered()):
        claim = take_one(queue)
        threads.append(claim.thread)
        finish(queue, claim, outcome)

    assert threads == [None, "a", "a", "b"]


def test_records_of_many_callers_share_commits(
    inbox: Inbox, queue: Queue, queries: Queries, commits: Commits
) -> None:
    accept_apart(inbox, 64)
    claims = take(queue)
    before = commits.count

    with ThreadPoolExecutor(16) as callers:
        list(callers.map(lambda claim: finish(queue, claim), claims))

    assert set(_states(queries)) == {"delivered"}
    assert commits.count - before < 64


def test_a_record_is_written_when_the_store_is_back(
    inbox: Inbox, queue: Queue, database: Database, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    claim = take_one(queue)

    with ThreadPoolExecutor(1) as callers, locked(database), capture_logs() as logs:
        finished = callers.submit(finish, queue, claim)
        eventually(lambda: len(logs) >= 2)
        assert delivery().state == State.IN_FLIGHT
        assert not finished.done()

    assert delivery().state == State.DELIVERED
    assert {line["event"] for line in logs} == {"store.unavailable"}


def test_a_queue_that_is_closed_while_the_store_is_away_gives_its_records_up(
    inbox: Inbox, queue: Queue, database: Database, delivery: FindDelivery
) -> None:
    accept_apart(inbox, 2)
    first, second = take(queue)
    told: list[BaseException | None] = []

    with locked(database), capture_logs() as logs:
        for claim in (first, second):
            queue.record_later(record(claim, delivered()), told.append)
        eventually(lambda: logs)
        queue.close()

    assert [type(error) for error in told] == [StoreUnavailable] * 2
    with pytest.raises(StoreUnavailable, match="shutting down"):
        finish(queue, first)
    assert delivery("m0").state == State.IN_FLIGHT


def test_a_record_that_is_written_twice_counts_once(
    inbox: Inbox, queue: Queue, database: Database, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    claim = take_one(queue)

    finish(queue, claim)
    finish(queue, claim)  # as when the first was written and nobody heard of it

    assert delivery().state == State.DELIVERED
    assert len(delivery().history) == 1


def test_every_other_claim_takes_the_newest(inbox: Inbox, queue: Queue) -> None:
    accept_apart(inbox, 6)

    taken = [claim.event.message_id for _ in range(6) for claim in take(queue, limit=1)]

    assert taken == ["m0", "m5", "m1", "m4", "m2", "m3"]


def test_a_backlog_does_not_delay_who_writes_now(inbox: Inbox, queue: Queue) -> None:
    accept_apart(inbox, 40)
    accept(inbox, "now", customer="+61499999999", at=NOON + SECOND)

    taken = [claim.event.message_id for claim in take(queue, limit=4, now=NOON + SECOND)]

    assert "now" in taken
    assert "m0" in taken


def test_of_many_that_wait_for_another_attempt_a_bounded_number_is_looked_at(
    inbox: Inbox, queue: Queue
) -> None:
    accept_apart(inbox, NEWEST_SEEN + 10)
    for claim in take(queue, limit=1000):
        if claim.event.message_id not in ("m0", "m1"):
            finish(queue, claim, failed(OutcomeKind.TRANSIENT))
    accept(inbox, "m2-again", customer=customer(2))  # behind one that waits

    assert take(queue, limit=2) == []
