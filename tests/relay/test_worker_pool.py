"""The worker with many deliveries at once: rates, turns, order, and leases."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import Clock, Hang, Scripted, accept, accept_apart, destination, eventually
from workers import QUICK, FindDelivery, NewWorker, step

from connectors.base import Receipt
from relay.leases import LEASE, Intervals
from relay.rules.delivery import DEFAULT_SCHEDULE, State
from relay.store import Database, Inbox, Queries, Queue
from relay.store.values import Connection
from relay.worker import Worker


def test_a_destination_has_no_more_attempts_at_a_time_than_its_concurrency(
    inbox: Inbox, running: NewWorker, crm: Scripted
) -> None:
    accept_apart(inbox, 6)
    hangs = [Hang() for _ in range(6)]
    crm.script = list(hangs)
    running(destination("crm", crm, concurrency=2))

    for done in range(0, 6, 2):
        eventually(lambda done=done: len(crm.calls) == done + 2)
        assert len(crm.calls) == done + 2
        hangs[done].release()
        hangs[done + 1].release()

    eventually(lambda: all(hang.begun.is_set() for hang in hangs))


@pytest.mark.parametrize(
    ("settings", "ahead"), [({}, 4), ({"rate": "100/1s"}, 0), ({"on_ambiguous": "hold"}, 0)]
)
def test_while_calls_are_quick_some_are_claimed_before_a_thread_is_free(
    inbox: Inbox,
    new_queue: Callable[[str], Queue],
    crm: Scripted,
    settings: dict[str, Any],
    ahead: int,
) -> None:
    accept_apart(inbox, 20)
    served = {"crm": destination("crm", crm, concurrency=4, **settings)}
    worker = Worker(served, new_queue("worker-1"), clock=Clock(), intervals=QUICK)

    assert step(worker) == 4
    hangs = [Hang() for _ in range(20)]
    crm.script = list(hangs)
    assert worker.fill() == 4 + ahead
    eventually(lambda: len(crm.calls) == 8)
    # Nothing has ended since.
    assert worker.fill() == 0

    for hang in hangs:
        hang.release()
    assert worker.drain(20) == 0
    assert len(crm.calls) == 8 + ahead
    worker.close()


def test_what_waits_behind_calls_that_hang_is_left_to_others(
    inbox: Inbox, new_queue: Callable[[str], Queue], crm: Scripted, clock: Clock, queries: Queries
) -> None:
    accept_apart(inbox, 20)
    intervals = Intervals(heartbeat=0.005, patience=0.01, poll=0.002, gather=0.0, grace=0.0)
    served = {"crm": destination("crm", crm, concurrency=4, deadline="10ms")}
    worker = Worker(served, new_queue("worker-1"), clock=clock, intervals=intervals)
    crm.script = [Receipt(reference="quick")] * 4 + (hangs := [Hang() for _ in range(4)])
    thread = threading.Thread(target=worker.run)
    thread.start()
    eventually(lambda: len(crm.calls) == 8)

    def in_flight() -> int:
        clock.advance(1)
        found = [each for view in queries.events() for each in view.deliveries]
        return sum(each.state is State.IN_FLIGHT for each in found)

    # Also those that were claimed ahead, which nobody has begun to deliver.
    eventually(lambda: in_flight() == 0)
    assert worker.drain(0) == 0

    worker.stop()
    for hang in hangs:
        hang.release()
    thread.join(30)
    worker.close()
    time.sleep(0.1)
    assert len(crm.calls) == 8


def test_what_was_claimed_ahead_is_given_back_when_the_worker_stops(
    inbox: Inbox, new_queue: Callable[[str], Queue], crm: Scripted, queries: Queries
) -> None:
    accept_apart(inbox, 20)
    served = {"crm": destination("crm", crm, concurrency=4)}
    worker = Worker(served, new_queue("worker-1"), clock=Clock(), intervals=QUICK)
    assert step(worker) == 4
    hangs = [Hang() for _ in range(4)]
    crm.script = list(hangs)
    assert worker.fill() == 8
    eventually(lambda: len(crm.calls) == 8)

    worker.stop()
    for hang in hangs:
        hang.release()

    assert worker.drain(20) == 0
    assert len(crm.calls) == 8
    listed = [each for view in queries.events() for each in view.deliveries]
    whole = [view.deliveries[0] for each in listed if (view := queries.event(each.id))]
    back = [each for each in whole if each.history and each.state is State.PENDING]
    assert [each.attempts for each in back] == [0, 0, 0, 0]
    details = {attempt.detail for each in back for attempt in each.history}
    assert details == {"not begun: the worker was stopping"}
    worker.close()


def test_the_rate_of_a_destination_is_kept(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, clock: Clock
) -> None:
    accept_apart(inbox, 7)
    worker = new_worker(destination("crm", crm, rate="3/1s"))

    counts = []
    for _ in range(3):
        counts.append(step(worker) + step(worker))
        clock.advance(1)

    assert counts == [3, 3, 1]


def test_destinations_of_one_connection_take_turns_at_its_rate(
    inbox: Inbox, new_queue: Callable[[str], Queue], clock: Clock
) -> None:
    accept_apart(inbox, 6, to=("crm", "chat"))
    shared = Connection(name="shared", destinations=("chat", "crm"))
    both = [Scripted(), Scripted()]
    served = {
        name: replace(destination(name, each, rate="1/1s"), connection=shared)
        for name, each in zip(("crm", "chat"), both, strict=True)
    }
    worker = Worker(served, new_queue("worker-1"), clock=clock, intervals=QUICK)

    for _ in range(6):
        assert step(worker) == 1
        clock.advance(1)

    assert [len(each.message_ids) for each in both] == [3, 3]
    worker.close()


def test_two_workers_share_the_work_and_do_nothing_twice(
    inbox: Inbox, running: NewWorker, queries: Queries
) -> None:
    accept_apart(inbox, 30)
    first, second = Scripted(), Scripted()
    running(destination("crm", first), node="worker-1")
    running(destination("crm", second), node="worker-2")

    eventually(lambda: queries.backlog() == {"crm": {"delivered": 30}})

    names = first.message_ids + second.message_ids
    assert sorted(name or "" for name in names) == sorted(f"m{number}" for number in range(30))


def test_a_conversation_arrives_in_its_order_while_it_is_still_being_accepted(
    inbox: Inbox, running: NewWorker, crm: Scripted
) -> None:
    running(destination("crm", crm))

    accept(inbox, *(f"m{number}" for number in range(30)))

    eventually(lambda: len(crm.calls) == 30)
    assert crm.message_ids == [f"m{number}" for number in range(30)]


def test_the_next_of_a_conversation_is_looked_for_at_its_own_destination_only(
    inbox: Inbox, new_queue: Callable[[str], Queue], crm: Scripted, database: Database
) -> None:
    accept(inbox, *(f"m{number}" for number in range(20)))
    asked = _asked(database, "crm", "chat")

    with _waiting_to_be_woken(new_queue, crm=crm, chat=Scripted()):
        eventually(lambda: len(crm.calls) == 20)

    assert asked["crm"] >= 20
    assert asked["chat"] == 1


def test_whoever_wakes_the_worker_has_everything_looked_for(
    inbox: Inbox, new_queue: Callable[[str], Queue], crm: Scripted
) -> None:
    chat = Scripted()

    # Also while it looks.
    with _waiting_to_be_woken(new_queue, crm=crm, chat=chat) as worker:
        for number in range(50):
            accept(inbox, f"m{number}", to=("crm", "chat"))
            worker.wake()
            eventually(lambda number=number: len(crm.calls) == len(chat.calls) == number + 1)


@contextmanager
def _waiting_to_be_woken(
    new_queue: Callable[[str], Queue], **connectors: Scripted
) -> Iterator[Worker]:
    """Let a worker run that looks for nothing by itself."""
    served = {name: destination(name, each) for name, each in connectors.items()}
    intervals = Intervals(poll=60.0, gather=0.0)
    worker = Worker(served, new_queue("worker-1"), clock=Clock(), intervals=intervals)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(30)
        worker.close()


def _asked(database: Database, *names: str) -> Counter[str]:
    """Count from now on how often it is asked what is due at the destinations *names*."""
    asked: Counter[str] = Counter()

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def count(_: object, __: object, sql: str, values: Any, *___: object) -> None:
        if sql.startswith("SELECT deliveries.seq"):
            given = values.values() if isinstance(values, dict) else values
            asked.update(name for name in names if name in given)

    return asked


def test_a_destination_that_hangs_loses_its_lease_and_slows_nobody(
    inbox: Inbox,
    running: NewWorker,
    crm: Scripted,
    clock: Clock,
    delivery: FindDelivery,
) -> None:
    chat = Scripted()
    crm.script = [hang := Hang(Receipt(reference="from the one that hung"))]
    accept(inbox, "stuck", to=("crm",))
    intervals = Intervals(heartbeat=0.01, patience=0.03, poll=0.002, not_granted=0.0, grace=0.0)
    running(
        destination("crm", crm, deadline="50ms"), destination("chat", chat), intervals=intervals
    )
    assert hang.begun.wait(20)

    accept_apart(inbox, 30, to=("chat",))
    eventually(lambda: len(chat.calls) == 30)
    assert delivery("stuck").state == State.IN_FLIGHT

    eventually(lambda: _lost(delivery, clock))
    assert delivery("stuck").history[0].detail == "the worker was lost (lease ran out)"
    clock.advance(DEFAULT_SCHEDULE[0].total_seconds())
    eventually(lambda: delivery("stuck").state == State.DELIVERED)
    assert [call.repeat for call in crm.calls] == [False, True]

    hang.release()
    eventually(lambda: delivery("stuck").history[0].outcome == "delivered")
    assert delivery("stuck").reference == "r2"


def _lost(delivery: FindDelivery, clock: Clock) -> bool:
    """Say whether the lease was lost; if not, let a second go by."""
    if delivery("stuck").history[0].outcome == "ambiguous":
        return True
    clock.advance(1)
    return False


def test_the_lease_of_a_long_attempt_is_renewed(
    inbox: Inbox,
    running: NewWorker,
    new_queue: Callable[[str], Queue],
    crm: Scripted,
    clock: Clock,
    delivery: FindDelivery,
) -> None:
    crm.script = [hang := Hang()]
    accept(inbox, "m1")
    other = new_queue("worker-2")
    running(destination("crm", crm), intervals=Intervals(heartbeat=0.005, poll=0.002))
    assert hang.begun.wait(20)

    for _ in range(5):
        clock.advance(LEASE.total_seconds() * 2 / 3)
        eventually(lambda: not other.lost(["crm"], clock() + LEASE * 0.9))

    assert len(crm.calls) == 1
    hang.release()
    eventually(lambda: delivery().state == State.DELIVERED)
    assert len(delivery().history) == 1
