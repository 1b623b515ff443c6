"""Somebody sets the clock of the machine by an hour: nothing is doubled, nothing waits for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa
from faked import MachineClock, NoCompiler
from plan import Fault
from programs import eventually
from proxy import Proxy, running
from stage import Relay, message, running_sandbox

from relay.store import connect, schema

pytestmark = pytest.mark.slow

Missing = Callable[[str, str], None]
HOUR = 3600
#: Seconds within which everything goes on after a jump; an hour is more.
SOON = 20.0
#: The deadline is longer than a test holds a call.
COMMON = "retry: {schedule: [1s, 2s]}, rate: 1000/1s, deadline: 50s"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def clock(tmp_path: Path, missing: Missing) -> MachineClock:
    try:
        return MachineClock(tmp_path)
    except NoCompiler as error:
        missing("cc", str(error))
        raise


@pytest.fixture
def systems(stack: ExitStack) -> str:
    return stack.enter_context(running_sandbox())


def _relay(folder: Path, stack: ExitStack, proxy: Proxy) -> Relay:
    address = stack.enter_context(running(proxy))
    relay = Relay(folder, systems=address, common=COMMON)
    stack.callback(relay.stop)
    return relay


def _effects(systems: str, system: str) -> list[str]:
    records = requests.get(systems + "/records", timeout=10).json()
    named = [each["text"].partition("[")[2].partition("]")[0] for each in records]
    return [name for name, each in zip(named, records, strict=True) if each["system"] == system]


def _leases(relay: Relay) -> set[datetime]:
    """Return until when claims are held now."""
    table = schema.deliveries.c
    wanted = sa.select(table.lease_until).where(schema.IN_FLIGHT)
    with closing(connect(f"sqlite:///{relay.store}")) as database, database.reading() as db:
        return set(db.scalars(wanted))


def _await_renewals(relay: Relay, *, seconds: float) -> None:
    """Wait until the one lease has been renewed for so long, and no other was taken."""
    pause, started, seen = threading.Event(), time.monotonic(), _leases(relay)
    while time.monotonic() - started < seconds:
        seen |= _leases(relay)
        pause.wait(0.2)
    assert len(seen) > 1, "the lease was not renewed"


@pytest.mark.slow
@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_leases_and_waits_survive_a_clock_that_is_put(
    tmp_path: Path, stack: ExitStack, systems: str, clock: MachineClock, jump: int
) -> None:
    faults = {"teams": {1: Fault.HELD}, "hubspot": {1: Fault.ERROR, 2: Fault.ERROR}}
    proxy = Proxy(systems, faults)
    relay = _relay(tmp_path, stack, proxy)
    relay.start("web", environ=clock.environ)
    for number in (1, 2):
        relay.start("work", name=f"work-{number}", environ=clock.environ)
    assert relay.post(message("m1")).status_code == 200
    eventually(lambda: proxy.met[Fault.HELD] and proxy.met[Fault.ERROR])

    clock.put(jump)
    assert relay.post(message("m2", conversation=1)).status_code == 200
    for system in ("hubspot", "zendesk"):
        eventually(
            lambda system=system: sorted(_effects(systems, system)) == ["m1", "m2"], patience=SOON
        )

    # Longer than the other worker looks at a lease that seems to have run out.
    _await_renewals(relay, seconds=15)
    assert relay.post(message("m3")).status_code == 200
    proxy.release.set()
    relay.settle(patience=SOON)

    assert sorted(_effects(systems, "teams")) == ["m1", "m2", "m3"], "a card was posted twice"
    attempts = {each.destination: len(each.history) for each in relay.event("m1").deliveries}
    assert attempts["front-desk"] == 1
    for view in relay.events():
        assert abs((view.event.received_at - datetime.now(UTC)).total_seconds()) < 2 * HOUR


def test_what_waits_for_a_clock_that_was_wrong_goes_on_after_a_restart(
    tmp_path: Path, stack: ExitStack, systems: str, clock: MachineClock
) -> None:
    relay = _relay(tmp_path, stack, Proxy(systems, {}))
    clock.put(HOUR)
    relay.start("web", environ=clock.environ).kill()
    web = relay.start("web", environ=clock.environ)
    assert relay.post(message("m1")).status_code == 200
    web.kill()

    clock.put(0)
    relay.start("web", environ=clock.environ)
    relay.start("work", environ=clock.environ)
    assert relay.post(message("m2")).status_code == 200
    relay.settle(patience=SOON)

    for system in ("hubspot", "zendesk", "teams"):
        assert _effects(systems, system) == ["m1", "m2"]


def test_a_failed_attempt_of_a_time_that_was_wrong_is_made_again_after_a_restart(
    tmp_path: Path, stack: ExitStack, systems: str, clock: MachineClock
) -> None:
    proxy = Proxy(systems, {"teams": {1: Fault.THROTTLE}, "hubspot": {1: Fault.ERROR}})
    relay = _relay(tmp_path, stack, proxy)
    clock.put(HOUR)
    relay.start("web", environ=clock.environ)
    worker = relay.start("work", environ=clock.environ)
    assert relay.post(message("m1")).status_code == 200

    def attempted() -> bool:
        said = [json.loads(line) for line in worker.said().splitlines()]
        outcomes = {(each.get("destination"), each.get("outcome")) for each in said}
        return outcomes >= {("front-desk", "throttled"), ("crm", "transient")}

    eventually(attempted)
    worker.kill()

    clock.put(0)
    relay.start("work", environ=clock.environ)
    relay.settle(patience=SOON)

    assert _effects(systems, "teams") == _effects(systems, "hubspot") == ["m1"]
