"""Recovery: what people resend and settle happens once, in its place, and is written down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from fakes import NOON, accept, accept_apart, delivered, eventually, failed, finish, take, take_one
from recoveries import HOLD, LATER, act, actions, names, refuse, resend, settle, together

from relay.rules import recovery
from relay.rules.delivery import OutcomeKind, State
from relay.rules.recovery import Change, ChangeKind
from relay.store import Database, Inbox, Queries, Queue, Recovery, schema
from relay.store.checkup import Checkup
from relay.store.search import Filter
from relay.store.values import DeliveryView

ON_BOTH = True

FindDelivery = Callable[..., DeliveryView]


def parked_by(database: Database) -> str | None:
    with database.reading() as db:
        return db.execute(sa.select(schema.lanes.c.parked_by)).scalar_one()


def test_a_dead_delivery_gets_a_new_series_under_its_key(
    inbox: Inbox, queue: Queue, desk: Recovery, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    claim = take_one(queue)
    finish(queue, claim, failed(OutcomeKind.REFUSED))

    resend(desk, "m1")

    view = delivery()
    assert (view.state, view.attempts, view.late, view.error) == (State.PENDING, 0, True, None)
    second = take_one(queue, now=LATER)
    assert (second.key, second.trigger, second.tries.failing_since) == (
        claim.key,
        "manual",
        None,
    )
    finish(queue, second, now=LATER)
    assert [attempt.trigger for attempt in delivery().history] == ["scheduled", "manual"]


@pytest.mark.parametrize(
    ("result", "acted", "repeat"),
    [
        (OutcomeKind.AMBIGUOUS, False, True),
        (OutcomeKind.REFUSED, False, False),
        (OutcomeKind.REFUSED, True, True),  # a part of it is there
    ],
)
def test_a_resend_keeps_in_mind_whether_an_attempt_may_have_acted(
    inbox: Inbox, queue: Queue, desk: Recovery, result: OutcomeKind, acted: bool, repeat: bool
) -> None:
    accept(inbox, "m1")
    outcome = replace(failed(result), acted=acted)
    finish(queue, take_one(queue), outcome, policy=HOLD)

    resend(desk, "m1")

    assert take_one(queue, now=LATER).tries.repeat is repeat


def test_a_resent_one_is_late_and_holds_up_nobody(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    accept(inbox, "m1", "m2", "m3")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED))

    resend(desk, "m1")

    assert sorted(map(str, names(queue))) == ["m1", "m2"]


def test_a_held_one_that_parks_its_conversation_goes_first_again(
    inbox: Inbox, queue: Queue, desk: Recovery, delivery: FindDelivery, database: Database
) -> None:
    accept(inbox, "m1", "m2")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED), policy=HOLD)
    assert take(queue, now=LATER) == []

    resend(desk, "m1")

    assert (delivery().state, delivery().late, parked_by(database)) == (State.PENDING, False, None)
    claim = take_one(queue, now=LATER)
    assert claim.event.message_id == "m1"
    accept(inbox, "m3", at=LATER)
    finish(queue, claim, now=LATER)
    assert names(queue) == ["m2"]


def test_a_held_one_that_let_the_others_go_is_late(
    inbox: Inbox, queue: Queue, desk: Recovery, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    finish(queue, take_one(queue), failed(OutcomeKind.AMBIGUOUS), policy=HOLD)

    resend(desk, "m1")

    assert delivery().late
    assert sorted(map(str, names(queue))) == ["m1", "m2"]


def test_one_that_waits_for_its_next_attempt_is_due_at_once(
    inbox: Inbox, queue: Queue, desk: Recovery, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    finish(queue, take_one(queue), failed(OutcomeKind.TRANSIENT))
    at = NOON + timedelta(seconds=1)

    step = resend(desk, "m1", at=at)

    assert step.kind is ChangeKind.HURRY
    assert (delivery().due_at, delivery().late, delivery().attempts) == (at, False, 1)
    assert names(queue, now=at) == ["m1"]


def _pending(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1")


def _in_flight(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1")
    take_one(queue)


def _waiting(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m0", "m1")


def _delivered(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue))


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (_pending, "due already"),
        (_in_flight, "an attempt is running"),
        (_waiting, "waits behind"),
        (_delivered, "delivered already; --again makes a second effect"),
    ],
)
def test_what_needs_no_resend_gets_none(
    inbox: Inbox,
    queue: Queue,
    desk: Recovery,
    delivery: FindDelivery,
    database: Database,
    prepare: Callable[[Inbox, Queue], None],
    why: str,
) -> None:
    prepare(inbox, queue)
    before = delivery()

    step = resend(desk, "m1")

    assert step.says.startswith(why)
    assert delivery() == before
    assert actions(database) == []


def test_again_makes_a_second_delivery_under_a_key_of_its_own(
    inbox: Inbox, queue: Queue, desk: Recovery, queries: Queries
) -> None:
    accept(inbox, "m1", "m2")
    first = take_one(queue)
    finish(queue, first)

    resend(desk, "m1", again=True)

    second, third = take(queue, now=LATER)
    assert {second.event.message_id, third.event.message_id} == {"m1", "m2"}
    copy = second if second.event.message_id == "m1" else third
    assert copy.key != first.key
    assert (copy.trigger, copy.tries.repeat) == ("manual", False)
    view = queries.event("m1")
    assert view is not None
    assert [each.late for each in view.deliveries] == [False, True]


def test_again_is_done_once_for_each_delivery(
    inbox: Inbox, queue: Queue, desk: Recovery, queries: Queries
) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue))
    (case,) = desk.deliveries_named("m1")
    resend(desk, "m1", again=True)

    step = resend(desk, case.id, again=True)

    (copy,) = desk.deliveries_named("m1")
    assert step.says == f"sent again before, as {copy.id}"
    assert queries.backlog() == {"crm": {"delivered": 1, "pending": 1}}


def _parked(inbox: Inbox, queue: Queue, desk: Recovery) -> Sequence[Change]:
    accept(inbox, "m1", "m2")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED), policy=HOLD)
    return [recovery.resend(desk.deliveries_named("m1")[0], again=False, now=LATER)]


def _dead(inbox: Inbox, queue: Queue, desk: Recovery) -> Sequence[Change]:
    accept_apart(inbox, 20)
    refuse(queue)
    (page,) = desk.pages(Filter(states=[State.DEAD]))
    return [recovery.resend(case, again=False, now=LATER) for case in page]


def _done(inbox: Inbox, queue: Queue, desk: Recovery) -> Sequence[Change]:
    accept_apart(inbox, 20)
    for claim in take(queue):
        finish(queue, claim)
    (page,) = desk.pages(Filter(states=[State.DELIVERED]))
    return [recovery.resend(case, again=True, now=LATER) for case in page]


@pytest.mark.parametrize("prepare", [_parked, _dead, _done])
def test_what_many_people_resend_at_once_is_sent_once(
    inbox: Inbox,
    queue: Queue,
    desk: Recovery,
    database: Database,
    prepare: Callable[[Inbox, Queue, Recovery], Sequence[Change]],
) -> None:
    steps = prepare(inbox, queue, desk)

    results = together(6, lambda: desk.do(steps, act()))

    assert [sum(done) for done in zip(*results, strict=True)] == [1] * len(steps)
    claims = take(queue, now=LATER)
    assert len(claims) == len({claim.key for claim in claims}) == len(steps)
    assert len(actions(database)) == len(steps)


def test_a_resend_of_what_died_again_meanwhile_is_not_done(
    inbox: Inbox, queue: Queue, desk: Recovery, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    refuse(queue)
    step = recovery.resend(desk.deliveries_named("m1")[0], again=False, now=LATER)
    resend(desk, "m1")
    refuse(queue)

    assert desk.do([step], act()) == [False]

    assert delivery().state is State.DEAD


def test_resend_and_revival_by_the_sender_do_not_add_up(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    accept(inbox, "m1")
    refuse(queue)
    step = recovery.resend(desk.deliveries_named("m1")[0], again=False, now=LATER)
    accept(inbox, "m1", at=LATER)

    assert desk.do([step], act()) == [False]

    claim = take_one(queue, now=LATER)
    assert claim.trigger == "scheduled"


@pytest.mark.parametrize("end", [State.DELIVERED, State.DEAD])
def test_settling_what_parks_a_conversation_lets_the_next_go(
    inbox: Inbox,
    queue: Queue,
    desk: Recovery,
    delivery: FindDelivery,
    database: Database,
    end: State,
) -> None:
    accept(inbox, "m1", "m2")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED), policy=HOLD)

    settle(desk, "m1", end)

    assert (delivery().state, parked_by(database)) == (end, None)
    assert (delivery().error is None) is (end is State.DELIVERED)
    assert names(queue) == ["m2"]


@pytest.mark.parametrize("end", [State.DELIVERED, State.DEAD])
def test_settling_a_doubt_ends_it(
    inbox: Inbox, queue: Queue, desk: Recovery, delivery: FindDelivery, end: State
) -> None:
    accept(inbox, "m1", "m2")
    finish(queue, take_one(queue), failed(OutcomeKind.AMBIGUOUS), policy=HOLD)

    settle(desk, "m1", end)

    assert delivery().state is end
    assert names(queue) == ["m2"]


def test_a_dead_one_can_be_settled_as_delivered(
    inbox: Inbox, queue: Queue, desk: Recovery, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    refuse(queue)

    settle(desk, "m1", State.DELIVERED)

    assert (delivery().state, delivery().error) == (State.DELIVERED, None)


def test_what_is_tried_again_and_again_can_be_given_up(
    inbox: Inbox, queue: Queue, desk: Recovery, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    finish(queue, take_one(queue), failed(OutcomeKind.TRANSIENT, "answered 503"))

    settle(desk, "m1", State.DEAD)

    assert (delivery().state, delivery().error) == (State.DEAD, "answered 503")
    assert names(queue) == ["m2"]


@pytest.mark.parametrize("prepare", [_in_flight, _waiting, _delivered])
def test_what_cannot_be_settled_stays_as_it_is(
    inbox: Inbox,
    queue: Queue,
    desk: Recovery,
    delivery: FindDelivery,
    prepare: Callable[[Inbox, Queue], None],
) -> None:
    prepare(inbox, queue)
    before = delivery()

    assert settle(desk, "m1", State.DEAD).kind is ChangeKind.NOTHING

    assert delivery() == before


def test_two_who_settle_the_same_are_one(
    inbox: Inbox, queue: Queue, desk: Recovery, database: Database
) -> None:
    accept(inbox, "m1", "m2", "m3")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED), policy=HOLD)
    step = recovery.settle(desk.deliveries_named("m1")[0], end=State.DELIVERED)

    results = together(4, lambda: desk.do([step], act()))

    assert sorted(results) == [[False]] * 3 + [[True]]
    assert names(queue) == ["m2"]
    assert len(actions(database)) == 1


def test_a_late_answer_and_a_person_who_settles_agree(
    inbox: Inbox, queue: Queue, desk: Recovery, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    claim = take_one(queue)
    finish(queue, claim, failed(OutcomeKind.REFUSED), policy=HOLD)
    step = recovery.settle(desk.deliveries_named("m1")[0], end=State.DEAD)
    finish(queue, claim, delivered(), policy=HOLD)

    assert desk.do([step], act()) == [False]

    assert delivery().state is State.DELIVERED
    assert names(queue) == ["m2"]


def test_every_act_is_kept_with_who_when_from_where_and_why(
    inbox: Inbox, queue: Queue, desk: Recovery, database: Database
) -> None:
    accept(inbox, "m1")
    refuse(queue)

    step = resend(desk, "m1")

    (kept,) = actions(database)
    before = recovery.Before.from_json(kept["before"])
    assert (before.delivery_id, before.state) == (step.delivery.id, State.DEAD)
    assert {**kept, "seq": 0, "before": ""} == {
        "seq": 0,
        "act": kept["act"],
        "before": "",
        "at": LATER,
        "who": "anna",
        "what": "resend",
        "origin": "command line",
        "why": "the token was wrong",
        "event_id": step.delivery.event_id,
        "delivery_id": step.delivery.id,
        "destination": "crm",
        "detail": step.says,
    }


def test_resent_ones_of_a_conversation_go_one_after_the_other(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    accept(inbox, "m1", "m2", "m3")
    for _ in range(3):
        refuse(queue)
    (page,) = desk.pages(Filter())
    desk.do([recovery.resend(case, again=False, now=LATER) for case in page], act())
    accept(inbox, "m4", at=LATER)

    went = []
    while claims := take(queue, now=LATER):
        went.append([claim.event.message_id for claim in claims])
        for claim in claims:
            finish(queue, claim, now=LATER)

    assert went == [["m1", "m4"], ["m2"], ["m3"]]


def test_what_arrived_after_all_is_settled_while_it_waits_to_be_sent_again(
    inbox: Inbox, queue: Queue, desk: Recovery, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    claim = take_one(queue)
    finish(queue, claim, failed(OutcomeKind.REFUSED))
    refuse(queue)
    resend(desk, "m2")
    resend(desk, "m1")
    assert delivery("m1").state is State.WAITING

    finish(queue, claim, delivered(), now=LATER)

    assert delivery("m1").state is State.DELIVERED
    assert names(queue) == ["m2"]


def test_many_who_resend_and_workers_who_deliver_leave_no_late_one_behind(
    inbox: Inbox,
    new_queue: Callable[[str], Queue],
    desk: Recovery,
    database: Database,
    queries: Queries,
) -> None:
    queues = [new_queue(f"worker-{number}") for number in range(3)]
    accept(inbox, *(f"m{number}" for number in range(8)))
    for _ in range(8):
        refuse(queues[0])
    (page,) = desk.pages(Filter())
    steps = [recovery.resend(case, again=False, now=LATER) for case in page]
    left = threading.Event()

    def work(queue: Queue) -> None:
        while not left.is_set():
            for claim in take(queue, now=LATER, limit=1):
                finish(queue, claim, now=LATER)

    with ThreadPoolExecutor(3 + len(steps)) as threads:
        working = [threads.submit(work, queue) for queue in queues]
        acting = [threads.submit(desk.do, [step], act()) for step in steps]
        try:
            eventually(lambda: queries.backlog() == {"crm": {"delivered": 8}})
        finally:
            left.set()
        assert all(future.result() == [True] for future in acting)
        assert all(future.exception() is None for future in working)
    assert Checkup(database).stuck_conversations() == 0
