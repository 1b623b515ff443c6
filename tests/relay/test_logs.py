"""Log lines: what they look like, and what a failing disk or reader does to all else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relay import logs

NINE = datetime(2026, 11, 28, 9, tzinfo=UTC).timestamp()
#: Logs as the command line of each test says, and says on standard output what it found.
PROGRAM = """
import os, resource, sys, threading, time
import structlog
from relay import logs

logs.configure()
log = structlog.get_logger()

def say(*words):
    print(*words, flush=True)

def flood(count):
    began = time.monotonic()
    for number in range(count):
        log.info("flood.line", number=number, text="x" * 100)
    return time.monotonic() - began
"""


def _run(code: str, *, stderr: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        # Python 3.12 warns of forks beside threads, such as the one that writes the log.
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", PROGRAM + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def _events(text: str) -> list[str]:
    return [json.loads(line)["event"] for line in text.splitlines()]


def _logged(code: str) -> list[dict[str, Any]]:
    process = _run(code, stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return [json.loads(line) for line in err.splitlines()]


def test_a_line_is_json_and_nothing_in_it_is_obeyed_by_a_terminal() -> None:
    process = _run(
        r'log.info("a.b", text="one\u2028two\x85\x9b31m\u202e", id=2**70)', stderr=subprocess.PIPE
    )
    _, err = process.communicate(timeout=60)

    [line] = err.splitlines()
    assert line.isascii()
    assert json.loads(line)["text"] == "one\u2028two\x85\x9b31m\u202e"


def test_a_line_is_no_longer_than_its_limit_and_still_json() -> None:
    [line] = _logged('log.info("a.b", short="s", long="y" * 50_000, deep=["z" * 9000] * 9)')

    assert (line["short"], line["event"]) == ("s", "a.b")
    assert len(line["long"]) < 1000
    assert len(json.dumps(line)) <= logs.LONGEST_LINE


def test_a_forked_child_logs_too() -> None:
    lines = _logged(
        'log.info("parent.before"); logs.flush()\n'
        "pid = os.fork()\n"
        'log.info("child.said" if pid == 0 else "parent.after")\n'
        "logs.flush()\n"
        "os._exit(0) if pid == 0 else os.waitpid(pid, 0)\n"
    )

    assert sorted(line["event"] for line in lines) == [
        "child.said", "parent.after", "parent.before",
    ]  # fmt: skip


def test_lines_come_again_when_a_full_disk_has_room(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("a") as stderr:
        process = _run(
            # A limit of the file's size fails as a full disk does, for this process alone.
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "flood(200); logs.flush(); say('full')\n"
            "sys.stdin.readline()\n"
            'log.info("room.again"); logs.flush()\n'
            'log.info("room.still"); logs.flush()\n',
            stderr=stderr,
        )
    assert process.stdout and process.stdout.readline() == "full\n"
    assert file.stat().st_size <= 4096
    file.write_text("")

    process.communicate("go\n", timeout=60)

    # What was cut is gone, and the line that it was is ended.
    nothing, *said = file.read_text().splitlines()
    lines = [json.loads(line) for line in said]
    assert nothing == ""
    assert [line["event"] for line in lines] == ["room.again", "log.dropped", "room.still"]
    assert 100 < lines[1]["count"] <= 200


def _lines_and_torn(text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the lines that are whole, and those that are not."""
    whole, torn = [], []
    for line in text.splitlines():
        try:
            whole.append(json.loads(line))
        except ValueError:
            torn.append(line)
    return whole, torn


def test_a_line_that_a_full_disk_cut_is_followed_by_a_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("a") as stderr:
        process = _run(
            "limit = lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, -1))\n"
            "limit(4096); flood(200); logs.flush()\n"
            "limit(4097); flood(1); logs.flush()\n"
            "limit(-1)\n"
            'log.info("room.again"); logs.flush()\n',
            stderr=stderr,
        )
    process.communicate(timeout=60)

    whole, torn = _lines_and_torn(file.read_text())

    assert file.read_bytes()[4096:4098] == b"\n{"
    assert [line["number"] for line in whole[:-2]] == list(range(len(whole) - 2))
    assert [line["event"] for line in whole[-2:]] == ["room.again", "log.dropped"]
    assert whole[-1]["count"] == 201 - (len(whole) - 2)
    assert len(torn) == 1


def test_a_line_that_a_full_pipe_cut_is_followed_by_a_line_of_its_own() -> None:
    process = _run(
        "os.set_blocking(2, False)\n"
        "flood(3_000); logs.flush(); say('full')\n"
        "sys.stdin.readline()\n"
        'log.info("room.again"); logs.flush()\n',
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stdout.readline() == "full\n"
    assert process.stdin and process.stderr

    begun = process.stderr.buffer.read1(65_536).decode()  # type: ignore[attr-defined]
    _, rest = process.communicate("go\n", timeout=60)

    whole, torn = _lines_and_torn(begun + rest)
    flooded = [line for line in whole if line["event"] == "flood.line"]
    dropped = sum(line["count"] for line in whole if line["event"] == "log.dropped")
    assert "room.again" in [line["event"] for line in whole]
    assert 0 < len(flooded) < 3000
    assert len(flooded) + dropped == 3000
    assert len(torn) == 1


def test_a_reader_that_goes_away_costs_lines_and_no_memory() -> None:
    process = _run(
        "sys.stdin.readline()\n"
        "for _ in range(5):\n"
        "    flood(5_000); logs.flush()\n"
        "[output] = logs._outputs\n"
        "say(output._handler.waiting.qsize(), output._handler.dropped)\n",
        stderr=subprocess.PIPE,
    )
    assert process.stderr
    process.stderr.close()

    out, _ = process.communicate("go\n", timeout=60)

    assert out.split() == ["0", "25000"]


def test_a_reader_that_stops_delays_nobody_and_hears_what_was_dropped() -> None:
    count = 3 * logs.WAITING
    process = _run(
        f"seconds = flood({count})\n"
        "began = time.monotonic(); logs.flush()\n"
        "say(seconds, time.monotonic() - began)\n"
        "sys.stdin.readline()\n"
        "for _ in range(30): logs.flush()\n",
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    flooding, flushing = map(float, process.stdout.readline().split())
    assert flooding < 30 * count / 10_000, "a full pipe held the caller up"
    assert flushing < 2 * logs.LONGEST_FLUSH

    _, err = process.communicate("go\n", timeout=60)

    lines = [json.loads(line) for line in err.splitlines()]
    dropped = sum(line["count"] for line in lines if line["event"] == "log.dropped")
    written = sum(line["event"] == "flood.line" for line in lines)
    assert dropped > 0
    assert written + dropped == count


def test_a_stopped_reader_does_not_hold_up_the_end() -> None:
    with _run(f"flood({logs.WAITING}); say('done')\n", stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == "done\n"

        began = time.monotonic()
        code = process.wait(20)

    assert code == 0
    assert time.monotonic() - began < 10


def test_a_line_for_people_says_what_matters_first_and_obeys_nothing() -> None:
    fields = {
        "event_id": "evt_1", "delivery_id": "dlv_1", "attempt_id": "att_1", "destination": "crm",
        "outcome": "transient", "detail": "one\u2028two\x9b31m", "state": "pending",
        "due_at": "2026-11-28T09:00:12.5+00:00", "ms": 1.3, "event": "delivery.attempted",
        "level": "info",
    }  # fmt: skip

    assert logs.in_words(NINE, fields) == (
        "09:00:00Z  delivery.attempted  crm  transient  one two 31m  evt_1"
        "  state=pending  due_at=09:00:12Z  ms=1.3\n"
    )


def test_a_line_for_people_names_its_level_and_shows_the_stack_trace_below() -> None:
    fields = {"loop": "pruner", "exception": "Traceback\n  line", "event": "loop.failed"}

    assert logs.in_words(NINE, fields | {"level": "error", "at": "2026-11-29T09:00Z"}) == (
        "09:00:00Z  ERROR  loop.failed  loop=pruner  at=11-29 09:00:00Z\n"
        "    Traceback\n      line\n"
    )


def test_a_line_for_people_is_bounded() -> None:
    assert len(logs.in_words(NINE, {"event": "a.b", "text": "x" * 100_000})) < 1000


def test_what_becomes_of_lines_can_be_said() -> None:
    process = _run(
        'logs.configure(as_text=True); log.info("a.b", text="c")', stderr=subprocess.PIPE
    )
    _, err = process.communicate(timeout=60)

    assert err.endswith("Z  a.b  text=c\n")


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("no contact has +61412345678", "no contact has …678"),
        ('"+61 412 345 678" is no number', '"…678" is no number'),
        ("GET /search?phone=%2B61412345678", "GET /search?phone=…678"),
        ("61412345678 wrote STOP", "…678 wrote STOP"),
        ("(04) 1234 5678, or 0412 345 678", "…678, or …678"),
        # What is none.
        ("at 2026-11-29 12:30:00+00:00", "at 2026-11-29 12:30:00+00:00"),
        ("evt_0193a1b2c3d4567890123456 at 127.0.0.1:41234", None),
        ("GET /crm/v3/objects/contacts/151123456789: 404", None),
        ("ticket 1013, HTTP 429, 1234567 bytes", None),
    ],
)
def test_numbers_in_what_others_worded_are_masked(said: str, written: str | None) -> None:
    line = json.loads(logs.in_json(NINE, {"event": "delivery.attempted", "detail": said}))

    assert line["detail"] == (written or said)
    assert (written or said) in logs.in_words(NINE, {"event": "a.b", "exception": said})
