"""Undo: what was not sent since is as it was before, and the rest stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import NOON, accept, accept_apart, customer, delivered, failed, finish, take, take_one
from recoveries import HOLD, LATER, act, actions, refuse

from relay.rules import recovery
from relay.rules.delivery import OutcomeKind, State
from relay.store import Database, Inbox, Queue, Recovery, schema
from relay.store.actions import Act
from relay.store.checkup import Checkup
from relay.store.prune import Pruning
from relay.store.search import Filter, Unknown
from relay.store.undo import Acts
from relay.store.values import DeliveryView

ON_BOTH = True

FindDelivery = Callable[..., DeliveryView]


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
