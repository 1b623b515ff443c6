"""Measure what a durable accept costs, beside a view that only verifies the signature.

Starts the real receiver (``gofax-relay web``) and, under the same server with the same settings, a
Flask view that does nothing but check the HMAC and parse the JSON. Both run on one core, the load
(``wrk``) on the other; the rounds alternate, so that other load hits both alike. The figure that
counts is the CPU time per request of each process tree.

    python benchmarks/accept.py [--seconds 5] [--rounds 3] [--connections 64] [--json] [--texts]

With ``--texts`` the rounds alternate with others in which an indexer of texts, on the same core,
keeps up with what comes in: what both take together is told.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
import requests

SECRET = "benchmark"  # noqa: S105
SERVER_CORE, LOAD_CORE = {0}, {min(1, (os.cpu_count() or 1) - 1)}

#: More events than any server here can accept, so that none comes twice as a duplicate.
EVENTS_A_SECOND = 12_000

CONFIG = """\
server: {{listen: "127.0.0.1:{port}"}}
admin: off
store: sqlite:///relay.db
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints: [{{path: /webhooks/gofax, signing_secrets: [{secret}]}}]
destinations: {{chat: {{connector: teams, url: "http://127.0.0.1:9/teams"}}}}
routes: [{{name: replies, when: {{event: SMS_REPLY}}, to: [chat]}}]
"""

VERIFY_ONLY = """\
import hashlib, json, sys
from flask import Flask, request
from granian.constants import Interfaces
from granian.server import Server
from itsdangerous import HMACAlgorithm

app = Flask(__name__)
algorithm = HMACAlgorithm(hashlib.sha256)

@app.post("/webhooks/gofax")
def receive():
    body = request.get_data()
    claimed = bytes.fromhex(request.headers.get("X-GoFax-Signature", ""))
    if not algorithm.verify_signature({secret!r}.encode(), body, claimed):
        return {{"error": "no"}}, 401
    return {{"messageId": json.loads(body)["messageId"]}}

Server("app", address="127.0.0.1", port={port}, interface=Interfaces.WSGI, blocking_threads=512,
       backpressure=1024, websockets=False, log_enabled=False).serve(
    target_loader=lambda: app, wrap_loader=False)
"""

INDEXER = """\
import sys, time
from relay.node import Indexer
from relay.store import connect
from relay.store.texts import Texts

database = connect(sys.argv[1])
Indexer(Texts(database)).start()
for line in sys.stdin:
    lag = Texts(database).lag()
    while lag.newer or lag.older:
        time.sleep(0.1)
        lag = Texts(database).lag()
    print("done", flush=True)
"""

# Each request is a new event in one of 1,000 conversations. It is signed beforehand, because
# scripts of wrk cannot sign.
WRK_SCRIPT = """\
local lines = {{}}
for line in io.lines("{requests}") do lines[#lines + 1] = line end
function init(args) at = tonumber(args[1]) end
function request()
  at = at + 1
  local line = lines[at]
  local signature, body = line:sub(1, 64), line:sub(66)
  return wrk.format("POST", "/webhooks/gofax",
    {{["Content-Type"] = "application/json", ["X-GoFax-Signature"] = signature}}, body)
end
function done(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One load on one server."""

    requests_per_second: float
    cpu_us_per_request: float
    p50_ms: float
    p99_ms: float
    errors: int
    #: Of the CPU time what a process beside the server took.
    beside_us: float = 0.0


def main() -> int:
    options = _options()
    if shutil.which("wrk") is None:
        print("wrk is needed (Debian: apt-get install wrk)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = measure(folder, options)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0 if report["ratio"] >= options.at_least else 1


def measure(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    rounds: dict[str, list[Round]] = {"accept": [], "verify": []}
    if options.texts:
        rounds["indexed"] = []
    share = options.seconds * EVENTS_A_SECOND
    script = write_load(folder, share * options.rounds * len(rounds))
    (folder / "config.yaml").write_text(CONFIG.format(port=_free_port(), secret=SECRET))
    verify_port = _free_port()
    (folder / "verify.py").write_text(VERIFY_ONLY.format(port=verify_port, secret=SECRET))
    accept_port = int(re.search(r":(\d+)\"", (folder / "config.yaml").read_text())[1])
    relay = [sys.executable, "-m", "relay.cli", "web", "--config", str(folder / "config.yaml")]
    with (
        _server(relay, accept_port, folder / "relay.log") as accept,
        _server(
            [sys.executable, str(folder / "verify.py")], verify_port, folder / "v.log"
        ) as verify,
    ):
        memory = _pss(accept)
        for number in range(options.rounds):
            first = number * share
            rounds["verify"].append(_load(script, verify, verify_port, options, first=first))
            # By turns first, because the second of two rounds finds a larger store.
            kinds = ["accept", "indexed"] if options.texts else ["accept"]
            for kind in kinds if number % 2 else kinds[::-1]:
                beside = _indexer(folder / "relay.db") if kind == "indexed" else nullcontext()
                start = first + share * options.rounds * (kind == "indexed")
                with beside as indexer:
                    done = _load(script, accept, accept_port, options, first=start, beside=indexer)
                rounds[kind].append(done)
        stored = _stored(folder / "relay.db")
    middle = {name: _median(each) for name, each in rounds.items()}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {p: version(p) for p in ("flask", "granian", "sqlalchemy", "gofax-relay")},
        "python": sys.version.split()[0],
        "command": " ".join(sys.argv),
        "ratio": round(
            middle["verify"].cpu_us_per_request / middle["accept"].cpu_us_per_request, 3
        ),
        "web_pss_mib": round(memory, 1),
        "stored": stored,
        **_texts_cost(rounds),
        **{name: asdict(each) for name, each in middle.items()},
        "rounds": {name: [asdict(each) for each in all_] for name, all_ in rounds.items()},
    }


def _texts_cost(rounds: Mapping[str, Sequence[Round]]) -> dict[str, float]:
    """Return CPU time and speed beside an indexer, as shares of those in the round without."""
    if "indexed" not in rounds:
        return {}
    pairs = list(zip(rounds["indexed"], rounds["accept"], strict=True))
    cpu = statistics.median(
        one.cpu_us_per_request / other.cpu_us_per_request for one, other in pairs
    )
    speed = statistics.median(
        one.requests_per_second / other.requests_per_second for one, other in pairs
    )
    return {"texts_cpu": round(cpu, 3), "texts_speed": round(speed, 3)}


@contextmanager
def _indexer(store: Path) -> Iterator[psutil.Process]:
    """Run an indexer on the server's core, which has caught up with what is there."""
    command = [sys.executable, "-c", INDEXER, f"sqlite:///{store}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = psutil.Popen(
        command, **pipes, preexec_fn=lambda: os.sched_setaffinity(0, SERVER_CORE)
    )
    try:
        process.stdin.write(b"catch up\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"done\n"
        yield process
    finally:
        process.kill()
        process.wait(timeout=15)


def _load(
    script: Path,
    server: psutil.Process,
    port: int,
    options: argparse.Namespace,
    *,
    first: int = 0,
    beside: psutil.Process | None = None,
) -> Round:
    """Post the prepared events from number *first* on, none of them twice.

    The CPU time of *beside*, another process on the server's core, counts as well.
    """
    before, beside_before = _cpu_seconds(server, beside), _cpu_seconds(beside)
    done = wrk(
        script, port, seconds=options.seconds, connections=options.connections, first=first,
        cores=LOAD_CORE,
    )  # fmt: skip
    cpu = _cpu_seconds(server, beside) - before
    of_beside = _cpu_seconds(beside) - beside_before
    return Round(
        requests_per_second=round(done.count / done.seconds, 1),
        cpu_us_per_request=round(cpu / done.count * 1e6, 1),
        beside_us=round(of_beside / done.count * 1e6, 1),
        p50_ms=done.p50_ms,
        p99_ms=done.p99_ms,
        errors=done.errors,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The result of a load of ``wrk``."""

    count: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int


def wrk(
    script: Path,
    port: int,
    *,
    seconds: int,
    connections: int,
    first: int,
    cores: Collection[int] | None = None,
) -> Load:
    """Post the events of :func:`write_load`, from number *first* on, for some seconds."""
    url = f"http://127.0.0.1:{port}/webhooks/gofax"
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url, "--",
         str(first)],
        capture_output=True, text=True, check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores or os.sched_getaffinity(0)),
    )  # fmt: skip
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    assert found, done.stdout + done.stderr
    count, duration, p50, p99, refused, broken = map(int, found.groups())
    return Load(
        count=count,
        seconds=duration / 1e6,
        p50_ms=p50 / 1000,
        p99_ms=p99 / 1000,
        errors=refused + broken,
    )


#: Mean wait of a connection before each request, in milliseconds.
PAUSE = "function delay() return math.random(0, {pause} * 2) end\n"


def write_load(folder: Path, count: int, *, pause: int = 0) -> Path:
    """Sign *count* events and write the script that posts them one after the other.

    *pause*: for how many milliseconds a connection waits before each, in the mean.
    """
    lines = []
    for number in range(count):
        body = json.dumps(
            {
                "eventType": "SMS_REPLY",
                "eventTimestamp": "2025-12-04T00:24:07.112733Z",
                "messageId": f"bench-{time.time_ns()}-{number}",
                "direction": "reply",
                "from": f"+6140000{number % 1000:04d}",
                "to": "+61700000000",
                "messageBody": "Thanks for your message",
                "metadata": {"accountId": "12345"},
                "signature": "HMAC_SHA256",
            }
        )
        signature = hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
        lines.append(f"{signature} {body}\n")
    (folder / "requests.txt").write_text("".join(lines))
    script = folder / "load.lua"
    paced = PAUSE.format(pause=pause) if pause else ""
    script.write_text(WRK_SCRIPT.format(requests=folder / "requests.txt") + paced)
    return script


@contextmanager
def _server(command: Sequence[str], port: int, log: Path) -> Iterator[psutil.Process]:
    with log.open("w") as stream:
        process = psutil.Popen(
            command,
            stderr=stream,
            stdout=stream,
            preexec_fn=lambda: os.sched_setaffinity(0, SERVER_CORE),
        )
        try:
            _await(port)
            yield process
        finally:
            process.terminate()
            process.wait(timeout=15)


def _await(port: int) -> None:
    ends_at = time.monotonic() + 15
    while time.monotonic() < ends_at:
        try:
            requests.get(f"http://127.0.0.1:{port}/livez", timeout=1)
        except (requests.ConnectionError, requests.Timeout):
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nothing answers on port {port}")


def _stored(path: Path) -> Mapping[str, int]:
    """Count the events, deliveries and duplicates that the accepted requests left."""
    with closing(sqlite3.connect(path)) as db:
        counts = db.execute(
            "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM deliveries),"
            " (SELECT sum(duplicates) FROM keys)"
        ).fetchone()
    return dict(zip(("events", "deliveries", "duplicates"), counts, strict=True))


def _tree(process: psutil.Process) -> Sequence[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _cpu_seconds(*processes: psutil.Process | None) -> float:
    every = [each for process in processes if process is not None for each in _tree(process)]
    return sum(sum(each.cpu_times()[:2]) for each in every)


def _pss(process: psutil.Process) -> float:
    return sum(each.memory_full_info().pss for each in _tree(process)) / 2**20


def _median(rounds: Sequence[Round]) -> Round:
    fields: Mapping[str, float] = {
        name: statistics.median(getattr(each, name) for each in rounds)
        for name in (
            "requests_per_second",
            "cpu_us_per_request",
            "p50_ms",
            "p99_ms",
            "beside_us",
        )  # fmt: skip
    }
    return Round(**fields, errors=sum(each.errors for each in rounds))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _print(report: Mapping[str, object]) -> None:
    print(f"{report['date']}  python {report['python']}  {report['versions']}")
    print(f"{'':8} {'req/s':>8} {'CPU µs/req':>11} {'p50 ms':>8} {'p99 ms':>8} {'errors':>7}")
    for name in ("verify", "accept", *(["indexed"] if "indexed" in report else [])):
        row = report[name]
        print(
            f"{name:8} {row['requests_per_second']:8.0f} {row['cpu_us_per_request']:11.1f} "
            f"{row['p50_ms']:8.1f} {row['p99_ms']:8.1f} {row['errors']:7d}"
        )
    print(f"stored: {report['stored']}")
    if "texts_cpu" in report:
        print(
            f"with an index of texts: CPU × {report['texts_cpu']}, speed ×"
            f" {report['texts_speed']}; the indexer: {report['indexed']['beside_us']:.1f} µs"
        )
    print(
        f"ratio of CPU per request, verify / accept: {report['ratio']}   "
        f"receiver idle: {report['web_pss_mib']} MiB PSS"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--at-least", type=float, default=0.0, help="exit 1 below this ratio")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--texts", action="store_true", help="index texts in further rounds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
