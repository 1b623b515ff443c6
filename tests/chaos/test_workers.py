"""Several workers on one store: each delivery is made once, and who hung decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from evidence import collect
from faked import MachineClock, NoCompiler
from plan import Fault
from programs import eventually
from proxy import Proxy, running
from stage import COMMON, Relay, lock_file, message, running_sandbox
from verdict import violations

from relay.store import connect, schema
from relay.store.values import DeliveryView

pytestmark = pytest.mark.slow

Missing = Callable[[str, str], None]
MESSAGES = 36


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def systems(stack: ExitStack) -> str:
    return stack.enter_context(running_sandbox())


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_the_deliveries_and_make_each_once_in_order(
    tmp_path: Path, stack: ExitStack, systems: str, workers: int
) -> None:
    # One at a time: what one worker is at leaves the rest to the others.
    relay = Relay(tmp_path, systems=systems, common=COMMON + ", concurrency: 1")
    stack.callback(relay.stop)
    relay.start("web")
    for number in range(workers):
        relay.start("work", name=f"work-{number}")
    messages = [
        message(
            f"m-{workers}-{number}",
            conversation=number % 6,
            type="SMS_REPLY" if number % 6 == 0 else "SMS_RECEIVED",
        )
        for number in range(MESSAGES)
    ]
    with ThreadPoolExecutor(4) as senders:
        assert {each.status_code for each in senders.map(relay.post, messages)} == {200}

    relay.settle()

    records = requests.get(systems + "/records", timeout=10).json()
    evidence = collect(relay, records, acknowledged=[each["messageId"] for each in messages])
    assert violations(evidence) == []
    assert all(len(set(names)) == len(names) for names in evidence.effects.values())
    assert len(_column(relay, schema.attempts.c.node)) > 1


def _column(relay: Relay, column: sa.Column[Any], *where: sa.ColumnElement[bool]) -> set[Any]:
    with closing(connect(f"sqlite:///{relay.store}")) as database, database.reading() as db:
        return set(db.scalars(sa.select(column).where(*where)))


def _cards(relay: Relay, name: str) -> DeliveryView:
    [found] = [each for each in relay.event(name).deliveries if each.destination == "front-desk"]
    return found


@pytest.mark.slow
def test_a_worker_that_hung_cannot_overwrite_what_the_winner_recorded(
    tmp_path: Path, stack: ExitStack, systems: str, missing: Missing
) -> None:
    try:
        clock = MachineClock(tmp_path)
    except NoCompiler as error:
        missing("cc", str(error))
    proxy = Proxy(systems, {"teams": {1: Fault.HANG_AFTER_ACTING}})
    # The deadline is longer than it takes to make a worker hang, on a busy machine too.
    patient = COMMON.replace("deadline: 6s", "deadline: 15s")
    relay = Relay(tmp_path, systems=stack.enter_context(running(proxy)), common=patient)
    stack.callback(relay.stop)
    relay.start("web", environ=clock.environ)
    workers = [
        relay.start("work", name=f"work-{number}", environ=clock.environ) for number in (1, 2)
    ]
    assert relay.post(message("m1")).status_code == 200
    assert relay.post(message("m2")).status_code == 200
    eventually(lambda: proxy.met[Fault.HANG_AFTER_ACTING])
    card = schema.deliveries.c.destination == "front-desk"
    [node] = _column(relay, schema.deliveries.c.node, card, schema.IN_FLIGHT)

    # Its threads and its heartbeat stand still; its lease runs out when a minute has passed.
    hung = workers[int(node[-1]) - 1]
    # Not in the middle of a write, in which it would hold up everybody until it is killed.
    with lock_file(relay):
        hung.hang()
    clock.put(60)
    relay.settle()
    won = _column(relay, schema.deliveries.c.ended_at, card)
    hung.go_on()
    # What it found out at last is kept with its own attempt.
    eventually(lambda: "usable answer" in (_cards(relay, "m1").history[0].detail or ""))
    assert relay.post(message("m3")).status_code == 200
    relay.settle()

    assert won < _column(relay, schema.deliveries.c.ended_at, card)
    delivery = _cards(relay, "m1")
    assert delivery.state.value == "delivered"
    first, second = delivery.history
    assert (first.node, first.outcome) == (node, "ambiguous")
    assert (second.node != node, second.outcome, second.repeat) == (True, "delivered", True)
    records = requests.get(systems + "/records", timeout=10).json()
    evidence = collect(relay, records, acknowledged=["m1", "m2", "m3"])
    assert violations(evidence) == []
    assert list(evidence.effects["teams"]) == ["m1", "m1", "m2", "m3"]
