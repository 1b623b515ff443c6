"""Replays: what today's routes add goes out once, in its place, behind nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from fakes import (
    accept,
    accept_apart,
    arrival,
    customer,
    delivered,
    failed,
    finish,
    take,
    take_one,
)
from recoveries import HOLD, LATER, act, actions, names, settle, together

from relay.rules import recovery
from relay.rules.delivery import OutcomeKind, State
from relay.rules.recovery import FoundEvent, Replay, ReplayStep
from relay.store import Database, Inbox, Queries, Queue, Recovery
from relay.store.checkup import Checkup
from relay.store.line_up import delivery_key
from relay.store.search import Filter
from relay.store.values import DeliveryView

ON_BOTH = True

FindDelivery = Callable[..., DeliveryView]


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

    results = together(6, lambda: desk.replay(planned, act()))

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


def test_giving_up_a_late_one_lets_the_next_late_one_go(
    inbox: Inbox, queue: Queue, desk: Recovery
) -> None:
    accept(inbox, "m1", "m2", to=())
    desk.replay(replays(desk, "crm"), act())

    settle(desk, "m1", State.DEAD)

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


def test_a_conflict_is_never_replayed(inbox: Inbox, desk: Recovery) -> None:
    accept(inbox, "m1", to=())
    inbox.accept(arrival("m1", body="something else", to=()))

    _, conflict = replays(desk, "crm", again=True)

    assert conflict.found.standing == "conflict"
    assert (conflict.steps, conflict.refused) == (
        (),
        "it contradicts another event with its messageId, and is never delivered",
    )


def test_filed_events_say_where_they_went(inbox: Inbox, desk: Recovery) -> None:
    accept(inbox, "m1", to=("crm", "chat"))

    filed: FoundEvent = desk.event_named("m1")

    assert list(filed.deliveries) == ["crm", "chat"]
    turn: ReplayStep = recovery.replay(filed, ["crm"]).steps[1]
    assert (turn.destination, turn.now, turn.says) == ("chat", False, "not routed there today")
