"""Leases: who loses one is heard, and changes nothing that somebody else decided."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from fakes import (
    LEASE,
    NOON,
    accept,
    accept_apart,
    delivered,
    failed,
    finish,
    lose,
    record,
    take,
    take_one,
)

from relay.rules.delivery import Outcome, OutcomeKind, Policy, State
from relay.store import Database, Inbox, Queue
from relay.store.claim import LONGEST_LEASE
from relay.store.record import Results
from relay.store.values import DeliveryView

ON_BOTH = True

FindDelivery = Callable[..., DeliveryView]
NewQueue = Callable[[str], Queue]

SECOND = timedelta(seconds=1)


def test_a_lease_that_runs_out_is_lost(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1")
    claim = take_one(queue)

    assert queue.lost(["crm"], NOON + LEASE) == []
    (lost,) = queue.lost(["crm"], NOON + LEASE + SECOND)
    assert (lost.delivery_id, lost.number, lost.attempt_id) == (
        claim.delivery_id, claim.number, claim.attempt_id,
    )  # fmt: skip


def test_what_no_destination_serves_hides_nothing_that_is_lost(inbox: Inbox, queue: Queue) -> None:
    accept_apart(inbox, 3, to=("gone",))
    accept(inbox, "m9")
    take(queue, destination="gone")
    claim = take_one(queue)

    (lost,) = queue.lost(["crm"], NOON + LEASE + SECOND, limit=1)

    assert lost.delivery_id == claim.delivery_id


def test_a_renewed_lease_is_not_lost(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1")
    claim = take_one(queue)

    queue.renew([claim.delivery_id], lease=LEASE, now=NOON + LEASE)

    assert queue.lost(["crm"], NOON + 2 * LEASE) == []
    assert len(queue.lost(["crm"], NOON + 2 * LEASE + SECOND)) == 1


def test_a_worker_renews_only_its_own_leases(inbox: Inbox, new_queue: NewQueue) -> None:
    accept(inbox, "m1")
    claim = take_one(new_queue("worker-1"))
    other = new_queue("worker-2")

    other.renew([claim.delivery_id], lease=LEASE, now=NOON + LEASE)

    assert len(other.lost(["crm"], NOON + LEASE + SECOND)) == 1


def test_what_has_ended_has_no_lease_to_renew(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    claim = take_one(queue)
    finish(queue, claim)

    queue.renew([claim.delivery_id], lease=LEASE, now=NOON)

    assert queue.lost(["crm"], NOON + timedelta(days=1)) == []
    assert delivery().state == State.DELIVERED


def test_a_worker_that_comes_back_finds_its_own_claims_at_once(
    inbox: Inbox, new_queue: NewQueue
) -> None:
    accept_apart(inbox, 2)
    mine = take_one(new_queue("worker-1"), limit=1)
    take_one(new_queue("worker-2"), limit=1)

    (abandoned,) = new_queue("worker-1").abandoned(NOON)

    assert abandoned.delivery_id == mine.delivery_id


def test_a_late_failure_changes_only_its_attempt(
    inbox: Inbox, new_queue: NewQueue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    slow, other = new_queue("worker-1"), new_queue("worker-2")
    first = take_one(slow)
    later = NOON + 2 * LEASE
    lose(other, now=later)
    before = delivery()

    finish(slow, first, failed(OutcomeKind.REFUSED, "no such contact"))

    after = delivery()
    assert (after.state, after.due_at, after.error) == (before.state, before.due_at, before.error)
    assert after.state == State.PENDING
    assert [(a.outcome, a.detail) for a in after.history] == [("refused", "no such contact")]


def test_a_late_success_settles_if_nobody_else_has(
    inbox: Inbox, new_queue: NewQueue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    slow, other = new_queue("worker-1"), new_queue("worker-2")
    first = take_one(slow)
    later = NOON + 2 * LEASE
    lose(other, now=later)

    finish(slow, first, delivered("ticket 7", thread="ticket 7"))

    assert (delivery().state, delivery().reference) == (State.DELIVERED, "ticket 7")
    assert [attempt.outcome for attempt in delivery().history] == ["delivered"]
    following = take_one(other)
    assert (following.event.message_id, following.thread) == ("m2", "ticket 7")


@pytest.mark.parametrize("ending", ["dead", "held"])
def test_a_late_success_settles_what_was_given_up(
    inbox: Inbox, queue: Queue, delivery: FindDelivery, ending: str
) -> None:
    accept(inbox, "m1")
    slow = take_one(queue)
    later = NOON + 2 * LEASE
    lose(queue, now=later)
    again = take_one(queue, now=NOON + timedelta(hours=1))
    policy = Policy() if ending == "dead" else Policy(on_ambiguous="hold")
    outcome = failed(OutcomeKind.REFUSED if ending == "dead" else OutcomeKind.AMBIGUOUS)
    finish(queue, again, outcome, policy=policy)
    assert delivery().state == ending

    finish(queue, slow, delivered())

    assert delivery().state == State.DELIVERED
    assert delivery().error is None


def test_while_another_is_at_it_a_late_success_waits_for_that_one(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    slow = take_one(queue)
    later = NOON + 2 * LEASE
    lose(queue, now=later)
    again = take_one(queue, now=NOON + timedelta(hours=1))
    assert again.number == slow.number + 1

    finish(queue, slow, delivered("from the slow one"))
    assert delivery().state == State.IN_FLIGHT

    finish(queue, again, delivered("found again"))
    assert (delivery().state, delivery().reference) == (State.DELIVERED, "found again")
    assert [attempt.outcome for attempt in delivery().history] == ["delivered", "delivered"]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    "outcome",
    [
        failed(OutcomeKind.TRANSIENT),
        failed(OutcomeKind.THROTTLED),
        failed(OutcomeKind.AMBIGUOUS, "lost", lost=True),
        failed(OutcomeKind.REFUSED),
        failed(OutcomeKind.UNAUTHORIZED),
    ],
    ids=lambda outcome: outcome.kind.value,
)
def test_what_arrived_by_a_late_success_is_delivered_also_if_the_one_who_was_at_it_fails(
    inbox: Inbox,
    queue: Queue,
    database: Database,
    delivery: FindDelivery,
    outcome: Outcome,
    together: bool,
) -> None:
    accept(inbox, "m1", "m2")
    slow = take_one(queue)
    lose(queue, now=NOON + 2 * LEASE)
    again = take_one(queue, now=NOON + timedelta(hours=1))
    policy = Policy(on_dead="hold", on_ambiguous="hold")
    ends = [(slow, delivered("ticket 7", thread="ticket 7")), (again, outcome)]
    records = [record(claim, end, policy=policy) for claim, end in ends]

    for batch in [records] if together else [records[:1], records[1:]]:
        with database.writing() as db:
            Results(database).record(db, batch)

    view = delivery()
    assert (view.state, view.reference, view.error) == (State.DELIVERED, "ticket 7", None)
    assert [attempt.outcome for attempt in view.history] == ["delivered", outcome.kind]
    following = take_one(queue)
    assert (following.event.message_id, following.thread) == ("m2", "ticket 7")


def test_doubt_never_replaces_what_is_known(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    claim = take_one(queue)
    (lost,) = queue.lost(["crm"], NOON + 2 * LEASE)
    finish(queue, claim, delivered())

    finish(queue, lost, failed(OutcomeKind.AMBIGUOUS, "lost"))

    assert delivery().state == State.DELIVERED
    assert [attempt.outcome for attempt in delivery().history] == ["delivered"]


def test_a_lease_that_is_renewed_after_it_was_found_lost_stays_with_its_attempt(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    claim = take_one(queue)
    later = NOON + 2 * LEASE
    (seemed_lost,) = queue.lost(["crm"], later)
    queue.renew([claim.delivery_id], lease=LEASE, now=later)

    finish(queue, seemed_lost, failed(OutcomeKind.AMBIGUOUS, "lost", lost=True), now=later)

    (attempt,) = delivery().history
    assert delivery().state == State.IN_FLIGHT
    assert (attempt.outcome, attempt.ended_at, attempt.detail) == (None, None, None)


def test_a_lease_that_two_workers_find_lost_is_settled_once(
    inbox: Inbox, new_queue: NewQueue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    take_one(new_queue("worker-1"))
    later = NOON + 2 * LEASE
    finders = [new_queue("worker-2"), new_queue("worker-3")]
    found = [finder.lost(["crm"], later) for finder in finders]

    for finder, (lost,) in zip(finders, found, strict=True):
        finish(finder, lost, failed(OutcomeKind.AMBIGUOUS, "lost"), now=later)

    assert (delivery().state, delivery().attempts) == (State.PENDING, 1)
    assert len(delivery().history) == 1


def test_a_lease_of_a_clock_that_was_put_back_ends_soon(
    inbox: Inbox, queue: Queue, new_queue: Callable[[str], Queue]
) -> None:
    accept(inbox, "m1")
    take_one(queue, now=NOON + timedelta(hours=1))
    other = new_queue("worker-2")

    other.hasten(NOON)

    assert other.lost(["crm"], NOON + LONGEST_LEASE) == []
    assert len(other.lost(["crm"], NOON + LONGEST_LEASE + SECOND)) == 1


def test_an_honest_lease_is_left_as_it_is(
    inbox: Inbox, queue: Queue, new_queue: Callable[[str], Queue]
) -> None:
    accept(inbox, "m1")
    claim = take_one(queue)

    new_queue("worker-2").hasten(NOON)
    finish(queue, claim)

    assert queue.lost(["crm"], NOON + timedelta(days=1)) == []
