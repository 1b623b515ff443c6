from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from sender.attempt import Attempt, Retries
from sender.cli import main
from sender.delivery import Answer
from sender.log import Filter, Log
from sender.payload import Payload
from sender.store import IN_MEMORY, Store
from sender.templates import SAMPLES

Invoke = Callable[..., Result]
Run = Callable[..., subprocess.CompletedProcess[str]]
NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.delenv("GOFAX_SIGNING_SECRET", raising=False)
    return lambda *arguments: CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def send(invoke: Invoke, receiver: Any, secret: str) -> Invoke:
    return lambda *arguments: invoke("send", "--url", receiver.url, "--secret", secret, *arguments)


def _entries(invoke: Invoke, *arguments: str) -> list[dict[str, Any]]:
    done = invoke("log", "--json", *arguments)
    assert done.exit_code == 0, done.output
    return [json.loads(each) for each in done.stdout.splitlines()]


def _answer(status: int, **headers: str) -> Answer:
    return Answer(status=status, duration=timedelta(), text="", headers=headers)


def _attempt(*, number: int = 1, answer: Answer | None = None, at: datetime = NOW) -> Attempt:
    payload = Payload(body=b"{}", message_id="m1", event_type="SMS_REPLY")
    return Attempt(
        payload=payload, url="http://a.test/", at=at, headers={}, number=number, answer=answer
    )


def test_every_attempt_is_in_the_log_with_what_was_answered(
    invoke: Invoke, send: Invoke, receiver: Any
) -> None:
    send("--message-id", "m1")
    receiver.status = 503
    send("--message-id", "m2")

    first, second = _entries(invoke)
    assert (first["id"], first["message_id"], first["status"]) == (1, "m1", 200)
    assert (second["id"], second["message_id"], second["status"]) == (2, "m2", 503)
    assert first["url"] == receiver.url
    assert first["answer"] == '{"status": "accepted"}'
    assert datetime.fromisoformat(first["at"]) <= datetime.now(UTC)
    assert first["duration_ms"] > 0


def test_replays_and_tests_and_failures_to_connect_are_in_the_log(
    invoke: Invoke, receiver: Any, secret: str, unreachable_url: str
) -> None:
    invoke("test", "--url", receiver.url, "--secret", secret)
    invoke("replay", SAMPLES / "reply.json", "--url", unreachable_url, "--secret", secret)

    tested, replayed = _entries(invoke)
    assert tested["message_id"].startswith("test-")
    assert (replayed["message_id"], replayed["status"]) == ("sample-reply", None)
    assert "connection refused" in replayed["error"]


def test_show_has_headers_and_bodies_of_both_sides(
    invoke: Invoke, send: Invoke, receiver: Any
) -> None:
    receiver.headers = {"X-Node": "a"}
    send("--body", "naïve 👋")

    shown = json.loads(invoke("log", "show", 1, "--json").stdout)
    text = invoke("log", "show", 1).stdout

    assert shown["body"].encode() == receiver.bodies[0]
    signature = receiver.received[0].headers["x-gofax-signature"]
    assert shown["headers"]["X-GoFax-Signature"] == signature
    assert shown["answer_headers"]["X-Node"] == "a"
    for part in ("naïve 👋", f"X-GoFax-Signature: {signature}", "X-Node: a", "answered 200"):
        assert part in text


def test_an_entry_cannot_steer_the_terminal(invoke: Invoke, send: Invoke, receiver: Any) -> None:
    receiver.answer = b"\x1b[2Jhello\r\n\x07world"
    send()

    outputs = invoke("log").stdout + invoke("log", "show", 1).stdout

    assert "\x1b" not in outputs
    assert "\x07" not in outputs


FILTERS: dict[tuple[str, ...], list[int]] = {
    (): [1, 2, 3, 4],
    ("--failed",): [2, 3],
    ("--unanswered",): [3],
    ("--status", "5xx"): [2],
    ("--status", "200"): [1],
    ("--message-id", "m1"): [1],
    ("--profile", "nobody"): [],
    ("--limit", "2"): [3, 4],
    ("--since", "1h"): [1, 2, 3, 4],
    ("--since", "2999-01-01"): [],
    ("--failed", "--limit", "1"): [3],
}


def test_filters(invoke: Invoke, send: Invoke, receiver: Any, unreachable_url: str) -> None:
    send("--message-id", "m1")
    receiver.status = 503
    send("--message-id", "m2")
    invoke("send", "--url", unreachable_url, "--secret", "x")
    receiver.status = 204
    send("--message-id", "m4")

    found = {each: [entry["id"] for entry in _entries(invoke, *each)] for each in FILTERS}

    assert found == FILTERS


@pytest.mark.parametrize(
    ("columns", "head"),
    [
        (60, "id time message status ms answer"),
        (80, "id time message status ms answer"),
        (120, "id time profile message event try status ms answer"),
    ],
)
def test_an_entry_is_a_line_that_fits_the_terminal(
    send: Invoke, receiver: Any, columns: int, head: str, run_in_terminal: Callable[..., str]
) -> None:
    receiver.answer = ("x" * 300).encode()
    for message_id in ("m" * 40, "a short one", "漢字" * 30):
        send("--message-id", message_id)

    first, *lines = run_in_terminal("log", columns=columns).splitlines()

    assert first.split() == head.split()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert all(re.search(r" \d\d:\d\d:\d\dZ .* 200 .* x+…$", line) for line in lines)
    assert max(map(cell_len, lines)) <= columns


def test_a_resend_has_the_same_bytes_and_id(
    invoke: Invoke, send: Invoke, receiver: Any, secret: str
) -> None:
    send("--message-id", "m1")

    done = invoke("resend", 1, "--secret", secret)

    assert done.exit_code == 0, done.output
    assert receiver.bodies[0] == receiver.bodies[1]
    assert [each.verified for each in receiver.received] == [True, True]
    assert [each["resend_of"] for each in _entries(invoke)] == [None, 1]


def test_a_resend_goes_through_the_profile_as_it_is_now(
    invoke: Invoke, receiver: Any, secret: str
) -> None:
    invoke("webhooks", "add", "desk", "--url", f"{receiver.url}/old", "--secret", "old")
    invoke("send")
    invoke("webhooks", "edit", "desk", "--url", f"{receiver.url}/new", "--secret", secret)

    done = invoke("resend", 1)

    assert done.exit_code == 0, done.output
    assert [each.path[-4:] for each in receiver.received] == ["/old", "/new"]
    assert [each.verified for each in receiver.received] == [False, True]


def test_a_form_is_resent_as_a_form(invoke: Invoke, receiver: Any) -> None:
    invoke("send", "--form", "--url", receiver.url, "--basic", "gofax:pw")

    invoke("resend", 1, "--basic", "gofax:pw")

    first, second = receiver.received
    assert first.body == second.body
    assert second.headers["authorization"] == first.headers["authorization"]


def test_several_are_resent_only_if_all_are_known(
    invoke: Invoke, send: Invoke, receiver: Any, secret: str
) -> None:
    send()

    done = invoke("resend", 1, 99, "--secret", secret)

    assert done.exit_code == 1
    assert "no log entry 99" in done.stderr
    assert len(receiver.received) == 1


def test_old_entries_make_room_for_new_ones() -> None:
    with Store(IN_MEMORY) as store:
        log = Log(store, kept=3)
        for _ in range(5):
            log.record(_attempt())

        assert [each.id for each in log.entries(Filter())] == [3, 4, 5]


def test_an_id_that_utf_8_cannot_hold_is_still_logged() -> None:
    payload = Payload(body=b"{}", message_id="a\ud83d", event_type="SMS_REPLY")
    lone = Attempt(payload=payload, url="http://a.test/", at=NOW, headers={})
    with Store(IN_MEMORY) as store:
        log = Log(store)

        assert log.get(log.record(lone)).message_id == r"a\ud83d"


def test_retries_go_on_until_it_is_answered_well(
    invoke: Invoke, send: Invoke, scripted: Callable[..., Any], secret: str
) -> None:
    receiver = scripted(500, 429, 200)
    options = ("--retries", "5", "--retry-wait", "0.01")

    done = invoke("send", "--url", receiver.url, "--secret", secret, *options)

    assert done.exit_code == 0
    assert [(each["try"], each["status"]) for each in _entries(invoke)] == [
        (1, 500),
        (2, 429),
        (3, 200),
    ]


def test_retries_come_from_the_environment_too(
    send: Invoke, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.status = 500
    monkeypatch.setenv("GOFAX_SENDER_RETRIES", "2")
    monkeypatch.setenv("GOFAX_SENDER_RETRY_WAIT", "0.01")

    done = send()

    assert done.exit_code == 1
    assert len(receiver.received) == 3


DELAYS = [
    # None are made unless asked for: GoFax documents none.
    (Retries(), _attempt(answer=_answer(500)), None),
    (Retries(count=1), _attempt(answer=_answer(500)), 1.0),
    (Retries(count=1), _attempt(answer=_answer(500), number=2), None),
    (Retries(count=9, wait=0.5), _attempt(number=3), 2.0),
    # What was accepted or refused for good is not tried again.
    (Retries(count=9), _attempt(answer=_answer(200)), None),
    (Retries(count=9), _attempt(answer=_answer(401)), None),
    (Retries(count=9), _attempt(answer=_answer(302)), None),
    # The receiver may ask for more time, up to an hour.
    (Retries(count=9), _attempt(answer=_answer(429, **{"Retry-After": "7"})), 7.0),
    (Retries(count=9), _attempt(answer=_answer(503, **{"Retry-After": "99999"})), 3600.0),
    (Retries(count=9), _attempt(answer=_answer(503, **{"Retry-After": "soon"})), 1.0),
]


def test_when_the_next_try_is() -> None:
    found = [retries.delay(attempt) for retries, attempt, _ in DELAYS]

    assert found == [expected for _, _, expected in DELAYS]


def test_the_log_of_another_command_is_seen(
    run: Run, invoke: Invoke, receiver: Any, secret: str, tmp_path: Path
) -> None:
    other = str(tmp_path / "other.db")

    sent = run("send", "--url", receiver.url, "--secret", secret, "--json", "--store", other)
    logged = invoke("log", "--json", "--store", other)
    shown = invoke("log", "--store", other, "show", "1", "--json")

    assert json.loads(sent.stdout)["id"] == json.loads(logged.stdout)["id"] == 1
    assert json.loads(shown.stdout)["id"] == 1
