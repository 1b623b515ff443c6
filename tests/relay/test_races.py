"""What people and retention remove while others claim and send again, on PostgreSQL.

A stranger holds a lock for a moment, so that two others meet behind it in a certain order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from fakes import NOON, arrival, customer, eventually, failed, finish, take, take_one

from relay.rules import recovery
from relay.rules.delivery import OutcomeKind, State
from relay.rules.units import RateLimit
from relay.store import Database, Inbox, Queries, Queue, Recovery, connect, schema
from relay.store.actions import Act
from relay.store.prune import Pruning, Removed

DAY = timedelta(days=1)
ACT = Act(who="anna", why=None, at=NOON + DAY)


@pytest.fixture
def database(emptied: str) -> Iterator[Database]:
    made = connect(emptied)
    sa.event.listen(made.engine, "connect", _be_patient)
    yield made
    made.close()


def _be_patient(connection: Any, _: object) -> None:
    """Wait for locks as long as a busy machine may take to bring two together."""
    connection.execute("SET lock_timeout = '20s'")
    connection.commit()


@contextmanager
def behind(
    database: Database, lock: str, *acts: Callable[[], Any], held: float = 0.05
) -> Iterator[list[Future[Any]]]:
    """Let *acts* wait, one after the other, for a stranger's *lock*; give what they come to."""
    waits = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with (
        ThreadPoolExecutor(len(acts)) as threads,
        psycopg.connect(database.url, autocommit=True) as watcher,
    ):
        with psycopg.connect(database.url) as stranger:
            stranger.execute(lock)
            futures = []
            for number, act in enumerate(acts, 1):
                futures.append(threads.submit(act))
                eventually(lambda number=number: _count(watcher, waits) >= number)
            time.sleep(held)
            stranger.rollback()
        yield futures


def _count(watcher: psycopg.Connection[Any], question: str) -> int:
    row = watcher.execute(question).fetchone()
    assert row is not None
    return int(row[0])


def _erase(database: Database) -> list[Removed]:
    return list(Pruning(database).erase(customer(1)))


def _prune(database: Database) -> list[Removed]:
    return list(Pruning(database).prune(before=NOON + DAY))


def _kill(inbox: Inbox, queue: Queue) -> None:
    inbox.accept(arrival("m1", customer=customer(1), at=NOON))
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED))


def _states(queries: Queries) -> list[State]:
    return [each.state for view in queries.events() for each in view.deliveries]


def test_what_a_sender_revives_is_not_pruned(
    database: Database, inbox: Inbox, queue: Queue, queries: Queries
) -> None:
    _kill(inbox, queue)
    again = arrival("m1", customer=customer(1), at=NOON + DAY)

    with behind(
        database,
        "SELECT 1 FROM lanes FOR UPDATE",
        lambda: inbox.accept(again),
        lambda: _prune(database),
    ) as (accepted, pruned):
        assert accepted.result(9).standing == "duplicate"
        assert sum(pruned.result(9), Removed()).events == 0

    assert _states(queries) == [State.PENDING]


def test_what_a_person_resends_is_not_pruned(
    database: Database, inbox: Inbox, queue: Queue, queries: Queries
) -> None:
    _kill(inbox, queue)
    desk = Recovery(database)
    (case,) = desk.deliveries_named("m1")
    step = recovery.resend(case, again=False, now=NOON)

    with behind(
        database,
        "SELECT 1 FROM lanes FOR UPDATE",
        lambda: desk.do([step], ACT),
        lambda: _prune(database),
    ) as (done, pruned):
        assert done.result(9)
        assert sum(pruned.result(9), Removed()).events == 0

    assert _states(queries) == [State.PENDING]


def test_what_a_worker_claims_is_not_erased(
    database: Database, inbox: Inbox, queue: Queue, queries: Queries
) -> None:
    inbox.accept(arrival("m1", customer=customer(1), at=NOON))

    with behind(
        database,
        "LOCK TABLE attempts IN SHARE MODE",
        lambda: take(queue),
        lambda: _erase(database),
    ) as (claimed, erased):
        assert len(claimed.result(9)) == 1
        assert sum(erased.result(9), Removed()).events == 0

    assert _states(queries) == [State.IN_FLIGHT]


def test_a_resend_brings_no_number_back_that_is_being_erased(
    database: Database, inbox: Inbox, queue: Queue
) -> None:
    _kill(inbox, queue)
    again = arrival("m1", customer=customer(1), at=NOON + DAY)

    with behind(
        database,
        "SELECT 1 FROM lanes FOR UPDATE",
        lambda: _erase(database),
        lambda: inbox.accept(again),
    ) as (erased, accepted):
        assert sum(erased.result(9), Removed()).events == 1
        assert accepted.result(9).standing == "duplicate"

    with database.reading() as db:
        for table in (schema.lanes, schema.deliveries, schema.events):
            assert db.execute(sa.select(table)).all() == []


def test_a_replay_beside_a_prune_makes_its_lane(
    database: Database, inbox: Inbox, queue: Queue, queries: Queries
) -> None:
    _kill(inbox, queue)
    inbox.accept(arrival("m2", customer=customer(1), at=NOON + 2 * DAY, to=()))
    desk = Recovery(database)
    plan = recovery.replay(desk.event_named("m2"), ["crm"])

    with behind(
        database,
        "SELECT 1 FROM lanes FOR UPDATE",
        lambda: _prune(database),
        lambda: desk.replay([plan], ACT),
    ) as (pruned, replayed):
        assert sum(pruned.result(9), Removed()).events == 1
        assert replayed.result(9)

    assert _states(queries) == [State.PENDING]


def test_a_lane_is_locked_without_being_written_anew(database: Database, inbox: Inbox) -> None:
    where = sa.select(sa.literal_column("ctid")).select_from(schema.lanes)
    inbox.accept(arrival("m1", customer=customer(1), at=NOON))
    with database.reading() as db:
        before = db.scalar(where)

    inbox.accept(arrival("m2", customer=customer(1), at=NOON))

    with database.reading() as db:
        assert db.scalar(where) == before


def test_a_rate_counts_from_when_the_locks_were_had(
    database: Database, inbox: Inbox, queue: Queue
) -> None:
    begun = database.clock()
    for number in range(12):
        inbox.accept(arrival(f"m{number}", customer=customer(number), at=begun))
    # Then there is a row of its health, for which claims wait.
    finish(queue, take(queue, now=begun, limit=1)[0], failed(OutcomeKind.TRANSIENT), now=begun)
    rate = RateLimit(count=4, period=timedelta(seconds=1))

    def claim() -> int:
        return len(queue.claim("crm", limit=9, rate=rate, lease=DAY, clock=database.clock))

    time.sleep(1.1)
    with behind(database, "SELECT 1 FROM destinations FOR UPDATE", claim, held=1.2) as (first,):
        assert first.result(9) == 4
    assert claim() == 0
