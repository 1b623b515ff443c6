from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import click
import pytest
from click.testing import CliRunner, Result

from sender.cli import main
from sender.templates import SAMPLES

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.delenv("GOFAX_SIGNING_SECRET", raising=False)
    return lambda *arguments: CliRunner().invoke(main, [str(each) for each in arguments])


def _sent(receiver: Any) -> list[dict[str, Any]]:
    return [json.loads(each) for each in receiver.bodies]


def test_send_exits_0_and_prints_id_status_duration_and_answer(
    run: Run, receiver: Any, secret: str
) -> None:
    done = run("send", "--url", receiver.url, "--secret", secret, "--message-id", "abc123")

    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[:2] == ["abc123", "200"]
    assert words[3] == "ms"
    assert done.stdout.endswith('{"status": "accepted"}\n')
    assert done.stderr == ""
    assert receiver.received[0].verified


def test_the_version_is_that_of_the_distribution(run: Run) -> None:
    done = run("--version")

    assert done.stdout == f"gofax-sender, version {version('gofax-relay')}\n"


def test_an_error_that_quotes_a_receiver_cannot_steer_the_terminal(
    invoke: Callable[..., Result], raw_server: Callable[..., str]
) -> None:
    for sent in (b"\x1b[2J\x9b31m nonsense\r\n", b"HTTP/1.1 2\x1b]0;x 99\r\n\r\n"):
        done = invoke("send", "--url", raw_server(sent))

        assert done.exit_code == 1
        assert done.stderr.replace("\n", "").isprintable(), done.stderr


def test_send_takes_the_secret_from_the_environment(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, receiver: Any, secret: str
) -> None:
    monkeypatch.setenv("GOFAX_SIGNING_SECRET", secret)

    done = invoke("send", "--url", receiver.url)

    assert done.exit_code == 0
    assert receiver.received[0].verified


def test_send_exits_1_when_refused_and_says_how_to_mend_it(
    invoke: Callable[..., Result], receiver: Any
) -> None:
    done = invoke("send", "--url", receiver.url, "--secret", "another")

    assert done.exit_code == 1
    assert " 401 " in done.stdout
    assert "does the receiver have this secret" in done.stderr


def test_send_exits_1_when_nobody_listens(
    invoke: Callable[..., Result], unreachable_url: str, secret: str
) -> None:
    done = invoke("send", "--url", unreachable_url, "--secret", secret, "--message-id", "abc123")

    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"error: abc123: {unreachable_url}: connection refused: "
        "is the receiver running, is the port right?\n"
    )


def test_send_exits_1_when_the_server_hangs(
    invoke: Callable[..., Result], silent_url: str, secret: str
) -> None:
    started = time.monotonic()

    done = invoke("send", "--url", silent_url, "--secret", secret, "--timeout", "1")

    assert done.exit_code == 1
    assert "no complete answer within 1 s" in done.stderr
    assert time.monotonic() - started < 10


HERE = ("--url", "http://127.0.0.1:9/")
UNUSABLE = [
    ["send"],
    ["test"],
    ["unknown"],
    ["replay", str(SAMPLES)],
    ["replay", *HERE],
    ["send", "--url", "127.0.0.1:8080"],
    ["send", *HERE, "--secret", ""],
    ["send", *HERE, "--timeout", "0"],
    ["send", *HERE, "--timeout", "nan"],
    ["send", *HERE, "--count", "0"],
    ["send", *HERE, "--body", "a", "--no-body"],
    ["replay", str(SAMPLES), *HERE, "--rate", "0/s"],
    ["replay", str(SAMPLES), *HERE, "--rate", "5/m"],
    ["replay", str(SAMPLES), *HERE, "--basic", "gofax"],
    ["log", "--since", "soon"],
    ["log", "--status", "600"],
    ["log", "--status", "ok"],
    ["log", "--limit", "0"],
]


def test_a_command_that_makes_no_sense_exits_2(invoke: Callable[..., Result]) -> None:
    codes = {" ".join(each): invoke(*each).exit_code for each in UNUSABLE}

    assert {command: code for command, code in codes.items() if code != 2} == {}


def test_a_usage_error_of_a_process_exits_2(run: Run) -> None:
    done = run("send")

    assert done.returncode == 2
    assert "give its URL, like --url http://127.0.0.1:8080/webhooks/gofax" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_body_that_is_no_utf_8_exits_2(run: Run, receiver: Any, secret: str) -> None:
    broken = b"caf\xe9".decode("utf-8", "surrogateescape")

    done = run("send", "--url", receiver.url, "--secret", secret, "--body", broken)

    assert done.returncode == 2
    assert "is not UTF-8" in done.stderr
    assert receiver.received == []


def test_send_without_secret_says_that_it_is_unsigned(
    invoke: Callable[..., Result], receiver: Any
) -> None:
    result = invoke("send", "--url", receiver.url)

    assert result.exit_code == 1
    assert "sending unsigned" in result.stderr
    assert "x-gofax-signature" not in receiver.received[0].headers


def test_send_fills_in_what_the_options_say(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    invoke(
        *("send", "--url", receiver.url, "--secret", secret),
        *("--event", "SMS_RECEIVED", "--from", "+61411111111", "--to", "Acme"),
        *("--body", "Hi 👋", "--message-id", "m1"),
    )

    event = _sent(receiver)[0]
    assert event.pop("eventTimestamp").endswith("Z")
    assert event == {
        "eventType": "SMS_RECEIVED",
        "messageId": "m1",
        "direction": "inbound",
        "from": "+61411111111",
        "to": "Acme",
        "messageBody": "Hi 👋",
        "metadata": {"accountId": "12345"},
        "signature": "HMAC_SHA256",
    }


def test_send_takes_any_direction(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    invoke("send", "--url", receiver.url, "--secret", secret, "--direction", "outbound")

    assert _sent(receiver)[0]["direction"] == "outbound"


def test_send_without_body_leaves_the_field_out(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    invoke("send", "--url", receiver.url, "--secret", secret, "--no-body")

    assert "messageBody" not in _sent(receiver)[0]


def test_send_count_makes_so_many_ids_and_a_summary(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    result = invoke("send", "--url", receiver.url, "--secret", secret, "--count", 3)

    ids = [each["messageId"] for each in _sent(receiver)]
    assert len(set(ids)) == 3
    assert [each.split()[0] for each in result.stdout.splitlines()] == ids
    assert "3 answered 200" in result.stderr


def test_send_count_with_an_id_makes_duplicates(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    options = ["--url", receiver.url, "--secret", secret, "--count", 2, "--message-id", "m1"]

    invoke("send", *options)

    assert [each["messageId"] for each in _sent(receiver)] == ["m1", "m1"]


def test_json_is_an_object_a_line(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    receiver.answer = "a\nb ä".encode()

    result = invoke("send", "--url", receiver.url, "--secret", secret, "--count", 2, "--json")

    entries = [json.loads(each) for each in result.stdout.splitlines()]
    assert [each["message_id"] for each in entries] == [
        each["messageId"] for each in _sent(receiver)
    ]
    assert entries[0] | {"message_id": "", "at": "", "duration_ms": 0} == {
        "id": 1,
        "message_id": "",
        "profile": None,
        "source": None,
        "url": receiver.url,
        "at": "",
        "try": 1,
        "status": 200,
        "duration_ms": 0,
        "answer": "a\nb ä",
        "error": None,
    }


def test_json_says_why_there_was_no_answer(
    invoke: Callable[..., Result], unreachable_url: str
) -> None:
    result = invoke("send", "--url", unreachable_url, "--secret", "x", "--json")

    entry = json.loads(result.stdout)
    assert (entry["status"], entry["answer"]) == (None, None)
    assert "connection refused" in entry["error"]


def test_an_answer_cannot_steer_the_terminal(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    receiver.answer = b"<html>\r\n\x1b[2J\x07" + b"x" * 1000

    result = invoke("send", "--url", receiver.url, "--secret", secret)

    assert len(result.stdout.splitlines()) == 1
    assert r"<html> \x1b[2J\x07xxx" in result.stdout
    assert "\x1b" not in result.stdout
    assert len(result.stdout) < 300


def test_an_answer_that_the_terminal_cannot_show_does_not_end_the_run(
    run: Run, receiver: Any, secret: str
) -> None:
    receiver.answer = "👋".encode()

    done = run("send", "--url", receiver.url, "--secret", secret, PYTHONIOENCODING="latin-1")

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\\U0001f44b\n")


def test_a_redirect_fails_and_is_explained(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    receiver.status, receiver.headers = 302, {"Location": "/elsewhere"}

    result = invoke("send", "--url", receiver.url, "--secret", secret)

    assert result.exit_code == 1
    assert "302: a redirect, which is not followed" in result.stderr
    assert len(receiver.received) == 1


def test_test_says_passed_and_what_was_answered(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    receiver.status = 204
    receiver.answer = b""

    result = invoke("test", "--url", receiver.url, "--secret", secret)

    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "passed"
    assert " 204 " in result.stdout
    assert receiver.received[0].verified


def test_test_says_failed(invoke: Callable[..., Result], receiver: Any, secret: str) -> None:
    for receiver.status in (302, 400, 500):
        result = invoke("test", "--url", receiver.url, "--secret", secret)

        assert (result.exit_code, result.stdout.splitlines()[-1]) == (1, "failed")


def test_test_fails_when_nobody_listens(
    invoke: Callable[..., Result], unreachable_url: str
) -> None:
    result = invoke("test", "--url", unreachable_url, "--secret", "x")

    assert (result.exit_code, result.stdout) == (1, "failed\n")
    assert "connection refused" in result.stderr


SAMPLE_FILES = sorted(SAMPLES.iterdir())


def test_the_samples_are_these() -> None:
    assert [each.name for each in SAMPLE_FILES] == [
        "emoji-and-long-text.json",
        "inbound.json",
        "integer-message-id.json",
        "number-without-plus.json",
        "reply.json",
        "status-failure.form",
        "status-success.form",
        "stop.json",
        "time-without-zone.json",
        "unknown-event-type.json",
        "unknown-fields.json",
        "without-body.json",
    ]


def test_no_two_samples_are_duplicates_of_each_other() -> None:
    ids = [json.loads(each.read_bytes())["messageId"] for each in SAMPLES.glob("*.json")]
    forms = [parse_qs(each.read_text())["ID"][0] for each in SAMPLES.glob("*.form")]

    assert len(set(ids) | set(forms)) == len(SAMPLE_FILES)


def test_the_printed_folder_of_samples_can_be_replayed(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    folder = invoke("samples").stdout.rstrip("\n")

    done = invoke("replay", folder, "--url", receiver.url, "--secret", secret)

    assert done.exit_code == 0, done.stderr
    assert receiver.bodies == [each.read_bytes() for each in SAMPLE_FILES]
    assert "12 sent in " in done.stderr
    assert "12 answered 200" in done.stderr


def test_forms_get_basic_auth_and_no_signature_and_json_the_reverse(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    form_url = receiver.url + "/status"
    basic = "gofax:p:ä"

    invoke(
        *("replay", SAMPLES / "status-success.form", SAMPLES / "reply.json"),
        *("--url", receiver.url, "--form-url", form_url),
        *("--secret", secret, "--basic", basic),
    )

    form, event = receiver.received
    assert form.path == "/webhooks/gofax/status"
    assert form.headers["content-type"] == "application/x-www-form-urlencoded"
    assert form.headers["authorization"] == "Basic Z29mYXg6cDrDpA=="
    assert "x-gofax-signature" not in form.headers
    assert event.path == "/webhooks/gofax"
    assert event.verified
    assert "authorization" not in event.headers


def test_forms_without_basic_auth_are_announced(
    invoke: Callable[..., Result], receiver: Any
) -> None:
    result = invoke("replay", SAMPLES / "status-success.form", "--url", receiver.url)

    assert result.exit_code == 0
    assert "without Basic auth" in result.stderr
    assert "unsigned" not in result.stderr


def test_renewed_ids_are_signed_anew(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    path = SAMPLES / "reply.json"

    invoke("replay", path, path, "--url", receiver.url, "--secret", secret, "--renew-ids")

    first, second = _sent(receiver)
    assert all(each.verified for each in receiver.received)
    assert len({first["messageId"], second["messageId"], "sample-reply"}) == 3
    assert first | {"messageId": "sample-reply"} == json.loads(path.read_bytes())


def test_nothing_is_sent_when_one_file_is_bad(
    invoke: Callable[..., Result], receiver: Any, secret: str, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_bytes(b'{"messageId": "a"}')
    (tmp_path / "b.json").write_bytes(b'{"messageId": \n"\xe4"}')

    done = invoke("replay", str(tmp_path), "--url", receiver.url, "--secret", secret)

    assert done.exit_code == 2
    assert f"{tmp_path / 'b.json'}:2: not UTF-8" in done.stderr
    assert receiver.received == []


def test_a_missing_path_exits_2_and_is_named(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    result = invoke("replay", tmp_path / "none.json", "--url", "http://127.0.0.1/")

    assert result.exit_code == 2
    assert "none.json: cannot be read: no such file or directory" in result.stderr


def test_an_empty_folder_exits_2_and_is_named(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    result = invoke("replay", tmp_path, "--url", "http://127.0.0.1/")

    assert result.exit_code == 2
    assert f"{tmp_path}: holds no " in result.stderr


def test_replay_goes_on_after_a_failure_and_exits_1(
    invoke: Callable[..., Result], unreachable_url: str, receiver: Any, secret: str
) -> None:
    result = invoke(
        *("replay", SAMPLES / "status-failure.form", SAMPLES / "reply.json"),
        *("--form-url", unreachable_url, "--url", receiver.url, "--secret", secret),
    )

    assert result.exit_code == 1
    assert len(receiver.received) == 1
    assert "1 answered 200, 1 not answered" in result.stderr


def test_a_dry_run_sends_nothing_and_needs_no_url(
    invoke: Callable[..., Result], secret: str
) -> None:
    result = invoke("replay", SAMPLES, "--dry-run", "--secret", secret)

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == len(SAMPLE_FILES) + 1
    assert lines[4].startswith(f"{SAMPLES / 'reply.json'}  sample-reply  ")
    assert lines[4].endswith(" bytes  json, signed")
    assert lines[5].endswith(" bytes  form, without credentials")
    assert lines[-1] == "12 would be sent"


def test_a_dry_run_with_a_url_posts_nothing_to_it(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    result = invoke("replay", SAMPLES, "--dry-run", "--url", receiver.url, "--secret", secret)

    assert result.exit_code == 0
    assert receiver.received == []


def test_a_rate_slows_the_replay(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    paths = [SAMPLES / "reply.json"] * 5
    started = time.monotonic()

    invoke("replay", *paths, "--url", receiver.url, "--secret", secret, "--rate", "20/s")

    assert time.monotonic() - started >= 0.2
    assert len(receiver.received) == 5


def test_replay_json_names_the_source(
    invoke: Callable[..., Result], receiver: Any, secret: str
) -> None:
    path = SAMPLES / "reply.json"

    result = invoke("replay", path, "--url", receiver.url, "--secret", secret, "--json")

    entry = json.loads(result.stdout)
    assert (entry["source"], entry["message_id"]) == (str(path), "sample-reply")


def _commands(*names: str, group: click.Group = main) -> Iterator[tuple[str, ...]]:
    yield names
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(*names, name, group=command)
        else:
            yield (*names, name)


def test_every_help_text_has_an_example(invoke: Callable[..., Result]) -> None:
    for command in _commands():
        result = invoke(*command, "--help")

        assert result.exit_code == 0
        example = result.stdout.partition("Example")[2]
        assert " ".join(("gofax-sender", *command)) in example, command


def test_no_output_ever_holds_the_secrets(
    invoke: Callable[..., Result], receiver: Any, unreachable_url: str
) -> None:
    hidden = "hush" + "-hush"
    outputs = [
        invoke("replay", SAMPLES, *options, "--secret", hidden, "--basic", f"gofax:{hidden}")
        for options in (
            ["--url", receiver.url],
            ["--url", unreachable_url, "--json"],
            ["--url", unreachable_url.replace("//", f"//u:{hidden}@"), "--json"],
            ["--url", receiver.url.replace("//", f"//u:{hidden}@"), "--dry-run"],
            ["--url", receiver.url, "--rate", "x"],
        )
    ]

    assert [each.exit_code for each in outputs] == [1, 1, 1, 0, 2]
    assert not any(hidden in each.output for each in outputs)
