"""Recovery: what people do happens once, in its place, and is written down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import (
    NOON,
    accept,
    accept_apart,
    arrival,
    customer,
    delivered,
    eventually,
    failed,
    finish,
    take,
    take_one,
)

from relay.rules import recovery
from relay.rules.delivery import OutcomeKind, Policy, State
from relay.rules.recovery import Change, ChangeKind, FoundEvent, Replay, ReplayStep
from relay.store import Database, Inbox, Queries, Queue, Recovery, schema
from relay.store.accept import delivery_key
from relay.store.checkup import Checkup
from relay.store.prune import Pruning
from relay.store.recover import Act
from relay.store.search import Filter, Unknown
from relay.store.undo import Acts
from relay.store.values import DeliveryView

ON_BOTH = True

FindDelivery = Callable[..., DeliveryView]

LATER = NOON + timedelta(days=4)
MINUTE = timedelta(minutes=1)
HOLD = Policy(on_dead="hold", on_ambiguous="hold")


@pytest.fixture
def desk(database: Database) -> Recovery:
    return Recovery(database)


def act(
    *, who: str = "anna", why: str | None = "the token was wrong", at: datetime = LATER
) -> Act:
    return Act(who=who, why=why, at=at)


def refuse(queue: Queue, *, policy: Policy | None = None, detail: str = "no such field") -> None:
    """Let everything that is due die."""
    for claim in take(queue, now=LATER):
        finish(queue, claim, failed(OutcomeKind.REFUSED, detail), policy=policy)


def resend(desk: Recovery, name: str, *, again: bool = False, at: datetime = LATER) -> Change:
    """Resend the one delivery that *name* means, if that can be done."""
    (case,) = desk.deliveries_named(name)
    step = recovery.resend(case, again=again, now=at)
    assert desk.do([step], act(at=at)) == [step.kind is not ChangeKind.NOTHING]
    return step


def settle(desk: Recovery, name: str, end: Any) -> Change:
    (case,) = desk.deliveries_named(name)
    step = recovery.settle(case, end=end)
    assert desk.do([step], act()) == [step.kind is not ChangeKind.NOTHING]
    return step


def actions(database: Database) -> list[dict[str, Any]]:
    with database.reading() as db:
        rows = db.execute(sa.select(schema.actions).order_by(schema.actions.c.seq)).mappings()
        return [dict(row) for row in rows]


def parked_by(database: Database) -> str | None:
    with database.reading() as db:
        return db.execute(sa.select(schema.lanes.c.parked_by)).scalar_one()


def names(queue: Queue, *, now: datetime = LATER) -> list[str | None]:
    return [claim.event.message_id for claim in take(queue, now=now)]


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


def _together(count: int, do: Callable[[], Any]) -> list[Any]:
    """Do something in *count* threads at the same time."""
    barrier = threading.Barrier(count, timeout=30)

    def run() -> Any:
        barrier.wait()
        return do()

    with ThreadPoolExecutor(count) as threads:
        futures = [threads.submit(run) for _ in range(count)]
        return [future.result() for future in futures]


@pytest.mark.parametrize("prepare", [_parked, _dead, _done])
def test_what_many_people_resend_at_once_is_sent_once(
    inbox: Inbox,
    queue: Queue,
    desk: Recovery,
    database: Database,
    prepare: Callable[[Inbox, Queue, Recovery], Sequence[Change]],
) -> None:
    steps = prepare(inbox, queue, desk)

    results = _together(6, lambda: desk.do(steps, act()))

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

    results = _together(4, lambda: desk.do([step], act()))

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


def test_a_name_means_a_delivery_or_the_newest_ones_of_an_event(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    accept(inbox, "m1", to=("crm", "chat"))
    finish(queue, take_one(queue))
    crm, chat = desk.deliveries_named("m1")

    assert (crm.destination, chat.destination) == ("crm", "chat")
    assert desk.deliveries_named(crm.event_id) == [crm, chat]
    assert desk.deliveries_named(chat.id) == [chat]
    with pytest.raises(Unknown, match='no event or delivery "m2"'):
        desk.deliveries_named("m2")


def test_a_message_id_that_two_endpoints_had_is_no_name(inbox: Inbox, desk: Recovery) -> None:
    first, second = arrival("m1"), arrival("m1", key=b"k" * 32)
    inbox.accept(first)
    inbox.accept(second)

    with pytest.raises(Unknown, match=f"name one of {first.event.id}.*{second.event.id}"):
        desk.deliveries_named("m1")


def _various(inbox: Inbox, queue: Queue) -> None:
    """Store deliveries that stopped for different reasons, and one that did not."""
    for number, (detail, to) in enumerate(
        [
            ("contact 4711 is archived", "crm"),
            ("contact 8150 is archived", "crm"),
            ("HTTP 400", "crm"),
            ("HTTP 403", "crm"),
            ("HTTP 400", "chat"),
        ]
    ):
        new = arrival(f"m{number}", customer=customer(number), at=NOON + number * MINUTE, to=(to,))
        inbox.accept(new)
        (claim,) = take(queue, destination=to, now=LATER)
        policy = HOLD if number == 3 else None
        finish(queue, claim, failed(OutcomeKind.REFUSED, detail), policy=policy)
    accept(inbox, "m5", type="SMS_RECEIVED", direction="inbound")


STOPPED = (State.DEAD, State.HELD)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), "m0 m1 m2 m3 m4 m5"),
        (Filter(states=STOPPED), "m0 m1 m2 m3 m4"),
        (Filter(states=[State.HELD]), "m3"),
        (Filter(states=STOPPED, destinations=["chat"]), "m4"),
        (Filter(reason="refused: contact * is archived"), "m0 m1"),
        (Filter(reason="refused: HTTP 400"), "m2 m4"),
        (Filter(reason="*http*"), "m2 m3 m4"),
        (Filter(reason="refused: %"), ""),
        (Filter(reason="refused: HTTP_400"), ""),
        (Filter(reason="refused: \\*"), ""),
        (Filter(since=NOON + MINUTE, until=NOON + 3 * MINUTE), "m1 m2"),
        (Filter(customer=customer(2)), "m2"),
        (Filter(type="SMS_RECEIVED"), "m5"),
        (Filter(endpoint="/elsewhere"), ""),
    ],
)
def test_a_filter_finds_what_it_means(
    inbox: Inbox, queue: Queue, desk: Recovery, wanted: Filter, found: str
) -> None:
    _various(inbox, queue)

    pages = list(desk.pages(wanted, size=2))

    assert [case.message_id for page in pages for case in page] == found.split()
    assert all(len(page) <= 2 for page in pages)
    assert desk.count(wanted) == len(found.split())


def test_what_stopped_is_grouped_by_destination_and_reason(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    _various(inbox, queue)

    piles = desk.groups(Filter(states=STOPPED))

    assert [(pile.destination, pile.reason, pile.number) for pile in piles] == [
        ("crm", "refused: contact * is archived", 2),
        ("chat", "refused: HTTP 400", 1),
        ("crm", "refused: HTTP 400", 1),
        ("crm", "refused: HTTP 403", 1),
    ]
    assert (piles[0].oldest, piles[0].newest) == (NOON, NOON + MINUTE)


def test_the_reason_of_a_group_finds_all_of_the_group(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    _various(inbox, queue)

    for pile in desk.groups(Filter(states=STOPPED)):
        wanted = Filter(states=STOPPED, destinations=[pile.destination], reason=pile.reason)
        assert desk.count(wanted) == pile.number


def test_what_dies_again_while_pages_are_worked_off_is_not_met_twice(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    accept_apart(inbox, 5)
    refuse(queue)
    met = []

    for page in desk.pages(Filter(states=[State.DEAD]), size=2):
        desk.do([recovery.resend(case, again=False, now=LATER) for case in page], act())
        met += [case.message_id for case in page]
        refuse(queue)

    assert met == [f"m{number}" for number in range(5)]


def replays(
    desk: Recovery, *now: str, again: bool = False, only: Sequence[str] = ()
) -> Sequence[Replay]:
    """Decide on a replay of all events when *now* is where they are routed today."""
    pages = desk.event_pages(Filter())
    return [recovery.replay(each, now, again=again, only=only) for page in pages for each in page]


def test_a_replay_adds_what_is_missing(
    inbox: Inbox, queue: Queue, desk: Recovery, delivery: FindDelivery, database: Database
) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue))

    ((added,),) = desk.replay(replays(desk, "crm", "chat"), act())

    assert (added.destination, added.then, added.now) == ("chat", False, True)
    new = delivery("m1", "chat")
    assert (new.state, new.late) == (State.PENDING, True)
    claim = take_one(queue, destination="chat", now=LATER)
    assert (claim.trigger, claim.event.message_id) == ("manual", "m1")
    assert take(queue, now=LATER) == []
    (kept,) = actions(database)
    assert (kept["what"], kept["event_id"], kept["destination"]) == (
        "replay",
        claim.event.id,
        "chat",
    )


def test_a_replayed_delivery_has_the_key_that_it_would_have_had(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    unrouted = arrival("m1", to=())
    inbox.accept(unrouted)

    desk.replay(replays(desk, "chat"), act())

    claim = take_one(queue, destination="chat", now=LATER)
    assert claim.key == delivery_key(unrouted.key, "chat")


def test_a_second_replay_adds_nothing(inbox: Inbox, desk: Recovery, queries: Queries) -> None:
    accept_apart(inbox, 3, to=())
    desk.replay(replays(desk, "crm", "chat"), act())

    assert desk.replay(replays(desk, "crm", "chat"), act()) == [[], [], []]

    assert queries.backlog() == {"chat": {"pending": 3}, "crm": {"pending": 3}}


@pytest.mark.parametrize("again", [False, True])
def test_what_many_people_replay_at_once_is_added_once(
    inbox: Inbox, queue: Queue, desk: Recovery, queries: Queries, again: bool
) -> None:
    accept_apart(inbox, 10)
    for claim in take(queue):
        finish(queue, claim)
    planned = replays(desk, "crm", "chat", again=again)

    results = _together(6, lambda: desk.replay(planned, act()))

    assert sum(len(turns) for result in results for turns in result) == (20 if again else 10)
    states = queries.backlog()
    assert states["chat"] == {"pending": 10}
    assert states["crm"] == {"delivered": 10, **({"pending": 10} if again else {})}


def test_a_replayed_one_holds_up_nobody_and_nobody_holds_it_up(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    accept(inbox, "m1", to=())
    accept(inbox, "m2", "m3")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED), policy=HOLD)

    desk.replay(replays(desk, "crm"), act())

    assert names(queue) == ["m1"]


def test_replayed_ones_of_a_conversation_go_one_after_the_other(
    inbox: Inbox, queue: Queue, desk: Recovery, database: Database
) -> None:
    accept(inbox, "m1", "m2", "m3", to=())
    accept(inbox, "m4", customer=customer(4), to=())
    desk.replay(replays(desk, "crm"), act())

    first, other = take(queue, now=LATER)
    assert (first.event.message_id, other.event.message_id) == ("m1", "m4")
    finish(queue, first, delivered(thread="ticket 7"), now=LATER)
    second = take_one(queue, now=LATER)
    assert (second.event.message_id, second.thread) == ("m2", "ticket 7")
    finish(queue, second, failed(OutcomeKind.REFUSED), now=LATER, policy=HOLD)
    assert names(queue) == ["m3"]
    assert Checkup(database).stuck_conversations() == 0


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


def test_giving_up_a_late_one_lets_the_next_late_one_go(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    accept(inbox, "m1", "m2", to=())
    desk.replay(replays(desk, "crm"), act())

    settle(desk, "m1", State.DEAD)

    assert names(queue) == ["m2"]


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


def test_a_lane_whose_late_line_lost_its_head_is_found(
    inbox: Inbox, desk: Recovery, database: Database
) -> None:
    accept(inbox, "m1", "m2", to=())
    desk.replay(replays(desk, "crm"), act())
    assert Checkup(database).stuck_conversations() == 0

    with database.writing() as db:
        db.exec_driver_sql("UPDATE deliveries SET state = 'delivered' WHERE state = 'pending'")

    assert Checkup(database).stuck_conversations() == 1


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


def test_a_conflict_is_never_replayed(inbox: Inbox, desk: Recovery) -> None:
    accept(inbox, "m1", to=())
    inbox.accept(arrival("m1", body="something else", to=()))

    _, conflict = replays(desk, "crm", again=True)

    assert conflict.found.standing == "conflict"
    assert (conflict.steps, conflict.refused) == (
        (),
        "it contradicts another event with its messageId, and is never delivered",
    )


def test_a_paused_destination_is_not_served_until_it_is_resumed(
    inbox: Inbox, queue: Queue, desk: Recovery, database: Database
) -> None:
    accept_apart(inbox, 3)

    assert desk.pause("crm", act(why="holidays"))
    assert take(queue, now=LATER) == []
    assert not desk.pause("crm", act())
    assert (queue.pauses()["crm"].cause, queue.pauses()["crm"].reason) == ("operator", "holidays")

    assert desk.resume("crm", act()) == "operator"
    finish(queue, take_one(queue, now=LATER), now=LATER)
    assert len(take(queue, now=LATER)) == 2
    assert desk.resume("crm", act()) is None
    assert [(each["what"], each["destination"]) for each in actions(database)] == [
        ("pause", "crm"),
        ("resume", "crm"),
    ]


def test_a_pause_may_end_by_itself(inbox: Inbox, queue: Queue, desk: Recovery) -> None:
    accept_apart(inbox, 3)
    until = LATER + 2 * MINUTE

    assert desk.pause("crm", act(), until=until)
    assert not desk.pause("crm", act(), until=until)
    assert take(queue, now=until - MINUTE) == []

    finish(queue, take_one(queue, now=until), now=until)
    assert len(take(queue, now=until)) == 2
    assert queue.pauses() == {}


def test_a_pause_may_be_made_longer_and_shorter(queue: Queue, desk: Recovery) -> None:
    for until in (LATER, LATER + MINUTE, None, LATER):
        assert desk.pause("crm", act(), until=until)
        assert queue.pauses()["crm"].until == until


def test_a_clock_that_was_put_back_does_not_end_a_persons_pause(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    accept(inbox, "m1")
    desk.pause("crm", act(at=LATER), until=LATER + MINUTE)

    queue.hasten(NOON)

    assert take(queue, now=NOON) == []


def test_a_person_can_resume_what_refused_us_and_pause_it_for_longer(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    accept_apart(inbox, 2)
    finish(queue, take(queue, limit=1)[0], failed(OutcomeKind.UNAUTHORIZED))

    assert desk.resume("crm", act()) == "unauthorized"
    finish(queue, take_one(queue), failed(OutcomeKind.UNAUTHORIZED))

    assert desk.pause("crm", act())
    assert queue.pauses()["crm"].until is None
    assert take(queue, now=LATER + timedelta(days=9)) == []


def test_filed_events_say_where_they_went(inbox: Inbox, desk: Recovery) -> None:
    accept(inbox, "m1", to=("crm", "chat"))

    filed: FoundEvent = desk.event_named("m1")

    assert list(filed.deliveries) == ["crm", "chat"]
    turn: ReplayStep = recovery.replay(filed, ["crm"]).steps[1]
    assert (turn.destination, turn.now, turn.says) == ("chat", False, "not routed there today")


def take_back(database: Database, done: Act) -> list[str]:
    """Undo an act as the command does, and return what is said of each delivery."""
    desk, acts, said = Recovery(database), Acts(database), []
    for page in acts.pages(done.id, size=2):
        changes = [recovery.undo(*each) for each in page]
        made = desk.do(changes, act())
        each = zip(changes, made, strict=True)
        said += [change.says if is_made else "left" for change, is_made in each]
    return said


def image(database: Database) -> list[dict[str, Any]]:
    """Return the deliveries and lanes, whole."""
    with database.reading() as db:
        tables = schema.deliveries, schema.lanes
        return [
            dict(row)
            for table in tables
            for row in db.execute(sa.select(table).order_by(table.c.id)).mappings()
        ]


def test_a_resend_can_be_undone_before_it_is_sent(
    inbox: Inbox, queue: Queue, desk: Recovery, database: Database
) -> None:
    accept_apart(inbox, 5)
    accept(inbox, "m9", customer=customer(0))
    refuse(queue)
    before, done = image(database), act()
    (page,) = desk.pages(Filter(states=[State.DEAD]))
    assert all(desk.do([recovery.resend(each, again=False, now=LATER) for each in page], done))
    assert image(database) != before

    assert take_back(database, done) == ["dead again"] * len(page)

    assert image(database) == before
    assert set(take_back(database, done)) == {"left"}


def test_what_was_sent_since_stays(
    inbox: Inbox, queue: Queue, desk: Recovery, database: Database, delivery: FindDelivery
) -> None:
    accept_apart(inbox, 3)
    refuse(queue)
    done = act()
    (page,) = desk.pages(Filter(states=[State.DEAD]))
    desk.do([recovery.resend(each, again=False, now=LATER) for each in page], done)
    first, second = take(queue, now=LATER, limit=2)
    finish(queue, first, delivered(), now=LATER)

    assert sorted(take_back(database, done)) == ["dead again", "left", "left"]

    states = [delivery(claim.event.message_id).state for claim in (first, second)]
    assert states == [State.DELIVERED, State.IN_FLIGHT]


@pytest.mark.parametrize("end", [State.DELIVERED, State.DEAD])
def test_settling_what_stops_its_conversation_can_be_undone(
    inbox: Inbox, queue: Queue, desk: Recovery, database: Database, end: Any
) -> None:
    accept(inbox, "m1", "m2")
    refuse(queue, policy=HOLD)
    before, done = image(database), act()
    (found,) = desk.deliveries_named("m1")
    assert desk.do([recovery.settle(found, end=end)], done) == [True]

    assert take_back(database, done) == ["held again"]

    assert image(database) == before
    assert take(queue, now=LATER) == []
    assert Checkup(database).stuck_conversations() == 0


def test_settling_is_not_undone_when_the_conversation_went_on(
    inbox: Inbox, queue: Queue, desk: Recovery, database: Database, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    refuse(queue, policy=HOLD)
    done = act()
    (found,) = desk.deliveries_named("m1")
    desk.do([recovery.settle(found, end=State.DEAD)], done)
    take_one(queue, now=LATER)

    assert take_back(database, done) == ["left"]

    assert delivery("m1").state is State.DEAD


def test_settling_a_delivery_that_is_being_tried_can_be_undone(
    inbox: Inbox, queue: Queue, desk: Recovery, database: Database
) -> None:
    accept(inbox, "m1", "m2")
    finish(queue, take_one(queue), failed(OutcomeKind.TRANSIENT))
    before, done = image(database), act()
    (found,) = desk.deliveries_named("m1")
    desk.do([recovery.settle(found, end=State.DEAD)], done)

    assert take_back(database, done) == ["pending again"]

    assert image(database) == before


def test_a_hurried_and_a_parked_delivery_wait_again(
    inbox: Inbox, queue: Queue, desk: Recovery, database: Database
) -> None:
    accept(inbox, "m1", "m2")
    accept(inbox, "m3", customer=customer(3))
    finish(queue, take(queue, limit=1)[0], failed(OutcomeKind.REFUSED), policy=HOLD)
    finish(queue, take_one(queue), failed(OutcomeKind.TRANSIENT))
    before, done = image(database), act(at=NOON)
    found = [*desk.deliveries_named("m1"), *desk.deliveries_named("m3")]
    assert all(desk.do([recovery.resend(each, again=False, now=NOON) for each in found], done))

    assert sorted(take_back(database, done)) == ["held again", "pending again"]

    assert image(database) == before


def test_second_effects_and_replays_can_be_undone(
    inbox: Inbox, queue: Queue, desk: Recovery, database: Database
) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue), delivered())
    before, done = image(database), act()
    (found,) = desk.deliveries_named("m1")
    desk.do([recovery.resend(found, again=True, now=LATER)], done)
    desk.replay([recovery.replay(desk.event_named("m1"), ["crm", "chat"])], done)

    assert take_back(database, done) == ["removed: it was not sent"] * 2

    assert image(database) == before


def test_nothing_of_a_removed_event_is_kept_for_an_undo(
    inbox: Inbox, queue: Queue, desk: Recovery, database: Database
) -> None:
    accept(inbox, "m1")
    refuse(queue)
    done = act()
    desk.do(
        [recovery.resend(each, again=False, now=LATER) for each in desk.deliveries_named("m1")],
        done,
    )
    list(Pruning(database).erase("+61400000001"))

    assert take_back(database, done) == []
    assert actions(database)[0]["before"] is None
    with pytest.raises(Unknown, match='no act "act_1"'):
        Acts(database).count("act_1")
