"""What strangers and failing processes do to a receiver that has no proxy in front of it."""

from __future__ import annotations

import fcntl
import os
import random
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import psutil
import pytest
from gofax import EXAMPLE
from hostility import ENDLESS, REQUESTS, attack
from processes import Relay
from programs import Process, eventually

from relay.processes.web import LOOK_AT_RECEIVER

HEAD = b"POST /webhooks/gofax HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


def _connect(
    relay: Relay, stack: ExitStack, sent: bytes, *, source: str = "127.0.0.1"
) -> socket.socket:
    address = ("127.0.0.1", relay.port)
    made = stack.enter_context(socket.create_connection(address, 10, (source, 0)))
    if relay.ca is not None and sent:
        trust = ssl.create_default_context(cafile=str(relay.ca))
        made = stack.enter_context(trust.wrap_socket(made, server_hostname="127.0.0.1"))
    made.sendall(sent)
    return made


def _post_takes(relay: Relay, name: str) -> float:
    began = time.monotonic()
    answer = relay.post({**EXAMPLE, "messageId": name})
    assert answer.status_code == 200
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(ENDLESS, id="HTTP/2 without an end"),
        pytest.param(b"", id="silence"),
        pytest.param(b"POST /webhooks/gofax HT", id="half a head"),
    ],
)
def test_more_connections_than_threads_hold_nobody_up(
    relay: Relay, stack: ExitStack, sent: bytes
) -> None:
    relay.start()
    _post_takes(relay, "before")

    for _ in range(1100):
        _connect(relay, stack, sent)

    assert max(_post_takes(relay, f"meanwhile-{number}") for number in range(5)) < 1


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", pytest.param("https", marks=pytest.mark.long)])
def test_slow_bodies_from_fifty_addresses_hold_nobody_up(
    relay: Relay, stack: ExitStack, scheme: str
) -> None:
    if scheme == "https":
        relay.encrypt()
    relay.start()
    _post_takes(relay, "before")
    body = b"X-GoFax-Signature: " + b"0" * 64 + b"\r\nContent-Length: 500\r\n\r\n{"

    slow = [
        _connect(relay, stack, HEAD + body, source=f"127.0.0.{2 + number % 50}")
        for number in range(1500)
    ]

    for number in range(5):
        assert _post_takes(relay, f"meanwhile-{number}") < 1
        for each in slow:
            with suppress(OSError):
                each.send(b" ")
    # Every address has its share, and is answered at once beyond it.
    assert 50 <= sum(map(_is_open, slow)) <= 500


def _is_open(made: socket.socket) -> bool:
    """Return whether nothing came of a connection yet, neither an answer nor its end."""
    made.setblocking(False)
    try:
        # TLS has no look ahead.
        made.recv(1, 0 if isinstance(made, ssl.SSLSocket) else socket.MSG_PEEK)
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    return False


@pytest.mark.slow
def test_a_head_that_is_too_large_is_refused(relay: Relay, stack: ExitStack) -> None:
    relay.start()

    made = _connect(relay, stack, HEAD + b"X-Filler: " + b"f" * 40_000 + b"\r\n\r\n")

    assert b" 431 " in made.recv(200)


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [b'5\r\n{"mes', b'11\r\n{"messageId":"m"}'])
def test_a_chunked_body_is_not_taken_where_nothing_is_signed(
    relay: Relay, stack: ExitStack, chunks: bytes
) -> None:
    config = relay.config.read_text()
    unsigned = "  - {path: /open, allow_unsigned: true}\n"
    relay.config.write_text(config.replace("destinations:\n", unsigned + "destinations:\n", 1))
    relay.start()
    head = HEAD.replace(b"/webhooks/gofax", b"/open")

    made = _connect(relay, stack, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    made.shutdown(socket.SHUT_WR)

    assert b" 411 " in made.recv(200)
    assert relay.listed("events") == []


@pytest.mark.slow
def test_a_receiver_that_answers_no_more_is_replaced(relay: Relay) -> None:
    process = relay.start()
    _post_takes(relay, "before")
    receiver = _receiver(process.pid)

    # One that has never answered has longer, to start.
    time.sleep(2 * LOOK_AT_RECEIVER)

    receiver.send_signal(signal.SIGSTOP)

    eventually(lambda: f'"pid":{receiver.pid},' in _lines(process, "receiver.silent"), patience=10)
    eventually(relay.answers)
    _post_takes(relay, "after")
    assert not receiver.is_running()
    assert process.code is None


def _receiver(pid: int) -> psutil.Process:
    """Return the process that receives, which is the first child of ``serve``."""
    return psutil.Process(pid).children()[0]


def _lines(process: Process, event: str) -> str:
    return "\n".join(line for line in process.said().splitlines() if f'"{event}"' in line)


@pytest.mark.slow
def test_a_log_that_nobody_reads_holds_up_neither_senders_nor_the_end(relay: Relay) -> None:
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "relay.cli", "serve", "--config", str(relay.config)]
    with subprocess.Popen(command, stderr=writes, cwd=relay.folder) as process:
        try:
            eventually(relay.answers)
            took = [_post_takes(relay, f"unread-{number}") for number in range(50)]
            assert not select.select([], [writes], [], 0)[1], "there is room in the pipe"

            process.terminate()
            began = time.monotonic()
            assert process.wait(30) == 0
        finally:
            process.kill()
            os.close(reads)
            os.close(writes)

    assert time.monotonic() - began < 10
    assert max(took) < 1


@pytest.mark.slow
def test_no_core_file_is_written() -> None:
    code = (
        "import ctypes; from relay.processes.process import write_no_core_files\n"
        "write_no_core_files(); print(ctypes.CDLL(None).prctl(3))"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout == "0\n"


def _attacked(relay: Relay, count: int, *, seed: int) -> list[float]:
    """Send *count* hostile requests; return how long an honest post a second took meanwhile."""
    rng = random.Random(seed)
    names = list(REQUESTS) * (count // len(REQUESTS) + 1)
    took = []
    with ThreadPoolExecutor(24) as strangers:
        begun = [
            strangers.submit(attack, relay.port, name, random.Random(rng.random()))
            for name in names[:count]
        ]
        while not all(each.done() for each in begun):
            began = time.monotonic()
            took.append(_post_takes(relay, f"honest-{seed}-{len(took)}"))
            time.sleep(max(0.0, began + 1 - time.monotonic()))
    for each in begun:
        each.result()
    return took


def _memory(pid: int) -> float:
    """Return the MB of a process and those below it; what they share counts once if we may see."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    try:
        return sum(each.memory_full_info().pss for each in processes) / 1e6
    except psutil.AccessDenied:
        return sum(each.memory_info().rss for each in processes) / 1e6


def _disk(relay: Relay) -> float:
    """Return the MB of the store's files and of the log."""
    files = [*relay.folder.glob("relay.db*"), relay.folder / "serve.log"]
    return sum(each.stat().st_size for each in files) / 1e6


@pytest.mark.slow
@pytest.mark.long
def test_two_thousand_hostile_requests_hold_no_honest_one_up(relay: Relay) -> None:
    process = relay.start()
    _post_takes(relay, "before")
    receiver = _receiver(process.pid)
    # Threads, caches and the store's files grow to their size.
    _attacked(relay, 500, seed=1)
    relay.settled()
    memory, disk = _memory(process.pid), _disk(relay)

    took = _attacked(relay, 2000, seed=2)

    relay.settled()
    grown = (_memory(process.pid) - memory, _disk(relay) - disk)
    assert len(took) > 10
    assert max(took) < 1
    assert grown[0] < 10, f"{memory:.1f} MB of memory, {grown[0]:+.1f}"
    # The ring of refused requests fills up.
    assert grown[1] < 30, f"{disk:.1f} MB on disk, {grown[1]:+.1f}"
    assert receiver.is_running()
    # That strangers knock is a problem that is told; it is no error of the relay.
    errors = [line for line in process.said().splitlines() if '"level":"error"' in line]
    assert [line for line in errors if '"event":"problem.opened"' not in line] == []
