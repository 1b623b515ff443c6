"""Pauses: what turns us away is left alone and then probed; people pause and resume, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from fakes import NOON, accept, accept_apart, delivered, failed, finish, take, take_one
from recoveries import LATER, act, actions
from structlog.testing import capture_logs

from relay.rules.delivery import OutcomeKind, State
from relay.rules.health import PROBE_EVERY
from relay.rules.units import RateLimit
from relay.store import Database, Inbox, Queue, Recovery, schema
from relay.store.prune import Pruning
from relay.store.values import Claim, DeliveryView

ON_BOTH = True

FindDelivery = Callable[..., DeliveryView]
NewQueue = Callable[[str], Queue]

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def _names(claims: Sequence[Claim]) -> list[str | None]:
    return [claim.event.message_id for claim in claims]


def test_a_destination_that_refuses_us_is_paused_and_burns_no_attempt(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept_apart(inbox, 3)
    claim = take(queue, limit=1)[0]

    finish(queue, claim, failed(OutcomeKind.UNAUTHORIZED, "token expired"))

    assert (delivery("m0").state, delivery("m0").attempts) == (State.PENDING, 0)
    pause = queue.pauses()["crm"]
    assert (pause.cause, pause.reason) == ("unauthorized", "token expired")
    assert (pause.since, pause.until) == (NOON, NOON + PROBE_EVERY)
    assert take(queue, now=NOON + PROBE_EVERY - SECOND) == []


def test_who_counts_pauses_is_told_when_one_begins(database: Database, inbox: Inbox) -> None:
    counted: list[tuple[str, str]] = []
    queue = Queue(database, node="worker-1", paused=lambda *which: counted.append(which))
    accept_apart(inbox, 3)

    with closing(queue):
        for now in (NOON, NOON + PROBE_EVERY):
            # The second time it is still paused.
            (claim,) = take(queue, now=now, limit=1)
            finish(queue, claim, failed(OutcomeKind.UNAUTHORIZED))

    assert counted == [("crm", "unauthorized")]


def test_a_pause_is_its_destinations_alone(inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1", to=("crm", "chat"))

    finish(queue, take_one(queue), failed(OutcomeKind.UNAUTHORIZED))

    assert len(take(queue, destination="chat")) == 1


def _paused(inbox: Inbox, queue: Queue) -> datetime:
    """Have the destination paused and return when it may be probed."""
    accept_apart(inbox, 4)
    finish(queue, take(queue, limit=1)[0], failed(OutcomeKind.UNAUTHORIZED))
    return NOON + PROBE_EVERY


def test_a_paused_destination_is_probed_with_one_delivery(
    inbox: Inbox, new_queue: NewQueue
) -> None:
    queues = [new_queue("worker-1"), new_queue("worker-2")]
    now = _paused(inbox, queues[0])

    claims = [claim for queue in queues for claim in take(queue, now=now)]

    assert len(claims) == 1


def test_a_probe_that_gets_through_ends_the_pause(inbox: Inbox, queue: Queue) -> None:
    now = _paused(inbox, queue)

    finish(queue, take_one(queue, now=now), delivered(), now=now)

    assert queue.pauses() == {}
    others = take(queue, now=now)
    assert len(others) == 2
    finish(queue, others[0], delivered(), now=now)
    assert len(take(queue, now=now)) == 1


@pytest.mark.parametrize(
    "result", [OutcomeKind.UNAUTHORIZED, OutcomeKind.TRANSIENT, OutcomeKind.AMBIGUOUS]
)
def test_a_probe_that_fails_is_followed_by_another(
    inbox: Inbox, queue: Queue, result: OutcomeKind
) -> None:
    now = _paused(inbox, queue)

    finish(queue, take_one(queue, now=now), failed(result), now=now)

    assert take(queue, now=now + PROBE_EVERY - SECOND) == []
    assert len(take(queue, now=now + PROBE_EVERY)) == 1


def test_a_probe_that_dies_with_its_worker_is_followed_by_another(
    inbox: Inbox, queue: Queue
) -> None:
    now = _paused(inbox, queue)
    take_one(queue, now=now)

    assert len(take(queue, now=now + PROBE_EVERY)) == 1


def test_a_probe_is_not_used_up_while_nothing_is_due(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept(inbox, "m0")
    claim = take_one(queue)
    finish(queue, claim, failed(OutcomeKind.UNAUTHORIZED))
    assert claim.event.customer is not None
    list(Pruning(database).erase(claim.event.customer))
    assert take(queue, now=NOON + PROBE_EVERY) == []

    accept(inbox, "m1")

    assert len(take(queue, now=NOON + PROBE_EVERY + SECOND)) == 1


def test_a_probe_that_the_rate_does_not_grant_is_not_used_up(inbox: Inbox, queue: Queue) -> None:
    now = _paused(inbox, queue)
    rare = RateLimit(1, 2 * PROBE_EVERY)
    assert take(queue, now=now, rate=rare) == []

    assert len(take(queue, now=now, rate=None)) == 1


def test_a_success_from_before_the_pause_does_not_end_it(inbox: Inbox, queue: Queue) -> None:
    accept_apart(inbox, 2)
    early, refused = take(queue)
    finish(queue, refused, failed(OutcomeKind.UNAUTHORIZED), now=NOON + SECOND)

    finish(queue, early, delivered(), now=NOON + 2 * SECOND)

    assert set(queue.pauses()) == {"crm"}


def test_a_throttled_destination_rests_and_then_gets_everything(
    inbox: Inbox, queue: Queue, delivery: FindDelivery
) -> None:
    accept_apart(inbox, 4)
    claim = take(queue, limit=1)[0]

    finish(queue, claim, failed(OutcomeKind.THROTTLED, retry_after=7 * SECOND))

    assert delivery("m0").attempts == 0
    assert take(queue, now=NOON + 6 * SECOND) == []
    assert len(take(queue, now=NOON + 7 * SECOND)) == 4
    assert queue.pauses() == {}


def test_a_throttled_conversation_lets_the_others_go(inbox: Inbox, queue: Queue) -> None:
    accept_apart(inbox, 3)
    claim = take(queue, limit=1)[0]

    finish(
        queue, claim, failed(OutcomeKind.THROTTLED, retry_after=7 * SECOND, scope="conversation")
    )

    assert _names(take(queue)) == ["m1", "m2"]
    assert _names(take(queue, now=NOON + 7 * SECOND)) == ["m0"]


def test_what_a_person_paused_stays_paused(inbox: Inbox, queue: Queue, database: Database) -> None:
    accept_apart(inbox, 3)
    claims = take(queue, limit=3)
    paused = {
        "name": "crm",
        "cause": "operator",
        "reason": "holidays",
        "since": NOON,
        "failures": 0,
    }
    with database.writing() as db:
        db.execute(sa.insert(schema.destinations), [paused])

    for claim, outcome in zip(
        claims,
        (delivered(), failed(OutcomeKind.UNAUTHORIZED), failed(OutcomeKind.THROTTLED)),
        strict=True,
    ):
        finish(queue, claim, outcome)

    assert (queue.pauses()["crm"].cause, queue.pauses()["crm"].until) == ("operator", None)
    assert take(queue, now=NOON + timedelta(days=9)) == []


def test_the_log_says_when_a_pause_begins_and_ends_and_no_more(inbox: Inbox, queue: Queue) -> None:
    due = _paused(inbox, queue)
    with capture_logs() as said:
        finish(queue, take_one(queue, now=due), failed(OutcomeKind.UNAUTHORIZED), now=due)
        due += PROBE_EVERY
        finish(queue, take_one(queue, now=due), delivered(), now=due)
        finish(queue, take(queue, now=due)[0], failed(OutcomeKind.THROTTLED), now=due)
        take(queue, now=due + timedelta(hours=1))

    told = [(each["event"], each["log_level"], each["cause"]) for each in said]
    assert told == [
        ("destination.resumed", "info", "unauthorized"),
        ("destination.paused", "info", "throttled"),
        ("destination.resumed", "info", "throttled"),
    ]


def test_the_log_warns_of_a_destination_that_refuses_us(inbox: Inbox, queue: Queue) -> None:
    with capture_logs() as said:
        _paused(inbox, queue)

    (told,) = said
    assert (told["event"], told["log_level"]) == ("destination.paused", "warning")
    assert (told["destination"], told["cause"]) == ("crm", "unauthorized")


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
