"""The worker that is stopped, that was killed, and beside others."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from fakes import Clock, Hang, Scripted, accept, customer, destination, eventually, take_one
from workers import FindDelivery, NewWorker

from relay.rules.delivery import State
from relay.store import Database, Inbox, Queue


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


def test_what_is_claimed_while_a_worker_is_told_to_stop_is_given_back(
    inbox: Inbox, database: Database, new_worker: NewWorker, crm: Scripted, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    worker = new_worker(destination("crm", crm))
    sa.event.listen(database.engine, "commit", lambda _: worker.stop(), once=True)

    worker.fill()

    assert worker.drain(20) == 0
    assert crm.calls == []
    assert (delivery().state, delivery().attempts) == (State.PENDING, 0)


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
