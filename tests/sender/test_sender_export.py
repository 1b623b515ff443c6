"""The relay's own exports, replayed: what comes out must mean what went in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from sender.cli import main
from sender.export import restored
from sender.payload import parse_form, parse_json, retimed, without_body
from sender.templates import SAMPLES

Invoke = Callable[..., Result]
Run = Callable[..., subprocess.CompletedProcess[str]]
EXPORTED = {
    "id": "evt_1",
    "message_id": "abc123",
    "type": "SMS_REPLY",
    "from": "+61400000000",
    "to": "+61700000000",
    "received_at": "2026-11-24T09:30:00.5+00:00",
    "status": "accepted",
    "body": "Hi 👋",
    "duplicates": 0,
    "deliveries": [],
}
MEMBERS = st.dictionaries(
    st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())
)
MOMENT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.delenv("GOFAX_SIGNING_SECRET", raising=False)
    return lambda *arguments: CliRunner().invoke(main, [str(each) for each in arguments])


def _restored(**changes: Any) -> dict[str, Any]:
    line = json.dumps(EXPORTED | changes).encode()
    found: dict[str, Any] = json.loads(restored(parse_json(line)).body)
    return found


def test_an_exported_event_becomes_what_gofax_sent() -> None:
    assert _restored() == {
        "eventType": "SMS_REPLY",
        "eventTimestamp": "2026-11-24T09:30:00.500000Z",
        "messageId": "abc123",
        "direction": "reply",
        "from": "+61400000000",
        "to": "+61700000000",
        "messageBody": "Hi 👋",
        "metadata": {"accountId": "12345"},
        "signature": "HMAC_SHA256",
    }


def test_an_exported_event_without_body_has_none() -> None:
    assert "messageBody" not in _restored(body=None)


def test_an_export_that_holds_more_is_believed() -> None:
    fields = _restored(direction="outbound", occurred_at="2020-01-01T00:00:00")

    assert fields["direction"] == "outbound"
    assert fields["eventTimestamp"] == "2020-01-01T00:00:00.000000Z"


def test_an_export_that_holds_the_payload_gives_it_back() -> None:
    payload = {"eventType": "X", "messageId": 7, "anything": ["else"]}

    assert _restored(payload=payload) == payload


def test_an_exported_status_becomes_a_form() -> None:
    line = json.dumps(EXPORTED | {"type": "SMS_STATUS", "from": None, "body": "ok"}).encode()

    form = restored(parse_json(line))

    assert form.kind == "form"
    assert parse_qs(form.body.decode()) == {
        "Recipient": ["61700000000"],
        "ID": ["abc123"],
        "Message": ["ok"],
    }


@pytest.mark.parametrize(
    "changes", [{"type": ["SMS_REPLY"]}, {"received_at": 5}, {"deliveries": None}]
)
def test_what_only_looks_like_an_export_stays_as_it_is(changes: dict[str, Any]) -> None:
    payload = parse_json(json.dumps(EXPORTED | changes).encode())

    assert restored(payload) is payload


@given(MEMBERS)
def test_a_payload_of_gofax_is_no_export(fields: dict[str, Any]) -> None:
    payload = parse_json(json.dumps(fields | {"messageId": "x"}).encode())

    assert restored(payload) is payload


def test_an_export_is_read_from_standard_input(
    receiver: Any, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(json.dumps(EXPORTED | {"message_id": f"m{n}"}) + "\n" for n in range(3))
    arguments = ["replay", "-", "--url", receiver.url, "--secret", secret]

    done = CliRunner().invoke(main, arguments, input=lines)

    assert done.exit_code == 0, done.output
    assert [json.loads(each)["messageId"] for each in receiver.bodies] == ["m0", "m1", "m2"]
    assert all(each.verified for each in receiver.received)
    assert done.stdout.startswith("stdin:1  m0  200")


def test_renewed_times_are_those_of_sending_and_nothing_else_changes(
    invoke: Invoke, receiver: Any, secret: str
) -> None:
    path = SAMPLES / "reply.json"
    before = datetime.now(UTC)

    invoke("replay", path, "--url", receiver.url, "--secret", secret, "--renew-times")

    sent = json.loads(receiver.bodies[0])
    moment = datetime.fromisoformat(sent["eventTimestamp"])
    assert before <= moment <= datetime.now(UTC)
    kept = json.loads(path.read_bytes()) | {"eventTimestamp": ""}
    assert sent | {"eventTimestamp": ""} == kept


@given(MEMBERS, st.booleans())
def test_a_new_time_changes_the_time_only(fields: dict[str, Any], has_time: bool) -> None:
    fields |= {"eventTimestamp": "old"} if has_time else {}
    fields = fields if has_time else {k: v for k, v in fields.items() if k != "eventTimestamp"}
    payload = parse_json(json.dumps(fields).encode())

    changed = json.loads(retimed(payload, MOMENT).body)

    new = {"eventTimestamp": "2026-11-24T09:30:00.000000Z"} if has_time else {}
    assert changed == fields | new


@given(MEMBERS, st.sampled_from([None, 1, " ", "\n\t"]), st.booleans())
def test_the_body_is_taken_out_and_nothing_else(
    fields: dict[str, Any], indent: int | str | None, first: bool
) -> None:
    fields.pop("messageBody", None)
    full = {"messageBody": "a, b", **fields} if first else {**fields, "messageBody": "a, b"}

    bare = without_body(parse_json(json.dumps(full, indent=indent).encode()))

    assert json.loads(bare.body) == fields


def test_a_body_that_stands_twice_is_taken_out_twice() -> None:
    payload = parse_json(b'{"messageBody": 1 , "a": 2, "messageBody": "x"}')

    assert json.loads(without_body(payload).body) == {"a": 2}


def test_a_form_keeps_time_and_body() -> None:
    form = parse_form(b"ID=1&Message=ok")

    assert without_body(retimed(form, MOMENT)) == form


def test_a_replay_goes_to_the_profiles_that_subscribe(
    invoke: Invoke, receiver: Any, secret: str
) -> None:
    add = ("webhooks", "add", "--secret", secret)
    invoke(*add, "events", "--url", f"{receiver.url}/events")
    invoke(*add, "status", "--url", f"{receiver.url}/status", "--events", "SMS_STATUS")

    done = invoke("replay", SAMPLES)

    assert done.exit_code == 0, done.output
    paths = [each.path.rpartition("/")[2] for each in receiver.received]
    assert (paths.count("events"), paths.count("status")) == (9, 2)
    assert "1 left out: no active webhook profile subscribes" in done.stderr


def test_a_replay_in_a_terminal_shows_how_far_it_is(
    run_in_terminal: Callable[..., str], receiver: Any, secret: str
) -> None:
    paths = [str(SAMPLES / "reply.json")] * 20
    options = ["--url", receiver.url, "--secret", secret, "--rate", "100"]

    shown = run_in_terminal("replay", *paths, *options, columns=100)

    assert "/20" in shown
    assert shown.count("sample-reply  200") == 20
    assert "20 answered 200" in shown


def test_output_that_goes_to_a_file_has_no_bar_in_it(
    run: Run, receiver: Any, secret: str, tmp_path: Path
) -> None:
    done = run("replay", str(SAMPLES / "reply.json"), "--url", receiver.url, "--secret", secret)

    assert len(done.stdout.splitlines()) == 1
    assert len(done.stderr.splitlines()) == 1
