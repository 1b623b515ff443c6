"""Measure how soon commands and the relay answer, and how much memory the relay holds.

Runs the real commands, each round in a new folder: wall and CPU seconds of ``--version`` and of
``events`` on a small store, and from the start of ``serve`` to the first 200; PSS of all processes
of ``serve`` when idle, without and with the admin pages. Figures are medians. Then one ``serve``
gets many events, all of which must reach a stand-in, and the PSS is taken before, half-way and
after.

    python benchmarks/serve.py [--rounds 5] [--events 1000000] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import requests
import rig
from load import bare_server

SECRET = "benchmark"
#: Seconds after which a relay that gets nothing counts as idle.
SETTLED = 4.0
#: Events of the small store.
FEW = 100
#: Events after which a fresh relay has made what it keeps: threads, connections, caches.
WARM = 2000

CONFIG = """\
server: {{listen: "127.0.0.1:{port}"}}
admin: {admin}
store: sqlite:///relay.db
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints: [{{path: /webhooks/gofax, signing_secrets: [{secret}]}}]
destinations:
  crm: {destination}
routes: [{{name: all, to: [crm]}}]
"""
HUBSPOT = '{{connector: hubspot, access_token: x, base_url: "{at}/hubspot", rate: 1000/1s}}'
WEBHOOK = '{{connector: webhook, url: "{at}/", rate: null, concurrency: 32}}'


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What something took."""

    seconds: float
    cpu: float


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
    """Run everything and return the figures."""
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": sys.version.split()[0],
        "command": " ".join(sys.argv),
        "rounds": options.rounds,
    }
    versions, listings, firsts, idle, with_admin = [], [], [], [], []
    sandbox_port = rig.free_port()
    sandbox = f"http://127.0.0.1:{sandbox_port}"
    with rig.command(folder, "sandbox", "--port", str(sandbox_port)):
        rig.await_url(sandbox + "/records")
        for number in range(options.rounds):
            place = folder / f"round-{number}"
            place.mkdir()
            # Twice, because the first one reads files that nobody has read for a while.
            versions += [_run(place, "--version") for _ in range(2)][1:]
            config = _config(place, HUBSPOT.format(at=sandbox))
            with _served(config) as (serve, first):
                firsts.append(first)
                time.sleep(SETTLED)
                idle.append(_pss(serve))
                _send(config, FEW)
                listings += [_run(place, "events", "--config", str(config)) for _ in range(2)][1:]
            place = folder / f"admin-{number}"
            place.mkdir()
            config = _config(place, HUBSPOT.format(at=sandbox), admin=True)
            with _served(config) as (serve, _):
                time.sleep(SETTLED)
                with_admin.append(_pss(serve))
    for what, taken in [("version", versions), ("events", listings), ("first_200", firsts)]:
        report[f"{what}_seconds"] = _median([each.seconds for each in taken], 3)
        report[f"{what}_cpu_seconds"] = _median([each.cpu for each in taken], 3)
    report["idle_pss_mib"] = _median(idle, 1)
    report["idle_pss_with_admin_mib"] = _median(with_admin, 1)
    if options.events:
        place = folder / "many"
        place.mkdir()
        report |= _after_many(place, options.events)
    return report


def _after_many(folder: Path, count: int) -> Mapping[str, Any]:
    """Send *count* events to one relay, and return its PSS on the way."""
    with bare_server() as port:
        config = _config(folder, WEBHOOK.format(at=f"http://127.0.0.1:{port}"))
        with _served(config) as (serve, _):
            # The first event, which showed that the relay was up, has arrived, too.
            arrived = _await_arrivals(port, 1)
            found = []
            for part in (WARM, count // 2 - WARM, count - count // 2):
                _send(config, part)
                arrived += _await_arrivals(port, part)
                time.sleep(SETTLED)
                found.append(_pss(serve))
    return {
        "events": arrived - 1,
        "pss_before_mib": round(found[0], 1),
        "pss_half_way_mib": round(found[1], 1),
        "pss_after_mib": round(found[2], 1),
        "pss_growth": round(found[2] / found[0], 3),
    }


def _await_arrivals(port: int, count: int) -> int:
    """Wait until *count* more requests have reached the stand-in."""
    arrived, last = 0, time.monotonic()
    while arrived < count:
        with urlopen(f"http://127.0.0.1:{port}/") as answer:
            new = json.load(answer)["count"]
        arrived += new
        last = time.monotonic() if new else last
        if time.monotonic() - last > rig.PATIENCE:
            raise SystemExit(f"only {arrived} of {count} events arrived")
        time.sleep(0.5)
    return arrived


def _send(config: Path, count: int) -> None:
    """Have *count* events accepted, as fast as it goes."""
    # The load ends so long after the last one was due, which is at once.
    patience = 60 + count // 100
    command = [sys.executable, "-m", "sender", "load", "--url", _url(config), "--secret", SECRET,
               "--rate", "100000", "--count", str(count), "--timeout", str(patience),
               "--store", str(config.parent / "sender.db")]  # fmt: skip
    sent = subprocess.run(command, capture_output=True, text=True, check=False)
    if sent.returncode:
        raise SystemExit(f"not all were accepted:\n{sent.stdout}{sent.stderr}")


def _run(folder: Path, *arguments: str) -> Taken:
    """Run a command of the relay to its end."""
    command = [sys.executable, "-m", "relay.cli", *arguments]
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {process.returncode}")
    return Taken(seconds=time.monotonic() - began, cpu=used.ru_utime + used.ru_stime)


@contextmanager
def _served(config: Path) -> Iterator[tuple[psutil.Popen, Taken]]:
    """Run ``serve``, and say what it took until the first event was accepted."""
    began = time.monotonic()
    with rig.command(config.parent, "serve", "--config", str(config)) as serve:
        _first_200(_url(config))
        taken = Taken(seconds=time.monotonic() - began, cpu=rig.cpu_seconds(serve))
        yield serve, taken


def _first_200(url: str) -> None:
    """Post until an event is accepted."""
    body = json.dumps(
        {
            "eventType": "SMS_REPLY",
            "messageId": "the-first",
            "direction": "reply",
            "from": "+61400000000",
            "to": "+61700000000",
            "messageBody": "the first of all",
        }
    ).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-GoFax-Signature": signature}
    ends_at = time.monotonic() + 30
    while time.monotonic() < ends_at:
        try:
            if requests.post(url, data=body, headers=headers, timeout=10).ok:
                return
        except (requests.ConnectionError, requests.Timeout):
            time.sleep(0.01)
    raise SystemExit("the relay does not answer")


def _pss(serve: psutil.Process) -> float:
    """Return the MiB that all processes of a relay hold, what they share counted once."""
    processes = [serve, *serve.children(recursive=True)]
    return sum(each.memory_full_info().pss for each in processes) / 2**20


def _config(folder: Path, destination: str, *, admin: bool = False) -> Path:
    inner = f'{{listen: "127.0.0.1:{rig.free_port()}"}}' if admin else "off"
    config = folder / "config.yaml"
    config.write_text(
        CONFIG.format(port=rig.free_port(), secret=SECRET, admin=inner, destination=destination)
    )
    return config


def _url(config: Path) -> str:
    listen = config.read_text().partition('listen: "')[2].partition('"')[0]
    return f"http://{listen}/webhooks/gofax"


def _median(values: Sequence[float], digits: int) -> float:
    return round(statistics.median(values), digits)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, help="0: none; default: a million")
    parser.add_argument("--quick", action="store_true", help="200,000 events")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.events is None:
        options.events = 200_000 if options.quick else 1_000_000
    return options


if __name__ == "__main__":
    sys.exit(main())
