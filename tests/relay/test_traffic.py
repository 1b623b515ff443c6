"""What came and arrived over time, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from fakes import (
    NOON,
    Clock,
    accept,
    accept_apart,
    arrival,
    customer,
    eventually,
    failed,
    finish,
    take,
)

from relay.node import TrafficCounter
from relay.rules.delivery import OutcomeKind
from relay.store import Database, Inbox, Queue, schema, traffic
from relay.store.traffic import COUNTED_WHEN_ASKED, Bucket, Traffic

ON_BOTH = True

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def clock(database: Database) -> Clock:
    """The clock of the store."""
    clock = Clock()
    database.clock = clock
    return clock


def _catch_up(numbers: Traffic) -> int:
    total = 0
    while step := numbers.count():
        total += step
    return total


def _rows(database: Database) -> int:
    with database.reading() as db:
        return db.scalar(sa.select(sa.func.count()).select_from(schema.traffic)) or 0


def _last(numbers: Traffic, clock: Clock, *, buckets: int = 1) -> list[tuple[int, int]]:
    """Return what came and arrived in the last hours, up to now."""
    end = clock() + MINUTE
    found = numbers.series(since=end - buckets * HOUR, until=end, size=HOUR)
    return [(each.came, each.arrived) for each in found]


def test_what_came_and_arrived_is_the_same_before_and_after_it_is_counted(
    inbox: Inbox, queue: Queue, database: Database, clock: Clock
) -> None:
    accept_apart(inbox, 4, to=("crm", "chat"))
    first, second, *_ = take(queue)
    finish(queue, first)
    finish(queue, second, failed(OutcomeKind.REFUSED))
    (third, *_) = take(queue, destination="chat")
    finish(queue, third)
    numbers = Traffic(database)

    seen = _last(numbers, clock)
    clock.advance(3 * 60)
    while_uncounted = _last(numbers, clock)
    counted = _catch_up(numbers)

    assert seen == while_uncounted == _last(numbers, clock) == [(4, 2)]
    assert counted == 2
    clock.advance(60 * 60)
    _catch_up(numbers)
    assert _last(numbers, clock, buckets=2) == [(4, 2), (0, 0)]


def test_a_minute_is_counted_when_its_attempts_have_had_time_to_end(
    inbox: Inbox, queue: Queue, database: Database, clock: Clock
) -> None:
    numbers = Traffic(database)
    _catch_up(numbers)
    accept(inbox, "m1")
    (claim,) = take(queue)
    clock.advance(119)
    _catch_up(numbers)
    finish(queue, claim)

    clock.advance(1)

    assert numbers.count() == 1
    assert _last(numbers, clock) == [(1, 1)]


def test_minutes_that_nobody_counted_are_zero_and_buckets_begin_where_they_are_asked_for(
    inbox: Inbox, database: Database, clock: Clock
) -> None:
    inbox.accept(arrival("old", at=NOON - HOUR))
    inbox.accept(arrival("new", at=NOON, customer=customer(2)))

    found = Traffic(database).series(
        since=NOON - 7 * MINUTE, until=NOON + MINUTE, size=timedelta(minutes=5)
    )

    assert found == [
        Bucket(begins_at=NOON - 7 * MINUTE, came=0, arrived=0),
        Bucket(begins_at=NOON - 2 * MINUTE, came=1, arrived=0),
    ]
    older = Traffic(database).series(since=NOON - 2 * HOUR, until=NOON - HOUR / 2, size=HOUR)
    assert [each.came for each in older] == [0, 0]


def test_of_very_many_attempts_that_are_not_counted_yet_some_are_a_sample(
    inbox: Inbox,
    queue: Queue,
    database: Database,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accept_apart(inbox, 20)
    for claim in take(queue):
        finish(queue, claim)
    monkeypatch.setattr(traffic, "SAMPLE", 10)

    assert _last(Traffic(database), clock) == [(20, 20)]


def test_after_a_long_pause_a_week_is_caught_up_with_and_a_month_is_kept(
    inbox: Inbox, database: Database, clock: Clock
) -> None:
    numbers = Traffic(database)
    accept(inbox, "m1")
    clock.advance(120)
    _catch_up(numbers)

    clock.advance(timedelta(days=10).total_seconds())
    for age in (timedelta(days=8), timedelta(days=6), HOUR):
        inbox.accept(arrival(f"{age}", at=clock() - age))
    assert numbers.count(limit=5) == 5
    _catch_up(numbers)
    ten_days = numbers.series(
        since=clock() - timedelta(days=11), until=clock(), size=timedelta(days=11)
    )
    assert [each.came for each in ten_days] == [3]

    clock.advance(timedelta(days=32).total_seconds())
    _catch_up(numbers)
    gone = numbers.series(
        since=clock() - timedelta(days=50), until=clock(), size=timedelta(days=50)
    )
    assert [each.came for each in gone] == [0]


def test_several_nodes_count_each_minute_once(
    inbox: Inbox, database: Database, clock: Clock
) -> None:
    accept_apart(inbox, 3)
    clock.advance((COUNTED_WHEN_ASKED + 2) * 60)
    counters = [TrafficCounter(Traffic(database), seconds=0.01) for _ in range(3)]

    for each in counters:
        each.start()
    eventually(lambda: Traffic(database).count() == 0 and _rows(database))
    for each in counters:
        each.close()

    assert _last(Traffic(database), clock) == [(3, 0)]
