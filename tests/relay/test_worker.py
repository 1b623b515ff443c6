"""The worker: what a connector did is what becomes of the delivery, and it is said once."""

from __future__ import annotations

from datetime import timedelta

from fakes import NOON, Clock, Scripted, accept, accept_apart, customer, destination
from structlog.testing import capture_logs
from workers import FindDelivery, NewWorker, step

from connectors.base import Ambiguous, Receipt, Refused, Throttled, Transient, Unauthorized
from relay.rules.delivery import State
from relay.rules.health import PROBE_EVERY
from relay.store import Inbox, Queries


def test_a_due_delivery_is_brought_to_its_connector(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, queries: Queries, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")

    claimed = step(new_worker(destination("crm", crm, deadline="7s")))

    assert claimed == 1
    (call,) = crm.calls
    (view,) = queries.events()
    assert call.event == view.event
    assert (call.thread, call.repeat, call.deadline) == (None, False, 7.0)
    assert (delivery().state, delivery().reference) == (State.DELIVERED, "r1")


def test_nothing_due_is_nothing_done(new_worker: NewWorker, crm: Scripted) -> None:
    assert step(new_worker(destination("crm", crm))) == 0


def test_a_failure_that_passes_is_tried_again_after_its_wait(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, clock: Clock, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    crm.script = [Transient("busy", status=503), Transient("busy", status=503)]
    worker = new_worker(destination("crm", crm, retry={"schedule": ["10s", "1m"]}))

    step(worker)
    assert delivery().due_at == NOON + timedelta(seconds=10)
    clock.advance(9.9)
    assert step(worker) == 0
    clock.advance(0.1)
    step(worker)
    assert delivery().due_at == clock() + timedelta(minutes=1)
    clock.advance(60)
    step(worker)

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

    while step(worker):
        clock.advance(60)

    assert delivery().state == State.DEAD
    assert delivery().error == "exhausted after 4 attempts: busy"


def test_a_throttling_destination_is_left_alone_for_as_long_as_it_asks(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, clock: Clock, delivery: FindDelivery
) -> None:
    accept_apart(inbox, 2)
    crm.script = [Throttled("slow down", retry_after=timedelta(seconds=30))]
    worker = new_worker(destination("crm", crm, concurrency=1))

    step(worker)
    assert delivery("m0").attempts == 0
    clock.advance(29.9)
    assert step(worker) == 0
    clock.advance(0.1)

    assert step(worker) + step(worker) == 2
    assert crm.message_ids[1:] in (["m0", "m1"], ["m1", "m0"])
    assert delivery("m0").state == delivery("m1").state == State.DELIVERED


def test_a_destination_that_turns_us_away_is_probed_with_one_and_then_served(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, clock: Clock, queries: Queries
) -> None:
    accept_apart(inbox, 4)
    crm.script = [Unauthorized("token expired", status=401), Unauthorized("still")]
    worker = new_worker(destination("crm", crm, concurrency=1))

    step(worker)
    assert step(worker) == 0
    clock.advance(PROBE_EVERY.total_seconds())
    assert step(worker) == 1
    assert step(worker) == 0
    assert len(crm.calls) == 2

    clock.advance(PROBE_EVERY.total_seconds())
    while step(worker):
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
        step(worker)
        clock.advance(3600)

    assert [call.repeat for call in crm.calls] == [False, True, True]
    assert delivery().state == State.DELIVERED


def test_doubt_may_be_left_to_a_person_and_the_conversation_goes_on(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    crm.script = [Ambiguous("no answer")]
    worker = new_worker(destination("crm", crm, on_ambiguous="hold"))

    step(worker)
    step(worker)

    assert (delivery("m1").state, delivery("m1").error) == (State.HELD, "ambiguous: no answer")
    assert delivery("m2").state == State.DELIVERED


def test_what_is_refused_is_dead_with_its_reason_and_the_next_of_its_conversation_goes(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    crm.script = [Refused("the ticket is closed", status=422)]
    worker = new_worker(destination("crm", crm))

    assert step(worker) + step(worker) == 2

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

    assert step(worker) == 1
    assert step(worker) == 0

    assert (delivery("m1").state, delivery("m2").state) == (State.HELD, State.WAITING)


def test_the_thread_of_a_receipt_is_given_to_the_next_delivery_of_its_conversation(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted
) -> None:
    accept(inbox, "m1", "m2")
    accept(inbox, "other", customer=customer(9))
    crm.script = [Receipt(reference="comment 1", thread="ticket 7")]
    worker = new_worker(destination("crm", crm, concurrency=1))

    while step(worker):
        pass

    threads = {call.event.message_id: call.thread for call in crm.calls}
    assert threads == {"m1": None, "m2": "ticket 7", "other": None}


def test_each_attempt_is_one_line_without_text_or_number(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", body="a private matter")
    crm.script = [Transient("busy", status=503)]

    with capture_logs() as logs:
        step(new_worker(destination("crm", crm, retry={"schedule": ["10s"]})))

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
