"""Disk full, database locked, file system read-only: nothing acknowledged is lost."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from disks import Ballast, NoMounts, break_down, in_memory, is_released, make_image, on_image
from plan import Fault
from programs import Process, eventually
from proxy import Proxy, running
from stage import PATH, Relay, lock_file, message, running_sandbox

pytestmark = pytest.mark.slow

Missing = Callable[[str, str], None]

#: How long a sender waits for an answer; GoFax does not say, others give 5 to 10 s.
SENDERS_PATIENCE = 10.0
#: The disk is left to fill up to its last byte.
NO_RESERVE = "disk_reserve: 1KiB\n"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def systems(stack: ExitStack) -> str:
    return stack.enter_context(running_sandbox())


def _let_calls_end(systems: str) -> None:
    """Wait until the systems have done what a relay that was killed had asked them for.

    They do not see that their caller is gone, and one that acts after the repetition has looked
    acts twice: docs/reliability.md.
    """
    pause = threading.Event()
    before = None
    while before != (now := [_effects(systems, each) for each in ("hubspot", "zendesk")]):
        before = now
        pause.wait(1)


def _let_calls_end(systems: str) -> None:
    """Wait until the systems have done what a relay that was killed had asked them for.

    They do not see that their caller is gone, and one that acts after the repetition has looked
    acts twice: docs/reliability.md.
    """
    pause = threading.Event()
    before = None
    while before != (now := [_effects(systems, each) for each in ("hubspot", "zendesk")]):
        before = now
        pause.wait(1)


def _effects(systems: str, system: str) -> list[str]:
    records = requests.get(systems + "/records", timeout=10).json()
    return [
        record["text"].partition("[")[2].partition("]")[0]
        for record in records
        if record["system"] == system
    ]


def _states(relay: Relay) -> set[str]:
    return {each.state.value for view in relay.events() for each in view.deliveries}


def _tree(process: Process) -> set[int]:
    return {process.pid, *(each.pid for each in process.descendants())}


def _refused(relay: Relay, name: str) -> bool:
    """Post a message and return whether it was refused, in order, for the moment."""
    answer = relay.post(message(name), timeout=SENDERS_PATIENCE)
    assert answer.status_code in (200, 503), answer.text
    if answer.status_code == 503:
        assert int(answer.headers["Retry-After"]) >= 1
    return answer.status_code == 503


def test_a_full_disk_refuses_senders_loses_nothing_and_mends_by_itself(
    tmp_path: Path, stack: ExitStack, systems: str, missing: Missing
) -> None:
    try:
        disk = stack.enter_context(in_memory(tmp_path / "disk", size="4m"))
    except NoMounts as error:
        missing("mount", str(error))
    proxy = Proxy(systems, {"teams": {2: Fault.SLOW}})
    address = stack.enter_context(running(proxy))
    relay = Relay(tmp_path, systems=address, store=disk / "relay.db", more=NO_RESERVE)
    stack.callback(relay.stop)
    process = relay.start()
    before = _tree(process)
    assert relay.post(message("before")).status_code == 200
    relay.settle()
    ballast = Ballast(disk)

    # The disk fills while a card is being posted: its record finds no room.
    assert relay.post(message("m0")).status_code == 200
    eventually(lambda: proxy.met[Fault.SLOW])
    ballast.fill()
    accepted, refused = {"before", "m0"}, []
    for number in range(1, 400):
        if _refused(relay, f"m{number}"):
            refused.append(f"m{number}")
        else:
            accepted.add(f"m{number}")
        if len(refused) == 5:
            break
        # What was still free in the file's own pages is taken as well.
        ballast.fill()

    assert len(refused) == 5
    assert {view.event.message_id for view in relay.events()} == accepted
    assert requests.get(relay.url + "/livez", timeout=5).status_code == 200
    eventually(lambda: "store.unavailable" in process.said(), said="the worker notices")

    ballast.clear()
    for name in refused:
        eventually(lambda name=name: relay.post(message(name)).status_code == 200)
    relay.settle()

    assert _tree(process) == before, "a process had to be started again"
    everything = [*sorted(accepted), *refused]
    assert _states(relay) == {"delivered"}
    for system in ("hubspot", "zendesk", "teams"):
        assert sorted(_effects(systems, system)) == sorted(everything)


def test_a_relay_started_on_a_full_disk_serves_when_there_is_room_again(
    tmp_path: Path, stack: ExitStack, systems: str, missing: Missing
) -> None:
    try:
        disk = stack.enter_context(in_memory(tmp_path / "disk", size="4m"))
    except NoMounts as error:
        missing("mount", str(error))
    relay = Relay(tmp_path, systems=systems, store=disk / "relay.db", more=NO_RESERVE)
    stack.callback(relay.stop)
    first = relay.start("web")
    assert relay.post(message("before")).status_code == 200
    ballast = Ballast(disk)
    for number in itertools.count():
        ballast.fill()
        if _refused(relay, f"m{number}"):
            break
    accepted = [view.event.message_id for view in relay.events()]
    first.kill()

    relay.start("serve")
    for number in itertools.count():
        # Whoever opens a store may find room in it that the one before had not given back.
        ballast.fill()
        if _refused(relay, f"d{number}"):
            break
    ballast.clear()

    relay.settle()
    stored = [view.event.message_id for view in relay.events()]
    assert set(accepted) <= set(stored)
    assert sorted(_effects(systems, "teams")) == sorted(stored)
    eventually(lambda: relay.post(message("after")).status_code == 200)


def test_below_its_reserve_a_disk_is_kept_for_what_was_acknowledged(
    tmp_path: Path, stack: ExitStack, systems: str, missing: Missing
) -> None:
    try:
        disk = stack.enter_context(in_memory(tmp_path / "disk", size="24m"))
    except NoMounts as error:
        missing("mount", str(error))
    proxy = Proxy(systems, {"teams": {1: Fault.HANG_AFTER_ACTING}})
    address = stack.enter_context(running(proxy))
    reserve = "disk_reserve: 8MiB\n"
    relay = Relay(tmp_path, systems=address, store=disk / "relay.db", more=reserve)
    stack.callback(relay.stop)
    relay.start()
    for number in range(3):
        assert relay.post(message(f"m{number}")).status_code == 200
    eventually(lambda: proxy.met[Fault.HANG_AFTER_ACTING])

    Ballast(disk).fill(leaving=6 << 20)
    # A resend, so that what is accepted before the relay looks at the disk adds nothing.
    eventually(lambda: _refused(relay, "m0"))
    relay.settle()

    assert _refused(relay, "m3"), "what was delivered made no room"
    assert requests.get(relay.url + "/readyz", timeout=5).status_code == 503
    for system in ("hubspot", "zendesk"):
        assert _effects(systems, system) == ["m0", "m1", "m2"]
    assert _effects(systems, "teams") == ["m0", "m0", "m1", "m2"]
    Ballast(disk).clear()
    eventually(lambda: not _refused(relay, "m3"))


def test_a_disk_that_refused_requests_filled_heals_within_half_a_minute(
    tmp_path: Path, stack: ExitStack, systems: str, missing: Missing
) -> None:
    try:
        disk = stack.enter_context(in_memory(tmp_path / "disk", size="48m"))
    except NoMounts as error:
        missing("mount", str(error))
    reserve = "disk_reserve: 12MiB\n"
    relay = Relay(tmp_path, systems=systems, store=disk / "relay.db", more=reserve)
    stack.callback(relay.stop)
    process = relay.start()
    stack.enter_context(_flood(relay))
    # Refused requests leave the disk to events while there is more than the reserve.
    eventually(lambda: (disk / "relay.db").stat().st_size > 16 << 20)
    assert relay.post(message("m0")).status_code == 200

    # Not even with what the write-ahead log takes is this enough.
    Ballast(disk).fill(leaving=7 << 20)
    eventually(lambda: "requests.evicted" in process.said(), patience=20)
    eventually(lambda: not _refused(relay, "m1"), patience=10)

    relay.settle()
    assert sorted(_effects(systems, "hubspot")) == ["m0", "m1"]


@contextmanager
def _flood(relay: Relay) -> Iterator[None]:
    """Post what is not genuine, as large as one is kept, until the end."""
    ended = threading.Event()

    def post() -> None:
        while not ended.is_set():
            with suppress(requests.RequestException):
                requests.post(
                    relay.url + PATH,
                    data=bytes(4096),
                    headers={"Content-Type": "application/json", "X-GoFax-Signature": "0" * 64}
                    | {f"X-{number}": "x" * 1000 for number in range(7)},
                    timeout=5,
                )

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@contextmanager
def _transaction(relay: Relay) -> Iterator[None]:
    """Let a stranger who does not know of our lock file hold the database."""
    with closing(sqlite3.connect(relay.store, isolation_level=None)) as stranger:
        stranger.execute("BEGIN EXCLUSIVE")
        yield
        stranger.execute("ROLLBACK")


@pytest.mark.parametrize("hold", [_transaction, lock_file])
def test_a_locked_database_refuses_senders_in_time_and_loses_nothing(
    tmp_path: Path, stack: ExitStack, systems: str, hold: Callable[[Relay], Any]
) -> None:
    proxy = Proxy(systems, {"teams": {1: Fault.SLOW}})
    relay = Relay(tmp_path, systems=stack.enter_context(running(proxy)))
    stack.callback(relay.stop)
    process = relay.start()
    before = _tree(process)
    assert relay.post(message("m1")).status_code == 200
    eventually(lambda: proxy.met[Fault.SLOW])

    started = time.monotonic()
    with hold(relay):
        refused = _refused(relay, "m2")
        seconds = time.monotonic() - started
        assert {view.event.message_id for view in relay.events()} == {"m1"}

    assert refused
    assert seconds < SENDERS_PATIENCE
    eventually(lambda: relay.post(message("m2")).status_code == 200)
    relay.settle()
    assert _tree(process) == before, "a process had to be started again"
    for system in ("hubspot", "zendesk", "teams"):
        assert _effects(systems, system) == ["m1", "m2"]


def test_a_receiver_that_is_started_again_while_the_store_is_locked_refuses_senders(
    relay: Relay,
) -> None:
    process = relay.start("web")
    [worker] = [each for each in process.descendants() if not each.children()]

    with lock_file(relay):
        worker.kill()
        eventually(lambda: not worker.is_running())
        eventually(lambda: relay.answers() or "Traceback" in process.said())

        assert "Traceback" not in process.said()
        assert _refused(relay, "m1")

    eventually(lambda: not _refused(relay, "m1"))


def test_a_file_system_that_breaks_keeps_what_was_acknowledged(
    tmp_path: Path, stack: ExitStack, systems: str, missing: Missing
) -> None:
    image, at = tmp_path / "image", tmp_path / "disk"
    relay = Relay(tmp_path, systems=systems, store=at / "relay.db", more=NO_RESERVE)
    stack.callback(relay.stop)
    acknowledged = set()
    try:
        make_image(image, megabytes=16)
        with on_image(image, at):
            process = relay.start()
            before = _tree(process)
            sending = threading.Event()

            def send() -> None:
                for number in itertools.count():
                    if sending.is_set():
                        return
                    if not _refused(relay, f"m{number}"):
                        acknowledged.add(f"m{number}")

            sender = threading.Thread(target=send)
            sender.start()
            eventually(lambda: len(acknowledged) > 20)
            # What is answered while it breaks hangs on what ext4 says of a sync just then.
            promised = set(acknowledged)
            break_down(at)
            eventually(lambda: _refused(relay, "during"))
            sending.set()
            sender.join()
            eventually(lambda: "store.unavailable" in process.said())
            assert requests.get(relay.url + "/livez", timeout=5).status_code == 200
            assert _tree(process) == before, "a process had to be started again"
            process.kill()
    except NoMounts as error:
        missing("mount", str(error))

    # Only a new mount makes the disk usable again; then the relay goes on where it was.
    eventually(lambda: is_released(image))
    _let_calls_end(systems)
    _let_calls_end(systems)
    at.rmdir()
    with on_image(image, at):
        process = relay.start()
        relay.settle()
        stored = {view.event.message_id for view in relay.events()}
        relay.stop()

    assert promised <= stored
    for system in ("hubspot", "zendesk"):
        assert sorted(_effects(systems, system)) == sorted(name for name in stored if name)
    assert stored <= set(_effects(systems, "teams"))
