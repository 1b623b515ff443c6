"""Posts signed events with ``wrk``, none of them twice, and tells which were answered 200.

Scripts of wrk cannot sign, so the events are signed beforehand.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

SECRET = "benchmark"  # noqa: S105

# Each request is a new event in one of 1,000 conversations. Answers do not come in the order of
# the requests, so each has to name its event.
SCRIPT = """\
local lines = {{}}
for line in io.lines("{requests}") do lines[#lines + 1] = line end
function init(args)
  at = tonumber(args[1])
  answered = io.open(args[2], "w")
end
function request()
  at = at + 1
  local line = lines[at]
  local signature, body = line:sub(1, 64), line:sub(66)
  return wrk.format("POST", "/webhooks/gofax",
    {{["Content-Type"] = "application/json", ["X-GoFax-Signature"] = signature}}, body)
end
function response(status, headers, body)
  local id = status == 200 and body:match('"messageId": ?"([^"]+)"')
  if id then answered:write(id, "\\n") end
end
function done(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""
#: Mean wait of a connection before each request, in milliseconds.
PAUSE = "function delay() return math.random(0, {pause} * 2) end\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The result of a load."""

    count: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    #: The messageIds that answers with 200 named.
    ids: frozenset[str] = field(repr=False)


def missing() -> bool:
    """Say whether the command is not installed."""
    return shutil.which("wrk") is None


def write_load(folder: Path, count: int, *, pause: int = 0) -> Path:
    """Sign *count* events and write the script that posts them one after the other.

    *pause*: for how many milliseconds a connection waits before each, in the mean.
    """
    with (folder / "requests.txt").open("w") as file:
        for number in range(count):
            body = _body(number)
            signature = hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
            file.write(f"{signature} {body}\n")
    script = folder / "load.lua"
    paced = PAUSE.format(pause=pause) if pause else ""
    script.write_text(SCRIPT.format(requests=folder / "requests.txt") + paced)
    return script


def _body(number: int) -> str:
    return json.dumps(
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


def post(
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
    answered = script.with_name(f"answered-{port}.txt")
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url, "--",
         str(first), str(answered)],
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
        ids=frozenset(answered.read_text().split()),
    )
