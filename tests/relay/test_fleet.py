"""Several nodes at one PostgreSQL server: order, rates, health and clocks are shared."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from fakes import (
    LEASE,
    NOON,
    accept_apart,
    arrival,
    be_impatient,
    customer,
    eventually,
    failed,
    finish,
    take,
)

from relay import every
from relay.rules.delivery import OutcomeKind
from relay.rules.health import BREAKS_AFTER
from relay.rules.units import RateLimit
from relay.store import Database, Inbox, Queries, Queue, StoreUnavailable, connect, schema
from relay.store.lanes import lane_name

NODES = 3
NewNode = Callable[[], Database]


@pytest.fixture
def new_node(emptied: str) -> Iterator[NewNode]:
    """Make what a node has of its own: connections."""
    made: list[Database] = []

    def new_node() -> Database:
        made.append(connect(emptied))
        be_impatient(made[-1])
        return made[-1]

    yield new_node
    for each in made:
        each.close()


@pytest.fixture
def nodes(new_node: NewNode) -> list[Database]:
    return [new_node() for _ in range(NODES)]


@pytest.fixture
def inboxes(nodes: list[Database]) -> Iterator[list[Inbox]]:
    made = [Inbox(each) for each in nodes]
    yield made
    for inbox in made:
        inbox.close()


@pytest.fixture
def queues(nodes: list[Database]) -> Iterator[list[Queue]]:
    made = [Queue(each, node=f"node-{number}") for number, each in enumerate(nodes)]
    yield made
    for queue in made:
        queue.close()


def test_conversations_keep_their_order_and_nobody_is_stuck_however_many_nodes_accept(
    nodes: list[Database], inboxes: list[Inbox], queues: list[Queue]
) -> None:
    conversations, messages, destinations = 6, 30, ("crm", "chat")
    everything = conversations * messages * len(destinations)
    delivered: dict[str, list[str]] = {}
    guard = threading.Lock()
    ended = Counter[str]()

    def take_in(who: int) -> None:
        """Send a conversation, each message when the one before it was answered, to any node."""
        for number in range(messages):
            inbox = inboxes[(who + number) % NODES]
            inbox.accept(arrival(f"{who}-{number}", customer=customer(who), to=destinations))

    def work(part: int) -> None:
        queue, name = queues[part % NODES], destinations[part % 2]
        ends_at = time.monotonic() + 60
        while ended[name] < everything // 2 and time.monotonic() < ends_at:
            for claim in take(queue, destination=name, limit=3):
                with guard:
                    delivered.setdefault(claim.lane_id, []).append(str(claim.event.message_id))
                finish(queue, claim)
                ended[name] += 1

    with ThreadPoolExecutor(conversations + 2 * NODES) as threads:
        running = [threads.submit(take_in, who) for who in range(conversations)]
        running += [threads.submit(work, part) for part in range(2 * NODES)]
        for each in running:
            each.result()

    assert Queries(nodes[0]).backlog() == {
        name: {"delivered": everything // 2} for name in destinations
    }
    expected = {
        lane_name(name, f"{customer(who)}~+61700000000"): [f"{who}-{n}" for n in range(messages)]
        for who in range(conversations)
        for name in destinations
    }
    assert delivered == expected


def test_the_same_messages_at_all_nodes_at_once_are_stored_once_and_nobody_is_refused(
    nodes: list[Database], inboxes: list[Inbox]
) -> None:
    names = [f"m{number}" for number in range(25)]

    def send(caller: int) -> list[str]:
        # Each in an order of its own: who locks in the order of arrival is in a deadlock soon.
        shuffled = random.Random(caller).sample(names, len(names))
        return [
            inboxes[caller % NODES]
            .accept(arrival(name, customer=customer(int(name[1:]) % 4)))
            .standing
            for name in shuffled
        ]

    with ThreadPoolExecutor(4 * NODES) as threads:
        statuses = Counter(each for sent in threads.map(send, range(4 * NODES)) for each in sent)

    assert statuses == {"accepted": 25, "duplicate": 25 * (4 * NODES - 1)}
    views = list(Queries(nodes[0]).events())
    assert {(view.duplicates, len(view.deliveries)) for view in views} == {(4 * NODES - 1, 1)}


def test_who_is_in_a_deadlock_with_a_stranger_tries_again(
    nodes: list[Database], inboxes: list[Inbox]
) -> None:
    new = arrival("m1")
    lane = lane_name("crm", new.event.conversation)
    inboxes[0].accept(arrival("m0"))
    with psycopg.connect(nodes[0].url) as stranger, ThreadPoolExecutor(1) as thread:
        # The server lets those fail first who lose their patience first.
        stranger.execute("SET LOCAL deadlock_timeout = '20s'")
        stranger.execute("SELECT 1 FROM lanes WHERE id = %s FOR UPDATE", [lane])
        accepting = thread.submit(inboxes[0].accept, new)
        waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        with psycopg.connect(nodes[0].url, autocommit=True) as watcher:
            eventually(lambda: watcher.execute(waits).fetchone())
        stranger.execute("INSERT INTO keys VALUES (%s, 'evt', '', '', 0, now(), now())", [new.key])
        stranger.rollback()

        assert accepting.result().standing == "accepted"


def test_a_rate_holds_across_nodes_in_any_window(
    nodes: list[Database], inboxes: list[Inbox], queues: list[Queue]
) -> None:
    rate = RateLimit(10, timedelta(milliseconds=400))
    accept_apart(inboxes[0], 80)
    claimed = Counter[int]()
    ends_at = time.monotonic() + 60

    def work(number: int) -> None:
        clock = nodes[number].clock
        while claimed.total() < 35 and time.monotonic() < ends_at:
            claimed[number] += len(take(queues[number], limit=4, rate=rate, now=clock()))

    with ThreadPoolExecutor(NODES) as threads:
        list(threads.map(work, range(NODES)))

    with nodes[0].reading() as db:
        started = db.scalars(sa.select(schema.attempts.c.started_at)).all()
    assert len(started) == claimed.total() >= 35
    for begin in started:
        assert sum(begin <= each < begin + rate.period for each in started) <= rate.count


def test_no_failure_is_missed_that_nodes_note_at_once(
    nodes: list[Database], inboxes: list[Inbox], queues: list[Queue]
) -> None:
    accept_apart(inboxes[0], BREAKS_AFTER - 1)
    claims = [take(queue, limit=(BREAKS_AFTER - 1) // NODES) for queue in queues]
    start = threading.Barrier(NODES)

    def fail(number: int) -> None:
        start.wait()
        for claim in claims[number]:
            finish(queues[number], claim, failed(OutcomeKind.TRANSIENT))

    with ThreadPoolExecutor(NODES) as threads:
        list(threads.map(fail, range(NODES)))

    with nodes[0].reading() as db:
        assert db.scalar(sa.select(schema.destinations.c.failures)) == BREAKS_AFTER - 1


def test_a_destination_that_fails_is_tried_by_one_node_with_one_delivery(
    inboxes: list[Inbox], queues: list[Queue]
) -> None:
    accept_apart(inboxes[0], BREAKS_AFTER + 20)
    for claim in take(queues[0], limit=BREAKS_AFTER):
        finish(queues[0], claim, failed(OutcomeKind.TRANSIENT))
    assert [take(queue, limit=5) for queue in queues] == [[]] * NODES
    start = threading.Barrier(NODES)

    def probe(queue: Queue) -> int:
        start.wait()
        return len(take(queue, limit=5, now=NOON + timedelta(minutes=10)))

    with ThreadPoolExecutor(NODES) as threads:
        assert sum(threads.map(probe, queues)) == 1


def test_what_a_dead_node_had_is_taken_over_when_its_lease_has_run_out(
    inboxes: list[Inbox], queues: list[Queue]
) -> None:
    accept_apart(inboxes[0], 2)
    (first, second) = take(queues[0])
    queues[0].renew([second.delivery_id], lease=LEASE, now=NOON + LEASE)
    later = NOON + LEASE + timedelta(seconds=1)

    (lost,) = queues[1].lost(["crm"], later)
    finish(queues[1], lost, failed(OutcomeKind.AMBIGUOUS, lost=True), now=later)

    assert lost.delivery_id == first.delivery_id
    assert queues[2].lost(["crm"], later) == []


def test_workers_are_woken_by_what_another_node_accepts(
    nodes: list[Database], inboxes: list[Inbox]
) -> None:
    woken = threading.Event()
    listener = nodes[1].listen(woken.set)
    assert woken.wait(20)  # it listens now
    woken.clear()

    inboxes[0].accept(arrival("m1"))

    assert woken.wait(20)
    listener.close()


def test_a_listener_outlives_an_error_of_the_worker_that_it_wakes(
    nodes: list[Database], inboxes: list[Inbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(every, "AFTER_ERROR", 0.001)
    woken = threading.Event()
    errors: list[Exception] = [KeyError("a bug")]

    def wake() -> None:
        if errors:
            raise errors.pop()
        woken.set()

    listener = nodes[1].listen(wake)
    eventually(lambda: not errors)
    inboxes[0].accept(arrival("m1"))

    assert woken.wait(20)
    listener.close()


def test_a_listener_that_was_cut_off_listens_again(
    nodes: list[Database], inboxes: list[Inbox]
) -> None:
    woken = threading.Event()
    listener = nodes[1].listen(woken.set)
    assert woken.wait(20)
    woken.clear()
    with psycopg.connect(nodes[0].url, autocommit=True) as server:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        assert server.execute(cut).fetchone() == (True,)

    assert woken.wait(20)
    woken.clear()
    inboxes[0].accept(arrival("m1"))

    assert woken.wait(20)
    listener.close()


def test_nodes_go_by_the_clock_of_the_server(new_node: NewNode) -> None:
    node = new_node()
    with node.reading() as db:
        db.execute(sa.text("SELECT 1"))
        told = db.scalar(sa.text("SELECT clock_timestamp()"))

    assert abs(node.clock() - told) < timedelta(seconds=0.5)
    assert abs(node.clock() - datetime.now(UTC)) < timedelta(minutes=1)


def test_connections_promise_what_an_answer_promises(emptied: str) -> None:
    with psycopg.connect(emptied, autocommit=True) as server:
        name = server.info.dbname
        server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        node = connect(emptied)
        levels = []
        for transaction in (node.writing, node.writing_unsynced, node.writing):
            with transaction() as db:
                levels.append(db.scalar(sa.text("SHOW synchronous_commit")))
        with node.reading() as db:
            names = ("lock_timeout", "statement_timeout", "timezone")
            limits = [db.scalar(sa.text(f"SHOW {name}")) for name in names]
        node.close()
        server.execute(f"ALTER DATABASE {name} RESET synchronous_commit")

    assert levels == ["on", "off", "on"]
    assert limits == ["2s", "30s", "UTC"]


def test_a_connection_that_is_lost_as_a_transaction_begins_is_no_more_than_a_store_that_is_away(
    new_node: NewNode, caplog: pytest.LogCaptureFixture
) -> None:
    node, server = new_node(), new_node()
    with node.reading():
        pass  # a connection that will be used again

    def end(connection: sa.Connection) -> None:
        """Let the server end it, after the pool has seen that it works."""
        driver: Any = connection.connection.dbapi_connection
        with server.reading() as db:
            db.execute(sa.select(sa.func.pg_terminate_backend(driver.info.backend_pid)))

    sa.event.listen(node.engine, "engine_connect", end)
    for transaction in (node.reading, node.writing, node.writing_unsynced):
        with pytest.raises(StoreUnavailable), transaction() as db:
            eventually(lambda db=db: db.execute(sa.text("SELECT 1")) and False)
    sa.event.remove(node.engine, "engine_connect", end)

    with node.writing_unsynced() as db:
        assert db.scalar(sa.text("SHOW synchronous_commit")) == "off"
    assert [record.getMessage() for record in caplog.records] == []
