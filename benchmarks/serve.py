"""Measure how soon the relay answers, how much memory it holds, and how soon an event arrives.

Starts the real ``gofax-relay serve`` and the sandbox, again in each round, and measures: seconds
from start to the first 200, PSS of all its processes when idle, and at steady rates of events the
time from each 2xx to its receipt by a stand-in (both on this machine's clock). Prints the medians
of the rounds; an event may arrive before its 2xx was read, which counts as no time.

    python benchmarks/serve.py [--rates 20,50] [--seconds 15] [--rounds 1] [--json]
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import requests
import rig

SECRET = "benchmark"

CONFIG = """\
server: {{listen: "127.0.0.1:{port}"}}
admin: off
store: sqlite:///relay.db
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints: [{{path: /webhooks/gofax, signing_secrets: [{secret}]}}]
destinations:
  flow: {{connector: webhook, url: "{sandbox}/webhook", rate: null}}
routes: [{{name: all, to: [flow]}}]
"""


def main() -> int:
    options = _options()
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            rounds.append(measure(Path(name), options))
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": sys.version.split()[0],
        "command": " ".join(sys.argv),
        **{what: round(statistics.median(each[what] for each in rounds), 2) for what in rounds[0]},
        "rounds": rounds,
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        for what, value in report.items():
            print(f"{what:28} {value}")
    return 0


def measure(folder: Path, options: argparse.Namespace) -> Mapping[str, float]:
    """Run everything once and return the figures."""
    sandbox_port, port = rig.free_port(), rig.free_port()
    sandbox, relay = f"http://127.0.0.1:{sandbox_port}", f"http://127.0.0.1:{port}"
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(port=port, secret=SECRET, sandbox=sandbox))
    with _command(folder, "sandbox", "--port", str(sandbox_port)):
        rig.await_url(sandbox + "/records")
        started = time.monotonic()
        with _command(folder, "serve", "--config", str(config)) as serve:
            _first_200(relay)
            first = time.monotonic() - started
            time.sleep(3)
            pss = sum(p.memory_full_info().pss for p in [serve, *serve.children(recursive=True)])
            found = {"first_200_seconds": round(first, 2), "idle_pss_mib": round(pss / 2**20, 1)}
            for rate in map(float, options.rates.split(",")):
                delays = _delays(sandbox, _send(relay, rate, options.seconds))
                cuts = statistics.quantiles(delays, n=100)
                for name, at in (("p50", 49), ("p99", 98)):
                    found[f"receipt_{name}_ms_at_{rate:g}"] = round(cuts[at] * 1000, 1)
    return found


def _send(relay: str, rate: float, seconds: float) -> Mapping[str, float]:
    """Post at *rate* and return when each text was answered."""
    session, answered = requests.Session(), {}
    begin = time.monotonic()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        text = f"event number {number} at {rate:g}."
        body = _event(number, text)
        answer = session.post(relay + "/webhooks/gofax", data=body, headers=_headers(body))
        answer.raise_for_status()
        answered[text] = time.time()
    return answered


def _delays(sandbox: str, answered: Mapping[str, float]) -> Sequence[float]:
    """Wait until all have arrived, and return the seconds from answer to receipt."""
    ends_at = time.monotonic() + 30
    while True:
        records = requests.get(sandbox + "/records", timeout=30).json()
        received = {
            found[0]: datetime.fromisoformat(record["received_at"]).timestamp()
            for record in records
            if (found := re.search(r"event number \d+ at \d+\.", record["text"]))
        }
        if received.keys() >= answered.keys():
            return [max(0.0, received[text] - at) for text, at in answered.items()]
        if time.monotonic() > ends_at:
            raise SystemExit(f"only {len(received)} of {len(answered)} events arrived")
        time.sleep(0.2)


def _event(number: int, text: str) -> bytes:
    return json.dumps(
        {
            "eventType": "SMS_REPLY",
            "messageId": f"bench-{time.time_ns()}-{number}",
            "direction": "reply",
            "from": f"+6140000{number % 50:04d}",
            "to": "+61700000000",
            "messageBody": text,
        }
    ).encode()


def _headers(body: bytes) -> Mapping[str, str]:
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return {"Content-Type": "application/json", "X-GoFax-Signature": signature}


def _first_200(relay: str) -> None:
    """Post until the first event is accepted."""
    body = _event(0, "the first of all")
    ends_at = time.monotonic() + 30
    while time.monotonic() < ends_at:
        try:
            if requests.post(relay + "/webhooks/gofax", data=body, headers=_headers(body)).ok:
                return
        except (requests.ConnectionError, requests.Timeout):
            time.sleep(0.02)
    raise SystemExit("the relay does not answer")


@contextmanager
def _command(folder: Path, *arguments: str) -> Iterator[psutil.Popen]:
    with (folder / f"{arguments[0]}.log").open("w") as log:
        command = [sys.executable, "-m", "relay.cli", *arguments]
        process = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=15)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="20,50", help="events per second")
    parser.add_argument("--seconds", type=float, default=15, help="for which each rate is kept")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
