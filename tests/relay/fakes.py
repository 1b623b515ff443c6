"""What the tests of the relay put in the place of the world: arrivals, a clock, a connector."""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa

from connectors.base import Connector, Event, Options, Receipt
from connectors.http import Http
from relay.config.model import DestinationConfig
from relay.destinations import Destination
from relay.rules import payload
from relay.rules.delivery import Decision, Outcome, OutcomeKind, Policy, decide
from relay.rules.routing import Match
from relay.rules.units import RateLimit
from relay.store import Database, Inbox, Queue, StoreUnavailable
from relay.store.ids import new_id
from relay.store.values import Arrival, Claim, Connection, Record, Request
from relay.telling.metrics import Metrics

T = TypeVar("T")

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LEASE = timedelta(seconds=30)
ENDPOINT = "/webhooks/gofax"
OURS = "+61700000000"


def eventually(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Wait until *condition* holds; fail when it does not in time."""
    ends_at = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < ends_at, "what was waited for did not happen"
        pause.wait(0.002)


def patiently(act: Callable[[], T], *, seconds: float = 60.0) -> T:
    """Do it again while the store is away, as senders and workers do: others may be slow."""
    ends_at = time.monotonic() + seconds
    while True:
        try:
            return act()
        except StoreUnavailable:
            if time.monotonic() > ends_at:
                raise


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, now: datetime = NOON) -> None:
        self._now = now

    def __call__(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> datetime:
        self._now += timedelta(seconds=seconds)
        return self._now


def request(**changes: Any) -> Request:
    """Make the note of a request that was good, with *changes*."""
    fields: dict[str, Any] = {
        "id": new_id("req"),
        "at": NOON,
        "endpoint": ENDPOINT,
        "method": "POST",
        "remote": "127.0.0.1",
        "status": 200,
        "outcome": "",
        "reason": "signature good",
        "headers": {"content-type": "application/json"},
    }
    return Request(**fields | changes)


def arrival(
    message_id: str | None = "m1",
    *,
    body: str | None = "hello",
    customer: str = "+61400000001",
    ours: str = OURS,
    type: str = "SMS_REPLY",
    direction: str = "reply",
    to: Sequence[str] = ("crm",),
    at: datetime = NOON,
    **changes: Any,
) -> Arrival:
    """Make the arrival of an SMS from *customer*; *changes* are those of the Arrival."""
    said = {
        "messageId": message_id,
        "eventType": type,
        "direction": direction,
        "from": customer,
        "to": ours,
        "messageBody": body,
    }
    raw = json.dumps(said).encode()
    return replace(arrival_of(raw, to=to, at=at), **changes)


def arrival_of(raw: bytes, *, to: Sequence[str] = ("crm",), at: datetime = NOON) -> Arrival:
    """Make the arrival of the bytes *raw*."""
    read = payload.read_json(raw)
    return Arrival(
        event=read.event(id=new_id("evt"), endpoint=ENDPOINT, received_at=at),
        request=request(at=at, message_id=read.message_id),
        raw=raw,
        query="",
        format="json",
        key=payload.key(read, raw, endpoint=ENDPOINT, dedupe_by=("messageId",), query=""),
        meaning=payload.meaning(read),
        match=Match(destinations=tuple(to), routes=()),
    )


def customer(number: int) -> str:
    """Return the phone number of the *number*-th customer."""
    return f"+614{number:08}"


def accept(inbox: Inbox, *names: str, **changes: Any) -> None:
    """Accept messages of one conversation, one after the other."""
    for name in names:
        inbox.accept(arrival(name, **changes))


def accept_apart(
    inbox: Inbox, count: int, *, at: datetime = NOON, to: Sequence[str] = ("crm",)
) -> None:
    """Accept messages of *count* conversations."""
    for number in range(count):
        inbox.accept(arrival(f"m{number}", customer=customer(number), at=at, to=to))


def accept_together(database: Database, inbox: Inbox, arrivals: Sequence[Arrival]) -> list[Any]:
    """Accept *arrivals* as one batch behind another's commit; give acceptances and errors."""
    reached, open_ = threading.Event(), threading.Event()

    def hold(connection: sa.Connection) -> None:
        reached.set()
        assert open_.wait(30)

    # There is no public way to know that a caller stands in line.
    line: queue.SimpleQueue[Any] = inbox._group._waiting
    sa.event.listen(database.engine, "commit", hold, once=True)
    with ThreadPoolExecutor(len(arrivals) + 1) as callers:
        callers.submit(inbox.accept, arrival(new_id("req"), to=()))
        assert reached.wait(30)
        results = []
        for position, each in enumerate(arrivals, 1):
            results.append(callers.submit(inbox.accept, each))
            eventually(lambda position=position: line.qsize() == position)
        open_.set()
    return [result.exception() or result.result() for result in results]


class Commits:
    """Counts what a database commits."""

    def __init__(self, database: Database) -> None:
        self.count = 0
        sa.event.listen(database.engine, "commit", self._note)

    def _note(self, _: sa.Connection) -> None:
        self.count += 1


def be_impatient(database: Database) -> None:
    """Let *database* find soon that a stranger holds it, and a server not wait for its disk."""
    settings = (
        ["PRAGMA busy_timeout = 50"]
        if (database.file is not None)
        else ["SET synchronous_commit = off"]
    )

    def prepare(connection: Any, _: object) -> None:
        for setting in settings:
            connection.execute(setting)
        connection.commit()

    sa.event.listen(database.engine, "connect", prepare)


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """Let a stranger, who does not know of our lock file, hold the database."""
    if database.file is None:
        with psycopg.connect(database.url) as server:
            server.execute("LOCK TABLE lanes, keys, deliveries, destinations IN EXCLUSIVE MODE")
            yield
        return
    with closing(sqlite3.connect(database.file, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        yield
        stranger.execute("ROLLBACK")


def take(
    queue: Queue,
    *,
    now: datetime = NOON,
    destination: str = "crm",
    limit: int = 100,
    rate: RateLimit | None = None,
    lease: timedelta = LEASE,
    connection: Connection | None = None,
) -> Sequence[Claim]:
    """Claim what is due."""
    return queue.claim(
        destination,
        limit=limit,
        rate=rate,
        lease=lease,
        clock=lambda: now,
        connection=connection,
    )


def take_one(queue: Queue, **options: Any) -> Claim:
    """Claim the one delivery that is due."""
    (claim,) = take(queue, **options)
    return claim


def delivered(reference: str = "r1", *, thread: str | None = None) -> Outcome:
    """Make the outcome of an attempt that arrived."""
    receipt = Receipt(reference=reference, url=f"https://example.com/{reference}", thread=thread)
    return Outcome(kind=OutcomeKind.DELIVERED, receipt=receipt)


def failed(result: OutcomeKind, detail: str = "no luck", **fields: Any) -> Outcome:
    """Make the outcome of an attempt that failed."""
    return Outcome(kind=result, detail=detail, **fields)


class LongestWaits:
    """Randomness that has none: every wait is as long as the schedule allows."""

    def random(self) -> float:
        return 1.0


def record(
    claim: Claim, outcome: Outcome, *, now: datetime = NOON, policy: Policy | None = None
) -> Record:
    """Make the record of how *claim* ended and what the rules make of that."""
    rng: Any = LongestWaits()
    decision = decide(claim.tries, outcome, policy=policy or Policy(), now=now, rng=rng)
    return Record(claim=claim, outcome=outcome, decision=decision, ended_at=now)


def finish(
    queue: Queue,
    claim: Claim,
    outcome: Outcome | None = None,
    *,
    now: datetime = NOON,
    policy: Policy | None = None,
) -> Decision:
    """Record how *claim* ended and what the rules make of that."""
    made = record(claim, outcome or delivered(), now=now, policy=policy)
    queue.record(made)
    return made.decision


def lose(queue: Queue, *, now: datetime) -> None:
    """Settle the one claim whose lease has run out, as the worker of *queue* would."""
    (claim,) = queue.lost(["crm", "chat", "mail"], now)
    finish(queue, claim, failed(OutcomeKind.AMBIGUOUS, "lost", lost=True), now=now)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a scripted connector."""

    event: Event
    key: str
    thread: str | None
    repeat: bool
    deadline: float


#: What a scripted connector does: return, raise, or act itself.
Act = Receipt | BaseException | Callable[[Call], Any]


@dataclass
class Scripted(Connector[Options]):
    """Delivers by script: one act per call, and receipts when the script has ended."""

    Options = Options
    script: list[Act] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    hangs: list[Hang] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        super().__init__(Options(), http=Http())
        self._turn = threading.Lock()

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        call = Call(event=event, key=key, thread=thread, repeat=repeat, deadline=deadline)
        with self._turn:
            self.calls.append(call)
            act = self.script.pop(0) if self.script else Receipt(reference=f"r{len(self.calls)}")
            if isinstance(act, Hang):
                self.hangs.append(act)
        if isinstance(act, BaseException):
            raise act
        return act(call) if callable(act) else act

    def check(self) -> str:
        return "scripted"

    def close(self) -> None:
        self.closed = True

    @property
    def message_ids(self) -> list[str | None]:
        """Return which messages came, in their order."""
        return [call.event.message_id for call in self.calls]


class Hang:
    """An act that lasts until it is released, and then does another."""

    def __init__(self, then: Receipt | BaseException | None = None) -> None:
        self.begun = threading.Event()
        self._released = threading.Event()
        self._then = then or Receipt(reference="after all")

    def __call__(self, call: Call) -> Receipt:
        self.begun.set()
        self._released.wait(60)
        if isinstance(self._then, BaseException):
            raise self._then
        return self._then

    def release(self) -> None:
        self._released.set()


def destination(name: str, connector: Connector[Any], **settings: Any) -> Destination:
    """Make a destination of *connector*; *settings* are those of the YAML."""
    made = DestinationConfig(connector="scripted", options=Options(), **settings)
    metrics = Metrics().of_destination(name)
    return Destination(name=name, settings=made, connector=connector, metrics=metrics)
