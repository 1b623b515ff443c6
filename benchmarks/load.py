"""Measure how many requests a second ``gofax-sender load`` signs, and how well it keeps a rate.

Runs the command on one core against a bare server on the other, which answers 200 to all and notes
when each request came: first as fast as it goes, then at lower rates, where the rate seen by the
server is compared with the rate asked for. On a busy machine the CPU time per request says more
than the wall clock.

    python benchmarks/load.py [--count 30000] [--rounds 3] [--connections 32] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from urllib.request import urlopen

CORES = sorted(os.sched_getaffinity(0))
SENDER_CORE, SERVER_CORE = {CORES[0]}, {CORES[-1]}

#: A server that answers as soon as it has found the end of a request.
BARE_SERVER = """\
import asyncio, json, sys, time

arrivals = []
OK = (b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 22\\r\\n\\r\\n"
      b'{"status": "accepted"}')

class Bare(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\\r\\n\\r\\n")) >= 0:
            head = self.buffer[:end].lower()
            if head.startswith(b"get"):
                self.buffer = b""
                return self.tell()
            length = int(head.partition(b"content-length:")[2].partition(b"\\r\\n")[0])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length:]
            arrivals.append(time.monotonic())
            self.transport.write(OK)

    def tell(self):
        seconds = arrivals[-1] - arrivals[0] if len(arrivals) > 1 else 0
        body = json.dumps({"count": len(arrivals), "seconds": seconds}).encode()
        arrivals.clear()
        head = b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n"
        self.transport.write(head % len(body) + body)
        self.transport.close()

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Bare, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()

asyncio.run(main())
"""


def main() -> int:
    options = _options()
    with bare_server() as port:
        report = measure(port, options)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    good = report["fastest"]["answered_per_second"] >= options.at_least
    return 0 if good and report["worst_rate_error"] <= options.within else 1


def measure(port: int, options: argparse.Namespace) -> dict[str, Any]:
    idle = _load(port, options, rate=100, count=1)["cpu_seconds"]
    rounds = [
        _load(port, options, rate=1_000_000, count=options.count, idle=idle)
        for _ in range(options.rounds)
    ]
    fastest = max(rounds, key=lambda each: each["answered_per_second"])
    half = fastest["answered_per_second"] / 2
    paced = [
        _load(port, options, rate=round(rate), count=round(rate * options.seconds), idle=idle)
        for rate in (half / 8, half / 4, half / 2, half)
    ]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {each: version(each) for each in ("aiohttp", "hdrhistogram", "gofax-relay")},
        "python": sys.version.split()[0],
        "command": " ".join(sys.argv),
        "fastest": fastest,
        "rounds": rounds,
        "cpu_us_per_request": statistics.median(each["cpu_us_per_request"] for each in rounds),
        "paced": paced,
        "worst_rate_error": max(each["rate_error"] for each in paced),
    }


def _load(
    port: int, options: argparse.Namespace, *, rate: int, count: int, idle: float = 0.0
) -> dict[str, Any]:
    command = [
        *(sys.executable, "-m", "sender", "load", "--json", "--secret", "benchmark"),
        *("--url", f"http://127.0.0.1:{port}/hook", "--store", ":memory:"),
        *("--rate", str(rate), "--count", str(count), "--timeout", "60"),
        *("--connections", str(options.connections)),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, SENDER_CORE),
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, printed.decode()
    measured = json.loads(printed)
    cpu = usage.ru_utime + usage.ru_stime
    with urlopen(f"http://127.0.0.1:{port}/") as answer:
        seen = json.load(answer)
    assert seen["count"] == count, f"{seen['count']} of {count} came"
    came = (count - 1) / seen["seconds"] if count > 1 else 0.0
    return {
        "asked_per_second": rate,
        "came_per_second": round(came, 1),
        "answered_per_second": round(measured["answered_per_second"], 1),
        "rate_error": round(abs(came - rate) / rate, 4),
        "cpu_seconds": round(cpu, 3),
        "cpu_us_per_request": round((cpu - idle) / count * 1e6, 1),
        "p50_ms": measured["latency_ms"]["50.0"],
        "p99_ms": measured["latency_ms"]["99.0"],
    }


@contextmanager
def bare_server() -> Iterator[int]:
    """Run a server that answers everything, and give its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", BARE_SERVER, str(port)],
        preexec_fn=lambda: os.sched_setaffinity(0, SERVER_CORE),
    )
    try:
        _await(port)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=15)


def _await(port: int) -> None:
    ends_at = time.monotonic() + 15
    while time.monotonic() < ends_at:
        try:
            urlopen(f"http://127.0.0.1:{port}/").close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nothing answers on port {port}")


def _print(report: Mapping[str, Any]) -> None:
    print(f"{report['date']}  python {report['python']}  {report['versions']}")
    rows: Sequence[Mapping[str, Any]] = [*report["rounds"], *report["paced"]]
    columns = ("asked_per_second", "came_per_second", "rate_error", "cpu_us_per_request",
               "p50_ms", "p99_ms")  # fmt: skip
    print("".join(f"{each:>20}" for each in columns))
    for row in rows:
        print("".join(f"{row[each]:>20,}" for each in columns))
    fastest = report["fastest"]["answered_per_second"]
    print(
        f"fastest: {fastest:,.0f} answered a second, {report['cpu_us_per_request']} µs of CPU each"
    )
    print(f"at up to half of that, the rate was met within {report['worst_rate_error']:.2%}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each paced run")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--at-least", type=float, default=3000, help="exit 1 below this rate")
    parser.add_argument("--within", type=float, default=0.02, help="exit 1 beyond this error")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
