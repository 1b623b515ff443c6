"""Compare gofax-relay with what a team would write by hand: cost, and what kill -9 loses.

    python benchmarks/baselines/compare.py [--quick] [--json] [--flows relay,webhook]

Each flow takes signed events, answers 200, and posts them to a stand-in. First it gets events at
a steady rate: the CPU time of all its processes, and the bytes that are left on disk after a clean
stop, are extrapolated to a million events. Then, each time from the beginning, all its processes
are killed while events come in, and started again. When nothing arrives any more, the events that
were answered 200 are compared with those that the stand-in was given.

Kills leave the kernel alone: what it was given to write is on disk later. A power cut is worse.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

sys.path.insert(0, str(Path(__file__).parents[1]))

import flows
import rig
from flows import FLOWS, SECRET, Flow
from stand_in import StandIn

#: Senders that wait for an answer at the same time.
SENDERS = 32
MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a million events would take, by what *events* took."""

    events: int
    cpu_seconds: float
    disk_mb: float
    log_mb: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """What became of the events that were answered 200 before everything was killed."""

    answered: int
    #: Never came, and wait nowhere.
    lost: int
    #: Wait in the store for their next attempt, or in Redis for Celery's visibility time-out,
    #: which is an hour.
    late: int
    #: Came more than once, or came and still wait to come again.
    twice: int


#: The kills by name: which processes are spared, and whether the destination is away until
#: everything is started again.
KILLS = {
    "all": {"spared": (), "away": False},
    "all but Redis": {"spared": ("redis",), "away": False},
    "all, destination away": {"spared": (), "away": True},
    "all but Redis, destination away": {"spared": ("redis",), "away": True},
}


def cost(flow: Flow, options: argparse.Namespace) -> Cost:
    """Give *flow* events at the rate, and return what they took."""
    with bench(flow, options, latency=0.0) as (running, stand_in):
        disk, log = running.sizes()
        before = running.cpu_seconds()
        answered = send(running.url, rate=options.rate, count=options.events)
        settle(running, stand_in, answered, patience=options.patience)
        spent = running.cpu_seconds() - before
        running.stop()
        disk, log = (now - then for now, then in zip(running.sizes(), (disk, log), strict=True))
        if lost := answered - set(stand_in.received()):
            raise SystemExit(f"{flow.name}: {len(lost)} events did not arrive, without any kill")
    each = MILLION / len(answered)
    return Cost(
        events=len(answered),
        cpu_seconds=round(spent * each),
        disk_mb=round(disk * each / 1e6),
        log_mb=round(log * each / 1e6),
    )


def kill(flow: Flow, options: argparse.Namespace, *, spared: Sequence[str], away: bool) -> Kill:
    """Kill all processes of *flow* but the *spared* when half of the events are answered."""
    with bench(flow, options, latency=options.latency / 1000) as (running, stand_in):
        stand_in.away(away)
        stop, answered = threading.Event(), set[str]()
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(
                send, running.url, rate=options.rate, count=options.events, stop=stop,
                answered=answered,
            )  # fmt: skip
            ends_at = time.monotonic() + options.patience
            while len(answered) < options.events / 2 and time.monotonic() < ends_at:
                time.sleep(0.01)
            running.kill(spared)
            stop.set()
            sending.result()
        stand_in.away(False)
        running.start()
        settle(running, stand_in, answered, patience=options.patience)
        received, waiting = stand_in.received(), running.waiting()
    missing = answered - set(received)
    again = {name for name, times in received.items() if times > 1 or name in waiting}
    return Kill(
        answered=len(answered),
        lost=len(missing - waiting),
        late=len(missing & waiting),
        twice=len(answered & again),
    )


@contextmanager
def bench(
    flow: Flow, options: argparse.Namespace, *, latency: float
) -> Iterator[tuple[flows.Running, StandIn]]:
    """Start *flow* in a new folder, and a stand-in that it posts to."""
    with (
        tempfile.TemporaryDirectory(prefix="gofax-bench-", ignore_cleanup_errors=True) as name,
        StandIn.running(latency) as stand_in,
    ):
        running = flows.Running(flow, Path(name), deliver_to=stand_in.url)
        try:
            running.start()
            yield running, stand_in
        finally:
            running.kill()


def send(
    url: str,
    *,
    rate: float,
    count: int,
    stop: threading.Event | None = None,
    answered: set[str] | None = None,
) -> set[str]:
    """Post *count* events at *rate*, until *stop*; return the messages that got a 200."""
    good: set[str] = set() if answered is None else answered
    local, lock, run = threading.local(), threading.Lock(), time.time_ns()
    begin = time.monotonic()

    def post(number: int) -> None:
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        if stop is not None and stop.is_set():
            return
        if not hasattr(local, "session"):
            local.session = requests.Session()
        name = f"bench-{run}-{number}"
        try:
            answer = local.session.post(url, **_signed(name, number), timeout=30)
        except requests.RequestException:
            return
        if answer.status_code == 200:
            with lock:
                good.add(name)

    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(post, range(count)))
    return good


def _signed(name: str, number: int) -> dict[str, Any]:
    body = json.dumps(
        {
            "eventType": "SMS_REPLY",
            "eventTimestamp": "2025-12-04T00:24:07.112733Z",
            "messageId": name,
            "direction": "reply",
            "from": f"+614{number:08d}",
            "to": "+61700000000",
            "messageBody": "Thanks for your message",
            "metadata": {"accountId": "12345"},
        }
    ).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return {
        "data": body,
        "headers": {"Content-Type": "application/json", "X-GoFax-Signature": signature},
    }


def settle(
    running: flows.Running, stand_in: StandIn, answered: set[str], *, patience: float
) -> None:
    """Wait until all have arrived and none waits, or none has come for as long as *patience*."""
    came, since = -1, time.monotonic()
    while time.monotonic() - since < patience:
        received = stand_in.received()
        if answered <= set(received) and not running.waiting():
            return
        if (now := sum(received.values())) != came:
            came, since = now, time.monotonic()
        time.sleep(0.25)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run every flow that was asked for."""
    found: dict[str, Any] = {}
    for name in options.flows:
        flow = FLOWS[name]
        print(f"… {flow.name}", file=sys.stderr)
        found[name] = {"name": flow.name, "cost": asdict(cost(flow, options)), "kills": {}}
        for which in options.kills:
            how = KILLS[which]
            if how["spared"] and not flow.has_redis:
                continue
            runs = [kill(flow, options, **how) for _ in range(options.rounds)]  # type: ignore[arg-type]
            found[name]["kills"][which] = _summed(runs)
            print(f"  {which}: {found[name]['kills'][which]}", file=sys.stderr)
    return found


def _summed(runs: Sequence[Kill]) -> Mapping[str, int]:
    return {each.name: sum(getattr(run, each.name) for run in runs) for each in fields(Kill)}


def main() -> int:
    options = _options()
    # SIGTERM has to run what stops the servers, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for command in ("redis-server", "webhook", "curl"):
        if shutil.which(command) is None:
            print(f"{command} is needed (Debian: apt-get install redis-server webhook curl)",
                  file=sys.stderr)  # fmt: skip
            return 2
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": sys.version.split()[0],
        "command": re.sub(r"^\S*/benchmarks", "benchmarks", " ".join(sys.argv)),
        "rate": options.rate,
        "events": options.events,
        "latency_ms": options.latency,
        "rounds": options.rounds,
        "load": os.getloadavg()[0],
        "flows": measure(options),
    }
    if options.json:
        print(json.dumps(report, indent=2))
        return 0
    costs = [
        (each["name"], each["cost"]["cpu_seconds"], each["cost"]["disk_mb"],
         each["cost"]["log_mb"])
        for each in report["flows"].values()
    ]  # fmt: skip
    print(f"for a million events, extrapolated from {options.events}:")
    print(rig.table(["", "CPU s", "disk MB", "log MB"], costs))
    kills = [
        (f"{each['name']}: {which}", *found.values())
        for each in report["flows"].values()
        for which, found in each["kills"].items()
    ]
    print(f"\nkill -9 during {options.rate:g} events/s, the destination answering in"
          f" {options.latency:g} ms; {options.rounds} times:")  # fmt: skip
    print(rig.table(["", *(each.name for each in fields(Kill))], kills))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer events, once")
    parser.add_argument("--flows", type=lambda text: text.split(","), default=list(FLOWS))
    parser.add_argument("--kills", type=lambda text: text.split(";"), metavar="NAME;NAME",
                        help="default: all; quick: with the destination there")  # fmt: skip
    parser.add_argument("--events", type=int, help="default: 2000, quick 400")
    parser.add_argument("--rounds", type=int, help="of each kill; default: 3, quick 1")
    parser.add_argument("--rate", type=float, default=100, help="events a second")
    parser.add_argument("--latency", type=float, default=50, help="of the destination, ms")
    parser.add_argument("--patience", type=float, help="seconds without an arrival that are the"
                        " end; default: 45, quick 12")  # fmt: skip
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.kills = options.kills or [
        name for name, how in KILLS.items() if not (options.quick and how["away"])
    ]
    options.events = options.events or (400 if options.quick else 2000)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.patience = options.patience or (12 if options.quick else 45)
    return options


if __name__ == "__main__":
    sys.exit(main())
