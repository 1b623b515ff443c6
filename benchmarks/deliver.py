"""Measure how fast deliveries are, beside a bare loop of ``requests`` on as many threads.

Fills a store, starts the real ``gofax-relay work`` and counts what a stand-in receives; the bare
loop posts the same bodies to the same stand-in, in turn with the relay, so that other load hits
both alike. Senders are on one core, the stand-in on the other. For each connector and latency of
the stand-in it gives the speed and the CPU time of a delivery, of the whole tree of processes, in
pairs, and the medians; ``cpu_ratio`` is the bare loop's CPU time by the relay's.

    python benchmarks/deliver.py [--events 4000] [--rounds 5] [--threads 32] [--json]
                                 [--connectors webhook,teams] [--latencies 0,50]
    python benchmarks/deliver.py --receipt   time from 2xx to receipt at a steady rate: the median
                                             of rounds; no time if it came before the 2xx was read
    python benchmarks/deliver.py --drain     a backlog of 100,000 while others keep writing
    python benchmarks/deliver.py --hang      beside a destination whose calls hang for 25 s
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import hmac
import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import requests
import rig

from connectors import plain
from connectors.base import Event
from relay import destinations, migrations
from relay.config import installed
from relay.config.load import load
from relay.rules import payload, routing
from relay.rules.routing import Route, When
from relay.store import Inbox, connect
from relay.store.ids import new_id
from relay.store.values import Arrival, Request

SECRET = "benchmark"
SENDER_CORE, STAND_IN_CORE = {0}, {min(1, (os.cpu_count() or 1) - 1)}
#: Milliseconds for which a hanging destination hangs.
HANGS_MS = 25_000

CONFIG = """\
server: {{listen: "127.0.0.1:{port}"}}
admin: off
store: sqlite:///relay.db
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints: [{{path: /webhooks/gofax, signing_secrets: [{secret}]}}]
destinations:
  webhook: {{connector: webhook, url: "{stand_in}/webhook", rate: null, concurrency: {threads}}}
  teams: {{connector: teams, url: "{stand_in}/teams", rate: null, concurrency: {threads}}}
  slow: {{connector: webhook, url: "{stand_in}/slow", rate: null, concurrency: {threads}}}
routes:
  - {{name: webhook, when: {{account: webhook}}, to: [webhook]}}
  - {{name: teams, when: {{account: teams}}, to: [teams]}}
  - {{name: slow, when: {{account: [slow, "12345"]}}, to: [slow]}}
"""
ROUTES = [
    Route(name=name, when=When(account=name), to=(name,))  # type: ignore[arg-type]
    for name in ("webhook", "teams", "slow", "hubspot", "zendesk")
]


class StandIn:
    """Answers 200 after a latency, and remembers when each event came."""

    def __init__(self, port: int, control: Any) -> None:
        self.latency = {"/webhook": 0.0, "/teams": 0.0, "/slow": 0.0}
        self.received: dict[str, float] = {}
        asyncio.run(self._serve(port, control))

    async def _serve(self, port: int, control: Any) -> None:
        os.sched_setaffinity(0, STAND_IN_CORE)
        server = await asyncio.start_server(self._talk, "127.0.0.1", port, backlog=512)
        control.send("ready")
        asyncio.get_running_loop().add_reader(control.fileno(), self._obey, control)
        async with server:
            await server.serve_forever()

    def _obey(self, control: Any) -> None:
        match control.recv():
            case "received":
                control.send(dict(self.received))
            case "count":
                control.send(len(self.received))
            case ("latency", path, seconds):
                self.latency[path] = seconds
                self.received.clear()
                control.send("ok")

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
                body = await reader.readexactly(length)
                if latency := self.latency[head.split(b" ", 2)[1].decode()]:
                    await asyncio.sleep(latency)
                self.received[re.search(rb"bench-[0-9-]+", body)[0].decode()] = time.time()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Bench:
    """One store and one stand-in, and the commands run against them."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        self.threads = threads
        self.port, stand_in = rig.free_port(), rig.free_port()
        self.stand_in = f"http://127.0.0.1:{stand_in}"
        self.config = folder / "config.yaml"
        self.config.write_text(
            CONFIG.format(port=self.port, secret=SECRET, stand_in=self.stand_in, threads=threads)
        )
        self.folder = folder
        self._control, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=StandIn, args=(stand_in, theirs), daemon=True)
        self._process.start()
        assert self._control.recv() == "ready"
        database = connect(f"sqlite:///{folder}/relay.db")
        migrations.upgrade(database)
        self.database = database

    def close(self) -> None:
        self.database.close()
        self._process.terminate()
        self._process.join()

    def latency(self, seconds: float, *, path: str = "/webhook") -> None:
        """Set the stand-in's latency and make it forget its events."""
        self._control.send(("latency", path, seconds))
        self._control.recv()

    def count(self) -> int:
        self._control.send("count")
        return self._control.recv()

    def received(self) -> Mapping[str, float]:
        """Return when each message reached the stand-in."""
        self._control.send("received")
        return self._control.recv()

    def fill(self, count: int, *, conversations: int, account: str = "webhook") -> None:
        """Accept *count* events while no worker runs."""
        inbox = Inbox(self.database)
        with ThreadPoolExecutor(128) as pool:
            for _ in pool.map(
                inbox.accept, (arrival_of(n, n % conversations, account) for n in range(count))
            ):
                pass
        inbox.close()

    @contextmanager
    def command(
        self, *arguments: str, cores: Collection[int] = SENDER_CORE
    ) -> Iterator[psutil.Popen]:
        """Run a command of the relay, by default on the senders' core."""
        command = [sys.executable, "-m", "relay.cli", *arguments, "--config", str(self.config)]
        with (self.folder / f"{arguments[0]}.log").open("a") as log:
            process = psutil.Popen(
                command,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
            try:
                yield process
            finally:
                process.terminate()
                process.wait(timeout=20)

    def until(self, count: int, *, seconds: float) -> None:
        """Wait until *count* messages have reached the stand-in."""
        ends_at = time.monotonic() + seconds
        while (got := self.count()) < count:
            if time.monotonic() > ends_at:
                raise SystemExit(f"only {got} of {count} arrived")
            time.sleep(0.02)


def throughput(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Compare the worker's deliveries with those of a bare loop, connector by connector."""
    report: dict[str, Any] = {}
    for connector in options.connectors.split(","):
        for milliseconds in map(float, options.latencies.split(",")):
            pairs = []
            for _ in range(options.rounds):
                bench.latency(milliseconds / 1000, path=f"/{connector}")
                bare = _bare(bench, options.events, connector)
                bench.latency(milliseconds / 1000, path=f"/{connector}")
                pairs.append((bare, _relayed(bench, options.events, connector)))
            report[f"{connector}, {milliseconds:g} ms"] = compared(pairs)
    return report


@dataclass(frozen=True, slots=True)
class Spent:
    """What deliveries took."""

    per_second: float
    #: Microseconds of CPU time of one.
    cpu: float


def compared(pairs: Sequence[tuple[Spent, Spent]]) -> dict[str, Any]:
    """Return the medians of pairs of a bare loop and the relay, and the pairs."""
    names = ("bare", "relay")
    middle = {
        (name, what): statistics.median(getattr(pair[at], what) for pair in pairs)
        for at, name in enumerate(names)
        for what in ("per_second", "cpu")
    }
    ratios = [bare.cpu / relay.cpu for bare, relay in pairs]
    speeds = [relay.per_second / bare.per_second for bare, relay in pairs]
    return {
        **{f"{name}_per_second": round(middle[name, "per_second"]) for name in names},
        **{f"{name}_cpu_us": round(middle[name, "cpu"]) for name in names},
        "ratio": round(statistics.median(speeds), 2),
        "cpu_ratio": round(statistics.median(ratios), 2),
        "pairs": {
            "ratio": [round(each, 2) for each in speeds],
            "cpu_ratio": [round(each, 2) for each in ratios],
        },
    }


def _relayed(bench: Bench, count: int, connector: str = "webhook") -> Spent:
    bench.fill(count, conversations=count, account=connector)
    with bench.command("work") as process:
        return _spent(bench, count, process)


def _bare(bench: Bench, count: int, connector: str) -> Spent:
    make = _destinations(bench.config)[connector].connector.preview
    events = (event_of(body_of(number, number, connector)) for number in range(count))
    bodies = [_encoded(make(event, key="")[0].content) for event in events]
    context = multiprocessing.get_context("fork")
    done = context.Event()
    address = f"{bench.stand_in}/{connector}"
    process = context.Process(target=_post_all, args=(address, bodies, bench.threads, done))
    process.start()
    try:
        return _spent(bench, count, psutil.Process(process.pid))
    finally:
        done.set()
        process.join()


def _spent(bench: Bench, count: int, process: psutil.Process) -> Spent:
    """Wait for *count* deliveries of *process*, and return what all but the first tenth took."""
    bench.until(count // 10, seconds=120)
    begun, before = bench.count(), rig.cpu_seconds(process)
    bench.until(count, seconds=120)
    # Deliveries are recorded a little after they arrive.
    time.sleep(0.1)
    spent = rig.cpu_seconds(process) - before
    return Spent(_rate(bench.received().values()), spent / (count - begun) * 1e6)


def _post_all(url: str, bodies: Sequence[bytes], threads: int, done: Any) -> None:
    os.sched_setaffinity(0, SENDER_CORE)
    gc.freeze()
    local = threading.local()

    def post(body: bytes) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.trust_env = False
        headers = {"Content-Type": "application/json"}
        local.session.post(url, data=body, headers=headers, timeout=30).raise_for_status()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(post, bodies))
    done.wait()


def _encoded(content: Any) -> bytes:
    return content.encode() if isinstance(content, str) else plain.encode(content)


def _destinations(config: Path) -> Mapping[str, destinations.Destination]:
    """Return the destinations of a config."""
    return destinations.build(load(config, find_connector=installed.find))


def _rate(times: Any) -> float:
    moments = sorted(times)
    # The first tenth is start-up: connections, imports, caches.
    begin = len(moments) // 10
    return (len(moments) - 1 - begin) / (moments[-1] - moments[begin])


def receipt(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the time from a 2xx to the stand-in's receipt, at a steady rate."""
    rounds = []
    for _ in range(options.rounds):
        bench.latency(0.0)
        with bench.command("serve"):
            rig.await_url(f"http://127.0.0.1:{bench.port}/livez")
            answered = _send(bench, rate=options.rate, seconds=options.seconds, first_customer=0)
            bench.until(len(answered), seconds=60)
        rounds.append(_delays(answered, bench.received()))
    middle = {what: statistics.median(each[what] for each in rounds) for what in rounds[0]}
    return {"rate": options.rate, **middle, "rounds": rounds}


def drain(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Let a backlog drain while other conversations keep writing."""
    bench.latency(0.0)
    bench.fill(options.backlog, conversations=1000)
    begun = time.monotonic()
    stop = threading.Event()
    with bench.command("serve"), ThreadPoolExecutor(1) as pool:
        rig.await_url(f"http://127.0.0.1:{bench.port}/livez")
        sending = pool.submit(
            _send, bench, rate=options.rate, seconds=3600, first_customer=500_000, stop=stop
        )
        while bench.count() < options.backlog and time.monotonic() - begun < options.limit:
            time.sleep(0.5)
        drained = time.monotonic() - begun
        stop.set()
        answered = sending.result()
        bench.until(len(answered), seconds=60)
        time.sleep(2)
        received = bench.received()
    missing = [name for name in answered if name not in received]
    return {
        "backlog": options.backlog,
        "rate": options.rate,
        "drained_seconds": round(drained, 1),
        "received": len(received),
        "missing": len(missing),
        **_delays({k: v for k, v in answered.items() if k in received}, received),
    }


def hang(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Compare one destination's throughput alone and beside one that hangs."""
    bench.latency(0.0)
    alone = _relayed(bench, options.events)
    bench.latency(HANGS_MS / 1000, path="/slow")
    bench.fill(options.events, conversations=options.events, account="slow")
    beside = _relayed(bench, options.events)
    return {
        "alone_per_second": round(alone.per_second),
        "beside_a_hanging_one_per_second": round(beside.per_second),
        "ratio": round(beside.per_second / alone.per_second, 2),
    }


def _send(
    bench: Bench,
    *,
    rate: float,
    seconds: float,
    first_customer: int,
    stop: threading.Event | None = None,
) -> Mapping[str, float]:
    """Post at *rate*, each from a new customer, and return when each message was answered."""
    session, answered = requests.Session(), {}
    url = f"http://127.0.0.1:{bench.port}/webhooks/gofax"
    begin = time.monotonic()
    for number in range(int(rate * seconds)):
        if stop is not None and stop.is_set():
            break
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        body = body_of(number, first_customer + number, "webhook")
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "X-GoFax-Signature": signature}
        session.post(url, data=body, headers=headers, timeout=30).raise_for_status()
        answered[json.loads(body)["messageId"]] = time.time()
    return answered


def _delays(answered: Mapping[str, float], received: Mapping[str, float]) -> Mapping[str, Any]:
    delays = sorted(max(0.0, received[name] - at) for name, at in answered.items())
    cuts = statistics.quantiles(delays, n=100)
    return {
        "events": len(delays),
        "p50_ms": round(cuts[49] * 1000, 1),
        "p99_ms": round(cuts[98] * 1000, 1),
        "max_ms": round(delays[-1] * 1000, 1),
    }


def arrival_of(number: int, customer: int, account: str) -> Arrival:
    """Return an event from a customer as the receiver gives it to the store."""
    raw = body_of(number, customer, account)
    now = datetime.now(UTC)
    read = payload.read_json(raw)
    event = event_of(raw)
    return Arrival(
        event=event,
        request=Request(
            id=new_id("req"), at=now, endpoint="bench", method="POST", remote=None, status=200,
            outcome="", reason="benchmark", headers={}, message_id=read.message_id,
        ),
        raw=raw,
        query="",
        format="json",
        key=payload.key(read, raw, endpoint="bench", dedupe_by=("messageId",), query=""),
        meaning=payload.meaning(read),
        match=routing.match(event, ROUTES),
    )  # fmt: skip


def event_of(raw: bytes) -> Event:
    read = payload.read_json(raw)
    return read.event(id=new_id("evt"), endpoint="bench", received_at=datetime.now(UTC))


def body_of(number: int, customer: int, account: str) -> bytes:
    return json.dumps(
        {
            "eventType": "SMS_REPLY",
            "eventTimestamp": "2025-12-04T00:24:07.112733Z",
            "messageId": f"bench-{time.time_ns()}-{number}",
            "direction": "reply",
            "from": f"+614{customer:08d}",
            "to": "+61700000000",
            "messageBody": "Thanks for your message",
            "metadata": {"accountId": account},
        }
    ).encode()


def main() -> int:
    options = _options()
    measure: Callable[[Bench, argparse.Namespace], dict[str, Any]] = throughput
    for other in (receipt, drain, hang):
        if getattr(options, other.__name__):
            measure = other
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), threads=options.threads)
        try:
            found = measure(bench, options)
        finally:
            bench.close()
    rig.report({"threads": options.threads, **found}, as_json=options.json)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5, help="pairs to compare")
    parser.add_argument("--connectors", default="webhook,teams")
    parser.add_argument("--latencies", default="0,50", help="of the stand-in, ms")
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--limit", type=float, default=900, help="longest time of a drain, s")
    parser.add_argument("--receipt", action="store_true")
    parser.add_argument("--drain", action="store_true")
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
