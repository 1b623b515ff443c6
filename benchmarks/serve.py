"""Measure how soon the relay answers, how much memory it holds, and how soon an event arrives.

Starts the real ``gofax-relay serve`` and the sandbox and measures: seconds from start to the first
200, PSS of all its processes when idle, and at a steady rate of events the time from each 2xx to
its receipt by a stand-in (both on this machine's clock).

    python benchmarks/serve.py [--rate 20] [--seconds 15] [--json]
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
  crm: {{connector: hubspot, access_token: x, base_url: "{sandbox}/hubspot", rate: 1000/1s}}
routes: [{{name: all, to: [crm]}}]
"""


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        report = measure(Path(name), options)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        for what, value in report.items():
            print(f"{what:28} {value}")
    return 0


def measure(folder: Path, options: argparse.Namespace) -> Mapping[str, Any]:
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
            answered = _send(relay, options.rate, options.seconds)
            delays = _delays(sandbox, answered)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": sys.version.split()[0],
        "command": " ".join(sys.argv),
        "first_200_seconds": round(first, 2),
        "idle_pss_mib": round(pss / 2**20, 1),
        "events": len(delays),
        "rate": options.rate,
        "receipt_p50_ms": round(statistics.median(delays) * 1000, 1),
        "receipt_p99_ms": round(statistics.quantiles(delays, n=100)[98] * 1000, 1),
    }


def _send(relay: str, rate: float, seconds: float) -> Mapping[str, float]:
    """Post at *rate* and return when each text was answered."""
    session, answered = requests.Session(), {}
    begin = time.monotonic()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        text = f"event number {number}."
        body = _event(number, text)
        answer = session.post(relay + "/webhooks/gofax", data=body, headers=_headers(body))
        answer.raise_for_status()
        answered[text] = time.time()
    return answered


def _delays(sandbox: str, answered: Mapping[str, float]) -> Sequence[float]:
    """Wait until all have arrived, and return the seconds from answer to receipt."""
    ends_at = time.monotonic() + 30
    # One more than was answered: the very first event showed that the relay was up.
    while len(records := requests.get(sandbox + "/records", timeout=30).json()) <= len(answered):
        if time.monotonic() > ends_at:
            raise SystemExit(f"only {len(records)} of {len(answered)} events arrived")
        time.sleep(0.2)
    received = {
        text: datetime.fromisoformat(record["received_at"]).timestamp()
        for record in records
        for text in [next((t for t in answered if t in record["text"]), None)]
        if text
    }
    return [max(0.0, received[text] - at) for text, at in answered.items()]


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
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
