"""Lanes: a conversation stays in its order, and holds up no other."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import (
    LEASE,
    NOON,
    accept,
    arrival,
    customer,
    delivered,
    failed,
    finish,
    lose,
    patiently,
    take,
    take_one,
)

from relay.rules.delivery import OutcomeKind, Policy, State
from relay.store import Database, Inbox, Queries, Queue, RowRefused, schema
from relay.store.values import Claim, DeliveryView

ON_BOTH = True

FindDelivery = Callable[..., DeliveryView]
NewQueue = Callable[[str], Queue]

SECOND = timedelta(seconds=1)
HOLD = Policy(on_ambiguous="hold", on_dead="hold")


def _names(claims: Sequence[Claim]) -> list[str | None]:
    return [claim.event.message_id for claim in claims]


def _states(queries: Queries) -> list[str]:
    return [each.state.value for view in queries.events() for each in view.deliveries]


def test_the_first_of_a_conversation_is_due_and_the_others_wait(
    inbox: Inbox, queries: Queries
) -> None:
    accept(inbox, "m1", "m2", "m3")

    assert _states(queries) == ["pending", "waiting", "waiting"]


def test_conversations_and_destinations_do_not_wait_for_each_other(
    inbox: Inbox, queries: Queries
) -> None:
    accept(inbox, "m1", to=("crm", "chat"))
    accept(inbox, "m2", customer=customer(2))
    accept(inbox, "m3", ours="+61700000002")

    assert _states(queries) == ["pending"] * 4


@pytest.mark.parametrize(
    ("outcome", "policy"),
    [
        (delivered(), Policy()),
        (failed(OutcomeKind.REFUSED), Policy()),
        (failed(OutcomeKind.AMBIGUOUS), HOLD),
    ],
    ids=["delivered", "dead", "held because nobody knows"],
)
def test_the_next_of_a_conversation_is_due_as_soon_as_the_one_before_has_ended(
    inbox: Inbox, queue: Queue, delivery: FindDelivery, outcome: Any, policy: Policy
) -> None:
    accept(inbox, "m1", "m2", "m3")
    ended_at = NOON + SECOND

    finish(queue, take_one(queue), outcome, now=ended_at, policy=policy)

    assert (delivery("m2").state, delivery("m2").due_at) == (State.PENDING, ended_at)
    assert delivery("m3").state == State.WAITING


@pytest.mark.parametrize(
    "result", [OutcomeKind.TRANSIENT, OutcomeKind.AMBIGUOUS, OutcomeKind.THROTTLED]
)
def test_a_conversation_waits_while_its_first_delivery_is_tried_again(
    inbox: Inbox, queue: Queue, delivery: FindDelivery, result: OutcomeKind
) -> None:
    accept(inbox, "m1", "m2")

    finish(queue, take_one(queue), failed(result))

    assert delivery("m1").state == State.PENDING
    assert delivery("m2").state == State.WAITING


def test_a_parked_conversation_waits_for_a_person(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")

    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED), policy=HOLD)
    accept(inbox, "m3")

    assert delivery("m1").state == State.HELD
    assert (delivery("m2").state, delivery("m3").state) == (State.WAITING, State.WAITING)


def test_what_comes_to_a_parked_conversation_with_nobody_in_line_waits_too(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED), policy=HOLD)

    accept(inbox, "m2")

    assert delivery("m2").state == State.WAITING


def test_a_parked_conversation_holds_up_no_other(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED), policy=HOLD)

    accept(inbox, "m2", customer=customer(2))

    assert _names(take(queue)) == ["m2"]


def test_a_parked_conversation_goes_on_when_what_parked_it_has_arrived_after_all(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    slow = take_one(queue)
    lose(queue, now=NOON + 2 * LEASE)
    again = take_one(queue, now=NOON + timedelta(hours=1))
    finish(queue, again, failed(OutcomeKind.REFUSED), policy=HOLD)
    assert delivery("m2").state == State.WAITING

    finish(queue, slow, delivered())

    assert delivery("m1").state == State.DELIVERED
    assert delivery("m2").state == State.PENDING


def _revive(inbox: Inbox, queue: Queue, name: str) -> None:
    """Let a message die and come again."""
    accept(inbox, name)
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED))
    accept(inbox, name)


def test_a_late_delivery_goes_beside_the_living(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    _revive(inbox, queue, "m1")
    accept(inbox, "m2", "m3")
    assert delivery("m2").state == State.PENDING

    assert _names(take(queue)) == ["m1", "m2"]
    assert delivery("m3").state == State.WAITING


def test_those_that_a_sender_revives_go_one_after_the_other(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2", "m3")
    for _ in range(3):
        finish(queue, take_one(queue), failed(OutcomeKind.REFUSED))
    accept(inbox, "m2", "m3", "m1")

    states = [delivery(name).state for name in ("m1", "m2", "m3")]
    assert states == [State.WAITING, State.PENDING, State.WAITING]
    came = []
    for _ in range(3):
        claim = take_one(queue)
        came.append(claim.event.message_id)
        finish(queue, claim)
    assert came == ["m2", "m1", "m3"]


def test_a_late_delivery_that_ends_lets_nobody_overtake(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    _revive(inbox, queue, "m1")
    accept(inbox, "m2", "m3")
    late, head = take(queue)

    finish(queue, late)
    assert delivery("m3").state == State.WAITING

    finish(queue, head)
    assert delivery("m3").state == State.PENDING


def test_a_late_delivery_that_dies_again_parks_nobody(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    _revive(inbox, queue, "m1")
    accept(inbox, "m2", "m3")
    late, head = take(queue)

    finish(queue, late, failed(OutcomeKind.REFUSED), policy=HOLD)
    finish(queue, head)

    assert delivery("m1").state == State.HELD
    assert delivery("m3").state == State.PENDING


def test_a_late_delivery_that_ends_frees_no_parked_conversation(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    _revive(inbox, queue, "m1")
    accept(inbox, "m2", "m3")
    late, head = take(queue)
    finish(queue, head, failed(OutcomeKind.REFUSED), policy=HOLD)

    finish(queue, late)

    assert delivery("m1").state == State.DELIVERED
    assert delivery("m3").state == State.WAITING


def test_the_database_itself_allows_one_head_per_conversation(
    inbox: Inbox, database: Database
) -> None:
    accept(inbox, "m1", "m2")

    with pytest.raises(RowRefused), database.writing() as db:
        db.execute(sa.update(schema.deliveries).values(state=State.PENDING))


@pytest.mark.slow
def test_no_delivery_is_forgotten_and_none_overtakes_under_eight_and_eight_threads(
    inbox: Inbox, new_queue: NewQueue, queries: Queries
) -> None:
    conversations, messages, destinations = 12, 20, ("crm", "chat")
    everything = conversations * messages * len(destinations)
    seen: dict[tuple[str, str], list[str]] = {}
    ended = Counter[str]()
    accepted = threading.Event()
    guard = threading.Lock()

    def take_in(part: int) -> None:
        for number in range(part, conversations * messages, 8):
            who = customer(number % conversations)
            coming = arrival(f"m{number}", customer=who, to=destinations)
            patiently(partial(inbox.accept, coming))

    def work(part: int) -> None:
        queue = new_queue(f"worker-{part}")
        name = destinations[part % 2]
        while ended.total() < everything:
            claims = patiently(partial(take, queue, destination=name, limit=4))
            for claim in claims:
                flaky = claim.number == 1 and int(claim.key, 16) % 5 == 0
                with guard:
                    if not flaky:
                        lane = seen.setdefault((name, claim.event.conversation), [])
                        lane.append(claim.event.id)
                # The wait is over at once: the clock of this test stands still.
                policy = Policy(schedule=(timedelta(0),))
                outcome = failed(OutcomeKind.TRANSIENT) if flaky else None
                end = partial(finish, queue, claim, outcome, policy=policy)
                decision = patiently(end)
                with guard:
                    ended[decision.state] += decision.ends
            if not claims and accepted.is_set() and not _unfinished(queries):
                return

    with ThreadPoolExecutor(16) as threads:
        accepting = [threads.submit(take_in, part) for part in range(8)]
        working = [threads.submit(work, part) for part in range(8)]
        for each in accepting:
            each.result()
        accepted.set()
        for each in working:
            each.result()

    assert set(_states(queries)) == {"delivered"}
    assert ended == {"delivered": everything, "pending": 0}
    order: dict[str, list[str]] = {}
    for view in queries.events():
        order.setdefault(view.event.conversation, []).append(view.event.id)
    for (_, conversation), events in seen.items():
        assert events == order[conversation]
    assert len(seen) == conversations * len(destinations)


def _unfinished(queries: Queries) -> bool:
    """Return whether a delivery is due or at work: somebody will promote what waits behind it."""
    states = {state for each in queries.backlog().values() for state in each}
    return bool(states & {"pending", "in_flight"})
