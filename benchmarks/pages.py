"""Measure the console: how long its pages take on a store of any size, and what viewers cost.

    python benchmarks/pages.py --config FILE [--rounds 40] [--rate 200] [--viewers 10]

Starts ``gofax-relay web`` with the config FILE, whose store fill.py has filled and whose first
endpoint says ``allow_unsigned: true``. While events come in at --rate a second, each page is asked
for --rounds times over loopback: the time is from the request to the last byte. Then so many
viewers look at pages that renew themselves, and the CPU time of the process that serves them is
compared with that of the same time without viewers. Last, as many events as it takes are sent,
in windows with viewers and without. Every event that was answered 200 has to be in the store.

``scale.py --tables --pages`` compares the pages on stores of two sizes.
"""

from __future__ import annotations

import argparse
import html
import itertools
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests
import rig
import sqlalchemy as sa
import yaml

from relay.config.installed import find
from relay.config.load import load
from relay.store import connect, schema

PASSWORD = "a password for benchmarks"  # noqa: S105
#: Seconds between two renewals of a page.
RENEWED = 5.0
WATCHED = ("/console/", "/console/destinations", "/console/stopped")


class Relay:
    """A receiver with its console, on ports of their own."""

    def __init__(self, config: Path) -> None:
        said = yaml.safe_load(config.read_text())
        self.public, self.inner = _free_port(), _free_port()
        said["server"] = {"listen": f"127.0.0.1:{self.public}"}
        said["admin"] = {"listen": f"127.0.0.1:{self.inner}"}
        self.path = said["endpoints"][0]["path"]
        self.config = config.with_name(f"benchmark-{self.public}.yaml")
        self.config.write_text(yaml.safe_dump(said))
        self.process: psutil.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "relay.cli", "web", "--config", str(self.config)]
        with self.config.with_suffix(".log").open("wb") as log:
            self.process = psutil.Popen(command, stdout=log, stderr=log)
        for port in (self.public, self.inner):
            _await(port)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)
        self.config.unlink()

    def signed_in(self) -> requests.Session:
        """Make an admin and sign in."""
        name = f"benchmark-{time.time_ns()}"
        command = [sys.executable, "-P", "-m", "relay.cli", "users", "add", name,
                   "--role", "admin", "--config", str(self.config)]  # fmt: skip
        link = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        session = requests.Session()
        page = session.get(link, timeout=30)
        token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
        assert token is not None
        fields = {"csrf_token": token[1], "password": PASSWORD, "again": PASSWORD}
        assert session.post(link, data=fields, timeout=30).ok
        return session

    def check_stored(self, names: Iterable[str]) -> None:
        """End the benchmark if an event of these messages is not in the store."""
        store = load(self.config, find_connector=find).store
        with closing(connect(store)) as database, database.reading() as db:
            stored = set(db.scalars(sa.select(schema.events.c.message_id)))
        if lost := set(names) - stored:
            raise SystemExit(f"{len(lost)} events were answered 200 and are not stored")

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.inner}{path}"

    def cpu(self) -> float:
        """Return the CPU seconds of the process that serves the console."""
        assert self.process is not None
        total = 0.0
        for child in self.process.children(recursive=True):
            is_inner = any(
                each.laddr.port == self.inner for each in child.net_connections(kind="tcp")
            )
            if is_inner:
                times = child.cpu_times()
                total += times.user + times.system
        return total


class Sender:
    """Posts events at a rate, or as fast as it can, until it is stopped."""

    _numbers = itertools.count()

    def __init__(self, relay: Relay, *, rate: float | None, threads: int = 16) -> None:
        self._url = f"http://127.0.0.1:{relay.public}{relay.path}"
        self._gap = threads / rate if rate else 0.0
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self.answered: list[str] = []
        self._lock = threading.Lock()
        for number in range(threads):
            self._pool.submit(self._post, number / threads * self._gap)

    def stop(self) -> None:
        self._stop.set()
        self._pool.shutdown()

    def _post(self, wait: float) -> None:
        session = requests.Session()
        due = time.monotonic() + wait
        while not self._stop.wait(max(0.0, due - time.monotonic()) if self._gap else 0):
            number = next(self._numbers)
            name = f"bench-{time.time_ns()}-{number}"
            body = {
                "messageId": name,
                "eventType": "SMS_REPLY",
                "direction": "reply",
                "from": f"+614{number % 10_000_000:08}",
                "to": "+61755500001",
                "messageBody": "Please call me back",
            }
            answer = session.post(self._url, json=body, timeout=30)
            assert answer.ok, answer.text
            with self._lock:
                self.answered.append(name)
            due += self._gap


@contextmanager
def sending(relay: Relay, *, rate: float | None) -> Iterator[Sender]:
    sender = Sender(relay, rate=rate)
    try:
        yield sender
    finally:
        sender.stop()
    relay.check_stored(sender.answered)


@contextmanager
def viewers(relay: Relay, session: requests.Session, number: int) -> Iterator[None]:
    """Let *number* viewers look at pages that renew themselves."""
    stop = threading.Event()

    def look(path: str, wait: float) -> None:
        stop.wait(wait)
        own = requests.Session()
        own.cookies.update(session.cookies)
        while not stop.is_set():
            own.get(relay.url(path), headers={"X-Renews": "1"}, timeout=30)
            stop.wait(RENEWED)

    with ThreadPoolExecutor(max(number, 1)) as pool:
        for index in range(number):
            pool.submit(look, WATCHED[index % len(WATCHED)], RENEWED * index / number)
        try:
            yield
        finally:
            stop.set()


def pages(relay: Relay, session: requests.Session) -> dict[str, str]:
    """Return the pages by name, for an event and a customer that the store has."""
    newest = session.get(relay.url("/console/events"), timeout=60).text
    event = re.search(r"/console/events/(evt_\w+)", newest)
    assert event is not None
    shown = session.get(relay.url(f"/console/events/{event[1]}"), timeout=60).text
    customer = re.search(r"/console/conversations/([^\"?]+)", shown)
    assert customer is not None
    number = html.unescape(customer[1]).replace("%2B", "+")
    return {
        "needs attention": "/console/",
        "events": "/console/events",
        "events of a customer": f"/console/events?customer={number[-6:]}",
        "event": f"/console/events/{event[1]}",
        "conversation": f"/console/conversations/{customer[1]}",
        "search: a number": f"/console/search?q={number[-6:]}",
        "search: words (aim 300 ms)": "/console/search?q=thanks+message",
        "requests": "/console/requests",
        "refused requests": "/console/requests?standing=refused",
        "stopped": "/console/stopped",
        "destinations": "/console/destinations",
        "routes": "/console/routes",
        "settings": "/console/settings",
        "audit log": "/console/settings/audit",
    }


def measure(relay: Relay, session: requests.Session, path: str, rounds: int) -> dict[str, float]:
    taken, size = [], 0
    for _ in range(rounds):
        begun = time.perf_counter()
        answer = session.get(relay.url(path), timeout=60)
        taken.append((time.perf_counter() - begun) * 1e3)
        assert answer.ok, (path, answer.status_code)
        size = len(answer.content)
        time.sleep(0.02)
    taken.sort()
    p95 = taken[max(0, int(len(taken) * 0.95) - 1)]
    return {"p50_ms": statistics.median(taken), "p95_ms": p95, "bytes": size}


CONFIG = """\
server: {{listen: "127.0.0.1:0"}}
store: {store}
endpoints: [{{path: /webhooks/gofax, allow_unsigned: true}}]
destinations: {{crm: {{connector: webhook, url: "https://crm.example.com"}}}}
routes: [{{name: replies, to: [crm]}}]
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A console, somebody signed in, and the pages by name."""

    relay: Relay
    session: requests.Session
    paths: Mapping[str, str]
    #: CPU nanoseconds that a database server has spent for it.
    server: Callable[[], int]

    def taken(self, name: str) -> tuple[float, float]:
        """Ask for a page, and return the milliseconds until it came, and those of CPU."""
        begun = self._spent()
        clock = measure(self.relay, self.session, self.paths[name], 1)["p50_ms"]
        return clock, (self._spent() - begun) / 1e6

    def _spent(self) -> int:
        assert self.relay.process is not None
        return rig.nanoseconds(self.relay.process) + self.server()


def compare(
    stores: Sequence[tuple[str, Callable[[], int]]], *, rounds: int
) -> dict[str, dict[str, float]]:
    """Compare each page on a small filled store and on a large one, which take turns.

    A store is its URL, and what tells its server's CPU time. Returns the median milliseconds of
    both, those of CPU, and the ratios.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        shown = []
        for number, (url, server) in enumerate(stores):
            config = Path(folder) / f"config-{number}.yaml"
            config.write_text(CONFIG.format(store=url))
            relay = Relay(config)
            stack.callback(relay.stop)
            relay.start()
            session = relay.signed_in()
            paths = pages(relay, session)
            shown.append(Shown(relay=relay, session=session, paths=paths, server=server))
        return {name: _compared(shown, name, rounds) for name in shown[0].paths}


def _compared(shown: Sequence[Shown], name: str, rounds: int) -> dict[str, float]:
    taken: list[list[tuple[float, float]]] = [[] for _ in shown]
    # The first two fill caches.
    for number in range(rounds + 2):
        for times, each in zip(taken, shown, strict=True):
            once = each.taken(name)
            if number > 1:
                times.append(once)
    (small, small_cpu), (large, large_cpu) = (
        map(statistics.median, zip(*times, strict=True)) for times in taken
    )
    return {
        "small_ms": round(small, 1), "large_ms": round(large, 1),
        "ratio": round(large / small, 2),
        "small_cpu_ms": round(small_cpu, 1), "large_cpu_ms": round(large_cpu, 1),
        "cpu_ratio": round(large_cpu / small_cpu, 2),
    }  # fmt: skip


def cost(relay: Relay, session: requests.Session, number: int, seconds: float) -> float:
    """Return the share of a core that *number* viewers take."""
    spent = {}
    for watched in (0, number):
        with viewers(relay, session, watched):
            before = relay.cpu()
            time.sleep(seconds)
            spent[watched] = relay.cpu() - before
    return (spent[number] - spent[0]) / seconds


def accepts(
    relay: Relay, session: requests.Session, number: int, *, rounds: int, seconds: float
) -> float:
    """Return accepts/s with *number* viewers as a share of those without."""
    ratios = []
    for _ in range(rounds):
        speed = {}
        for watched in (0, number):
            with viewers(relay, session, watched), sending(relay, rate=None) as sender:
                time.sleep(0.5)
                begun, before = time.perf_counter(), len(sender.answered)
                time.sleep(seconds)
                speed[watched] = (len(sender.answered) - before) / (time.perf_counter() - begun)
        ratios.append(speed[number] / speed[0])
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--viewers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    relay = Relay(given.config)
    relay.start()
    try:
        session = relay.signed_in()
        found = {}
        with sending(relay, rate=given.rate):
            for name, path in pages(relay, session).items():
                found[name] = measure(relay, session, path, given.rounds)
                if not given.json:
                    print(f"{name:28} p50 {found[name]['p50_ms']:7.1f}"
                          f"  p95 {found[name]['p95_ms']:7.1f} ms"
                          f"  {found[name]['bytes'] / 1e3:6.1f} kB")  # fmt: skip
            share = cost(relay, session, given.viewers, given.seconds)
        kept = accepts(relay, session, given.viewers, rounds=5, seconds=4)
    finally:
        relay.stop()
    if given.json:
        print(json.dumps({"pages": found, "viewers_share": share, "accepts_kept": kept}))
    else:
        print(f"{given.viewers} viewers take {share:.1%} of a core")
        print(f"accepts with them / without: {kept:.2f}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await(port: int) -> None:
    ends_at = time.monotonic() + 60
    while time.monotonic() < ends_at:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"nothing listens on port {port}")


if __name__ == "__main__":
    main()
