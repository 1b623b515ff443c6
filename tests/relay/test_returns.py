"""A destination that answers again after an outage gets at once what waited for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from fakes import (
    NOON,
    Clock,
    Scripted,
    accept_apart,
    arrival,
    customer,
    delivered,
    destination,
    failed,
    finish,
    take,
    take_one,
)

from relay.cluster.worker import HintedWorker
from relay.rules.delivery import Outcome, OutcomeKind, Policy
from relay.rules.health import BACK_AFTER
from relay.rules.units import RateLimit
from relay.store import Database, Inbox, Queue, Recovery, health, schema
from relay.store.actions import Act
from relay.store.values import Claim

ON_BOTH = True

NewQueue = Callable[[str], Queue]

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
#: What one delivery takes, and how many are under way at a time.
TAKES, THREADS = SECOND / 4, 8
#: A policy whose waits end with nothing but a success.
PATIENT = Policy(schedule=(DAY,))


class Outage:
    """A worker, by a moved clock, at a destination that is down until a moment."""

    def __init__(self, queue: Queue, inbox: Inbox, *, until: datetime) -> None:
        self._queue, self._inbox, self._until = queue, inbox, until
        self.first_success: datetime | None = None
        self.delivered: list[datetime] = []

    def run(self, arrivals: Sequence[datetime], *, end: datetime) -> None:
        """Accept a conversation at each of *arrivals* and serve what is due until *end*."""
        now, coming = arrivals[0], list(arrivals)
        while now < end:
            while coming and coming[0] <= now:
                at = coming.pop(0)
                number = len(arrivals) - len(coming)
                self._inbox.accept(arrival(f"m{number}", customer=customer(number), at=at))
            claims = take(self._queue, now=now, limit=THREADS)
            now += TAKES
            for claim in claims:
                self._finish(claim, now=now)
            if not claims:
                now += SECOND if now >= self._until else 5 * MINUTE

    def _finish(self, claim: Claim, *, now: datetime) -> None:
        if now < self._until:
            finish(self._queue, claim, failed(OutcomeKind.TRANSIENT), now=now)
            return
        self.first_success = self.first_success or now
        self.delivered.append(now)
        finish(self._queue, claim, delivered(), now=now)


@pytest.mark.slow
def test_a_days_outage_is_over_a_minute_after_the_first_success(
    inbox: Inbox, queue: Queue
) -> None:
    outage = Outage(queue, inbox, until=NOON + DAY)
    arrivals = [NOON + number * DAY / 30 for number in range(30)]

    outage.run(arrivals, end=NOON + DAY + 10 * MINUTE)

    assert outage.first_success is not None
    late = sorted(at - outage.first_success for at in outage.delivered)
    assert len(late) == 30
    assert late[int(0.95 * len(late))] <= MINUTE


def _failed_apart(
    inbox: Inbox,
    queue: Queue,
    count: int,
    outcome: Outcome | None = None,
    *,
    policy: Policy = PATIENT,
) -> None:
    """Let *count* deliveries fail once, without a break."""
    accept_apart(inbox, count)
    for claim in take(queue, limit=count):
        finish(queue, claim, outcome or failed(OutcomeKind.TRANSIENT), policy=policy)


def _succeed(inbox: Inbox, queue: Queue, *, now: datetime) -> None:
    """Let one more message come, and arrive."""
    inbox.accept(arrival("new", customer=customer(999), at=now))
    finish(queue, take_one(queue, now=now), delivered(), now=now)


@pytest.fixture
def names(queue: Queue) -> Callable[..., list[str | None]]:
    """Deliver all that is due; return which messages those were, in their order."""

    def names(*, now: datetime) -> list[str | None]:
        found = []
        while claims := take(queue, now=now):
            found += [claim.event.message_id for claim in claims]
            for claim in claims:
                finish(queue, claim, delivered(), now=now)
        return found

    return names


Names = Callable[..., list[str | None]]


def test_a_wait_that_a_user_wrote_holds_until_the_first_success(
    inbox: Inbox, queue: Queue, names: Names
) -> None:
    _failed_apart(inbox, queue, BACK_AFTER)
    assert names(now=NOON + MINUTE) == []

    _succeed(inbox, queue, now=NOON + MINUTE)

    assert sorted(map(str, names(now=NOON + MINUTE))) == ["m0", "m1", "m2"]


def test_fewer_failures_are_those_deliveries_own(inbox: Inbox, queue: Queue, names: Names) -> None:
    _failed_apart(inbox, queue, BACK_AFTER - 1)

    _succeed(inbox, queue, now=NOON + MINUTE)

    assert names(now=NOON + MINUTE) == []
    assert len(names(now=NOON + DAY)) == BACK_AFTER - 1


def test_a_delivery_that_fails_again_afterwards_waits_again(
    inbox: Inbox, queue: Queue, names: Names
) -> None:
    _failed_apart(inbox, queue, BACK_AFTER)
    now = NOON + MINUTE
    _succeed(inbox, queue, now=now)
    first = take(queue, now=now, limit=1)[0]

    finish(queue, first, failed(OutcomeKind.TRANSIENT), now=now + SECOND, policy=PATIENT)

    assert first.event.message_id not in names(now=now + MINUTE)


@pytest.mark.parametrize(
    "asked",
    [
        failed(OutcomeKind.TRANSIENT, retry_after=2 * DAY),
        failed(OutcomeKind.THROTTLED, retry_after=DAY / 2, scope="conversation"),
    ],
    ids=["Retry-After", "throttled conversation"],
)
def test_what_a_destination_asked_for_stays(
    inbox: Inbox, queue: Queue, names: Names, asked: Outcome, database: Database
) -> None:
    _failed_apart(inbox, queue, 1, asked)
    with database.writing() as db:
        # The pause that a Retry-After makes would keep everything else back, too.
        health.write(database, db, "crm", health.Health(failures=BACK_AFTER))

    _succeed(inbox, queue, now=NOON + MINUTE)

    assert names(now=NOON + DAY / 2 - SECOND) == []
    assert names(now=NOON + 2 * DAY) == ["m0"]


def test_the_oldest_go_first_and_the_newest_keep_their_share(
    inbox: Inbox, queue: Queue, new_queue: NewQueue
) -> None:
    _failed_apart(inbox, queue, 9)
    for number in range(10, 19):
        at = NOON + number * SECOND
        inbox.accept(arrival(f"m{number}", customer=customer(number), at=at))
    now = NOON + MINUTE
    probe = take(queue, now=now, limit=1)[0]
    finish(queue, probe, delivered(), now=now)
    probed = probe.event.message_id

    other = new_queue("worker-2")
    claims = [*take(queue, now=now, limit=1), *take(other, now=now, limit=1)]

    assert probed in ("m10", "m18")
    assert "m0" in [claim.event.message_id for claim in claims]


def test_several_workers_share_one_ramp(inbox: Inbox, new_queue: NewQueue) -> None:
    queues = [new_queue(f"worker-{number}") for number in range(3)]
    _failed_apart(inbox, queues[0], 9)
    now = NOON + MINUTE
    _succeed(inbox, queues[0], now=now)
    rounds = []

    while claims := [(each, claim) for each in queues for claim in take(each, now=now)]:
        rounds.append(len(claims))
        for each, claim in claims:
            finish(each, claim, delivered(), now=now)

    assert rounds == [2, 4, 3]


def test_a_rate_goes_on_while_a_backlog_is_delivered(inbox: Inbox, queue: Queue) -> None:
    _failed_apart(inbox, queue, 9)
    now = NOON + DAY / 2
    _succeed(inbox, queue, now=now)

    assert len(take(queue, now=now, rate=RateLimit(2, MINUTE))) == 1


def test_a_person_who_resumes_ends_the_waits(
    inbox: Inbox, queue: Queue, database: Database, names: Names
) -> None:
    store, who = Recovery(database), Act(who="me", why=None, at=NOON + MINUTE)
    _failed_apart(inbox, queue, 2)
    assert store.pause("crm", who)
    assert names(now=NOON + 2 * DAY) == []

    assert store.resume("crm", who) == "operator"

    (first,) = take(queue, now=NOON + MINUTE)
    finish(queue, first, delivered(), now=NOON + MINUTE)
    assert len(names(now=NOON + MINUTE)) == 1


def test_many_are_made_due_a_batch_at_a_time(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept_apart(inbox, health.BATCH + 20)
    with database.writing() as db:
        waiting = {"due_at": NOON + DAY, "hurry_from": NOON}
        db.execute(sa.update(schema.deliveries).values(waiting))
        health.write(database, db, "crm", health.Health(failures=BACK_AFTER))
    ended = _Ended(database)

    _succeed(inbox, queue, now=NOON + MINUTE)
    for _ in range(3):
        take(queue, now=NOON + MINUTE, limit=1)

    assert ended.rows == [health.BATCH, 20]


class _Ended:
    """Counts the rows whose waits each statement ends."""

    def __init__(self, database: Database) -> None:
        self.rows: list[int] = []
        sa.event.listen(database.engine, "after_cursor_execute", self._note)

    def _note(self, _: object, cursor: object, statement: str, *others: object) -> None:
        if "due_at=deliveries.created_at" in statement:
            self.rows.append(getattr(cursor, "rowcount", -1))


def test_the_fleet_is_told_that_others_became_due(
    inbox: Inbox, queue: Queue, clock: Clock
) -> None:
    _failed_apart(inbox, queue, BACK_AFTER)
    inbox.accept(arrival("new", customer=customer(999)))
    hints: list[dict[str, int]] = []
    connector = Scripted()
    worker = HintedWorker(
        {"crm": destination("crm", connector)},
        queue,
        concurrency={"crm": 4},
        hint=lambda counts: hints.append(dict(counts)),
        clock=clock,
    )

    worker.serve("crm")
    worker.close()

    assert hints == [{"crm": 4}]
    assert sorted(map(str, connector.message_ids)) == ["m0", "m1", "m2", "new"]
