"""The worker: what a connector did is what becomes of the delivery, whatever happens meanwhile."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import (
    NOON,
    Act,
    Clock,
    Hang,
    LongestWaits,
    Scripted,
    accept,
    accept_apart,
    customer,
    destination,
    eventually,
    locked,
    take_one,
)
from hinted import Hinted
from structlog.testing import capture_logs

from connectors.base import (
    Ambiguous,
    DeliveryError,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from relay.destinations import Destination
from relay.leases import LEASE, Intervals
from relay.rules.delivery import DEFAULT_SCHEDULE, State
from relay.rules.health import PROBE_EVERY
from relay.store import Database, Inbox, Queries, Queue
from relay.store.values import Connection, DeliveryView
from relay.worker import Worker

FindDelivery = Callable[..., DeliveryView]
NewWorker = Callable[..., Worker]

QUICK = Intervals(poll=0.002, gather=0.0, not_granted=0.0, store_away=0.005)


@pytest.fixture
def crm() -> Scripted:
    return Scripted()


@pytest.fixture(params=[Worker, Hinted], ids=["threads", "celery"])
def new_worker(
    request: pytest.FixtureRequest, new_queue: Callable[[str], Queue], clock: Clock
) -> Iterator[NewWorker]:
    """Make a worker that has not been started: of either engine."""
    made: list[tuple[Any, tuple[Destination, ...]]] = []

    def new_worker(
        *destinations: Destination, node: str = "worker-1", intervals: Intervals = QUICK
    ) -> Any:
        rng: Any = LongestWaits()
        served = {each.name: each for each in destinations}
        worker = request.param(served, new_queue(node), clock=clock, rng=rng, intervals=intervals)
        made.append((worker, destinations))
        return worker

    yield new_worker
    for worker, destinations in made:
        worker.stop()
        for each in destinations:
            for hang in each.connector.hangs:
                hang.release()
        worker.drain(10)
        worker.close()


@pytest.fixture
def running(new_worker: NewWorker) -> Iterator[NewWorker]:
    """Make a worker and let it run."""
    started: list[tuple[Worker, threading.Thread]] = []

    def running(*destinations: Destination, **options: Any) -> Worker:
        worker = new_worker(*destinations, **options)
        thread = threading.Thread(target=worker.run)
        thread.start()
        started.append((worker, thread))
        return worker

    yield running
    for worker, thread in started:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


def _step(worker: Worker) -> int:
    """Let *worker* do what is due, and wait for it."""
    claimed = worker.fill()
    assert worker.drain(20) == 0
    return claimed


# What becomes of a delivery


def test_a_due_delivery_is_brought_to_its_connector(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, queries: Queries, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")

    claimed = _step(new_worker(destination("crm", crm, deadline="7s")))

    assert claimed == 1
    (call,) = crm.calls
    (view,) = queries.events()
    assert call.event == view.event
    assert (call.thread, call.repeat, call.deadline) == (None, False, 7.0)
    assert (delivery().state, delivery().reference) == (State.DELIVERED, "r1")


def test_nothing_due_is_nothing_done(new_worker: NewWorker, crm: Scripted) -> None:
    assert _step(new_worker(destination("crm", crm))) == 0


def test_a_failure_that_passes_is_tried_again_after_its_wait(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, clock: Clock, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    crm.script = [Transient("busy", status=503), Transient("busy", status=503)]
    worker = new_worker(destination("crm", crm, retry={"schedule": ["10s", "1m"]}))

    _step(worker)
    assert delivery().due_at == NOON + timedelta(seconds=10)
    clock.advance(9.9)
    assert _step(worker) == 0
    clock.advance(0.1)
    _step(worker)
    assert delivery().due_at == clock() + timedelta(minutes=1)
    clock.advance(60)
    _step(worker)

    assert delivery().state == State.DELIVERED
    assert [attempt.outcome for attempt in delivery().history] == [
        "transient", "transient", "delivered",
    ]  # fmt: skip
    assert len({call.key for call in crm.calls}) == 1
    assert not any(call.repeat for call in crm.calls)


def test_failures_that_do_not_pass_end_in_death_when_their_time_is_over(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, clock: Clock, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    crm.script = [Transient("busy")] * 9
    worker = new_worker(destination("crm", crm, retry={"schedule": ["1m"], "for": "3m"}))

    while _step(worker):
        clock.advance(60)

    assert delivery().state == State.DEAD
    assert delivery().error == "exhausted after 4 attempts: busy"


def test_a_throttling_destination_is_left_alone_for_as_long_as_it_asks(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, clock: Clock, delivery: FindDelivery
) -> None:
    accept_apart(inbox, 2)
    crm.script = [Throttled("slow down", retry_after=timedelta(seconds=30))]
    worker = new_worker(destination("crm", crm, concurrency=1))

    _step(worker)
    assert delivery("m0").attempts == 0
    clock.advance(29.9)
    assert _step(worker) == 0
    clock.advance(0.1)

    assert _step(worker) + _step(worker) == 2
    assert crm.message_ids[1:] in (["m0", "m1"], ["m1", "m0"])
    assert delivery("m0").state == delivery("m1").state == State.DELIVERED


def test_a_destination_that_turns_us_away_is_probed_with_one_and_then_served(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, clock: Clock, queries: Queries
) -> None:
    accept_apart(inbox, 4)
    crm.script = [Unauthorized("token expired", status=401), Unauthorized("still")]
    worker = new_worker(destination("crm", crm, concurrency=1))

    _step(worker)
    assert _step(worker) == 0
    clock.advance(PROBE_EVERY.total_seconds())
    assert _step(worker) == 1
    assert _step(worker) == 0
    assert len(crm.calls) == 2

    clock.advance(PROBE_EVERY.total_seconds())
    while _step(worker):
        pass

    assert queries.backlog() == {"crm": {"delivered": 4}}
    assert {each.attempts for view in queries.events() for each in view.deliveries} == {1}


def test_after_doubt_the_connector_is_told_that_it_is_a_repetition(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, clock: Clock, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    crm.script = [Ambiguous("no answer"), Transient("busy")]
    worker = new_worker(destination("crm", crm))

    for _ in range(3):
        _step(worker)
        clock.advance(3600)

    assert [call.repeat for call in crm.calls] == [False, True, True]
    assert delivery().state == State.DELIVERED


def test_doubt_may_be_left_to_a_person_and_the_conversation_goes_on(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    crm.script = [Ambiguous("no answer")]
    worker = new_worker(destination("crm", crm, on_ambiguous="hold"))

    _step(worker)
    _step(worker)

    assert (delivery("m1").state, delivery("m1").error) == (State.HELD, "ambiguous: no answer")
    assert delivery("m2").state == State.DELIVERED


def test_what_is_refused_is_dead_with_its_reason_and_the_next_of_its_conversation_goes(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    crm.script = [Refused("the ticket is closed", status=422)]
    worker = new_worker(destination("crm", crm))

    assert _step(worker) + _step(worker) == 2

    assert (delivery("m1").state, delivery("m1").error) == (
        State.DEAD, "refused: the ticket is closed",
    )  # fmt: skip
    assert delivery("m2").state == State.DELIVERED
    assert crm.message_ids == ["m1", "m2"]


def test_a_conversation_waits_behind_the_dead_where_that_is_wanted(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    crm.script = [Refused("the ticket is closed")]
    worker = new_worker(destination("crm", crm, on_dead="hold"))

    assert _step(worker) == 1
    assert _step(worker) == 0

    assert (delivery("m1").state, delivery("m2").state) == (State.HELD, State.WAITING)


def test_the_thread_of_a_receipt_is_given_to_the_next_delivery_of_its_conversation(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted
) -> None:
    accept(inbox, "m1", "m2")
    accept(inbox, "other", customer=customer(9))
    crm.script = [Receipt(reference="comment 1", thread="ticket 7")]
    worker = new_worker(destination("crm", crm, concurrency=1))

    while _step(worker):
        pass

    threads = {call.event.message_id: call.thread for call in crm.calls}
    assert threads == {"m1": None, "m2": "ticket 7", "other": None}


# Connectors with faults


def _everything_in(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())


def test_an_error_outside_of_the_contract_is_doubt_and_its_text_is_not_stored(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, delivery: FindDelivery, path: Path
) -> None:
    accept(inbox, "m1")
    hidden = "what nobody" + " may read"
    crm.script = [KeyError(hidden)]

    with capture_logs() as logs:
        _step(new_worker(destination("crm", crm)))

    assert delivery().state == State.PENDING
    (attempt,) = delivery().history
    assert attempt.outcome == "ambiguous"
    # In the line of deliver() that raised it.
    assert re.fullmatch(
        r"bug in the connector \(relay/fakes\.py:\d+\): KeyError", attempt.detail or ""
    )
    assert hidden.encode() not in _everything_in(path)
    assert logs[0]["event"] == "connector.failed"
    assert logs[0]["exception"].endswith("KeyError") and hidden not in str(logs)
    assert logs[0]["log_level"] == logging.getLevelName(logging.ERROR).lower()


class Later(Throttled):
    """Sets what the contract does not take after it was made."""

    def __init__(self) -> None:
        super().__init__("slow down")
        self.retry_after = "5 s"  # type: ignore[assignment]  # the fault


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda _: "ticket 7", "deliver() returned str, not a Receipt"),
        (lambda _: Receipt(reference=None), "Receipt.reference takes text or a number, not None"),  # type: ignore[arg-type]
        (lambda _: Throttled("why", retry_after="5"), "retry_after takes seconds or a timedelta"),  # type: ignore[arg-type]
        (Later(), "retry_after takes seconds or a timedelta, not str"),
        (DeliveryError("why"), "raised DeliveryError, which does not say what happened"),
        (SystemExit(1), "SystemExit"),
    ],
)
def test_what_breaks_the_contract_is_doubt_at_once_and_is_named_with_file_and_line(
    inbox: Inbox,
    new_worker: NewWorker,
    crm: Scripted,
    delivery: FindDelivery,
    act: Act,
    said: str,
) -> None:
    accept(inbox, "m1")
    crm.script = [act]

    with capture_logs() as logs:
        _step(new_worker(destination("crm", crm)))

    assert delivery().state == State.PENDING
    (attempt,) = delivery().history
    assert attempt.outcome == "ambiguous"
    assert re.match(
        r"bug in the connector \(relay/(fakes|test_worker)\.py:\d+\): ", attempt.detail or ""
    )
    assert said in (attempt.detail or "")
    assert [line["event"] for line in logs] == ["connector.failed", "delivery.attempted"]
    assert logs[0]["delivery_id"] == delivery().id


def test_ids_that_are_numbers_and_waits_in_seconds_are_taken(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, clock: Clock, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    number: Any = 7
    crm.script = [Throttled("why", retry_after=2), Receipt(reference=number, thread=number)]
    worker = new_worker(destination("crm", crm))

    _step(worker)
    assert delivery("m1").due_at == NOON + timedelta(seconds=2)
    clock.advance(2)
    _step(worker)
    _step(worker)

    assert (delivery("m1").state, delivery("m1").reference) == (State.DELIVERED, "7")
    assert crm.calls[-1].thread == "7"


def test_an_attempt_that_cannot_be_recorded_is_named(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, database: Database, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    worker = new_worker(destination("crm", crm))
    with database.writing() as db:
        fail = "BEGIN SELECT RAISE(ABORT, 'a bug'); END"
        db.execute(sa.text(f"CREATE TRIGGER t BEFORE UPDATE ON attempts {fail}"))

    with capture_logs() as logs:
        _step(worker)

    line = logs[-1]
    assert (line["event"], line["log_level"]) == ("attempt.not_recorded", "error")
    assert (line["event_id"], line["delivery_id"], line["destination"]) == (
        crm.calls[0].event.id, delivery().id, "crm",
    )  # fmt: skip


def test_text_that_cannot_be_stored_does_not_keep_a_success_from_being_recorded(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    odd = "7\ud800\x00"
    crm.script = [Receipt(reference=odd, url=odd, thread=odd), Refused(odd)]
    worker = new_worker(destination("crm", crm))

    assert _step(worker) + _step(worker) == 2

    assert delivery("m1").state == State.DELIVERED
    assert (delivery("m1").reference or "").startswith("7")
    assert delivery("m2").state == State.DEAD


# Many at once


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

    assert _step(worker) == 4
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
    assert _step(worker) == 4
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
        counts.append(_step(worker) + _step(worker))
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
        assert _step(worker) == 1
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


# Stopping and starting


def test_a_worker_that_was_stopped_claims_nothing_and_finishes_what_runs(
    inbox: Inbox, running: NewWorker, crm: Scripted, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    crm.script = [hang := Hang()]
    worker = running(destination("crm", crm))
    assert hang.begun.wait(20)

    worker.stop()
    hang.release()

    assert worker.drain(20) == 0
    assert delivery("m1").state == State.DELIVERED
    assert delivery("m2").state == State.PENDING
    assert crm.message_ids == ["m1"]


def test_what_does_not_end_in_time_is_left_to_its_lease(
    inbox: Inbox, running: NewWorker, crm: Scripted, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    crm.script = [hang := Hang()]
    worker = running(destination("crm", crm))
    assert hang.begun.wait(20)
    worker.stop()

    assert worker.drain(0.01) == 1
    assert delivery().state == State.IN_FLIGHT


def test_closing_a_worker_closes_its_connectors(new_worker: NewWorker, crm: Scripted) -> None:
    chat = Scripted()
    worker = new_worker(destination("crm", crm), destination("chat", chat))

    worker.close()

    assert crm.closed and chat.closed


def test_a_worker_takes_back_what_it_held_when_it_was_killed(
    inbox: Inbox,
    running: NewWorker,
    new_queue: Callable[[str], Queue],
    crm: Scripted,
    clock: Clock,
    delivery: FindDelivery,
) -> None:
    accept(inbox, "m1")
    take_one(new_queue("worker-1"))

    running(destination("crm", crm), node="worker-1")

    eventually(lambda: delivery().state == State.PENDING)
    assert delivery().error == "the worker was killed in the middle of it"
    clock.advance(3600)
    eventually(lambda: delivery().state == State.DELIVERED)
    assert [call.repeat for call in crm.calls] == [True]
    assert [attempt.outcome for attempt in delivery().history] == ["ambiguous", "delivered"]


def test_a_worker_leaves_what_others_hold(
    inbox: Inbox,
    running: NewWorker,
    new_queue: Callable[[str], Queue],
    crm: Scripted,
    delivery: FindDelivery,
) -> None:
    accept(inbox, "m1")
    take_one(new_queue("worker-2"))
    accept(inbox, "m2", customer=customer(2))

    running(destination("crm", crm), node="worker-1")

    eventually(lambda: delivery("m2").state == State.DELIVERED)
    assert delivery("m1").state == State.IN_FLIGHT


def test_a_destination_that_is_not_configured_keeps_its_deliveries(
    inbox: Inbox,
    running: NewWorker,
    new_queue: Callable[[str], Queue],
    crm: Scripted,
    delivery: FindDelivery,
) -> None:
    accept(inbox, "m1", "m2", to=("gone", "crm"))
    take_one(new_queue("worker-1"), destination="gone")

    running(destination("crm", crm), node="worker-1")

    eventually(lambda: delivery("m2", "crm").state == State.DELIVERED)
    assert delivery("m1", "gone").state == State.IN_FLIGHT
    assert delivery("m2", "gone").state == State.WAITING


# The store away


def test_an_outcome_is_recorded_when_the_store_is_back(
    inbox: Inbox, running: NewWorker, crm: Scripted, database: Database, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    crm.script = [hang := Hang(Receipt(reference="while it was away"))]
    running(destination("crm", crm))
    assert hang.begun.wait(20)

    with capture_logs() as logs, locked(database):
        hang.release()
        eventually(lambda: _times_away(logs) >= 2)
        assert delivery().state == State.IN_FLIGHT

    eventually(lambda: delivery().state == State.DELIVERED)
    assert delivery().reference == "while it was away"
    assert len(crm.calls) == 1


def test_a_worker_outlives_a_store_that_is_away_while_it_claims(
    inbox: Inbox, running: NewWorker, crm: Scripted, database: Database, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")

    with capture_logs() as logs, locked(database):
        running(destination("crm", crm))
        eventually(lambda: _times_away(logs) >= 2)
        assert crm.calls == []

    eventually(lambda: delivery().state == State.DELIVERED)


def _times_away(logs: list[Any]) -> int:
    return sum(each["event"] == "store.unavailable" for each in logs)


# What it says


def test_each_attempt_is_one_line_without_text_or_number(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", body="a private matter")
    crm.script = [Transient("busy", status=503)]

    with capture_logs() as logs:
        _step(new_worker(destination("crm", crm, retry={"schedule": ["10s"]})))

    (line,) = logs
    view = delivery()
    assert line.pop("ms") >= 0
    assert line.pop("event_id").startswith("evt_")
    assert line == {
        "event": "delivery.attempted",
        "log_level": "info",
        "message_id": "m1",
        "delivery_id": view.id,
        "attempt_id": view.history[0].id,
        "destination": "crm",
        "outcome": "transient",
        "detail": "busy",
        "state": "pending",
        "due_at": (NOON + timedelta(seconds=10)).isoformat(),
    }
