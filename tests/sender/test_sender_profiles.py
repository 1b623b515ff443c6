from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sender.cli import main
from sender.templates import SAMPLES

Invoke = Callable[..., Result]
HIDDEN = "hush" + "-hush"


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.delenv("GOFAX_SIGNING_SECRET", raising=False)
    return lambda *arguments: CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def add(invoke: Invoke, receiver: Any, secret: str) -> Invoke:
    def add(name: str, *arguments: object, url: str = receiver.url) -> Result:
        done = invoke("webhooks", "add", name, "--url", url, "--secret", secret, *arguments)
        assert done.exit_code == 0, done.output
        return done

    return add


def _bodies(receiver: Any) -> list[dict[str, Any]]:
    return [json.loads(each) for each in receiver.bodies]


def _shown(invoke: Invoke, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(invoke("webhooks", "show", name, "--json").stdout)
    return found


def test_a_profile_has_the_fields_of_the_portal(invoke: Invoke, add: Invoke) -> None:
    add("front-desk", "--events", "SMS_REPLY", "--no-include-message-body", url="https://a.test/h")

    shown = _shown(invoke, "front-desk")

    assert shown.pop("created_at") == shown.pop("updated_at")
    assert shown == {
        "name": "front-desk",
        "url": "https://a.test/h",
        "events": ["SMS_REPLY"],
        "include_message_body": False,
        "has_secret": True,
        "has_basic": False,
        "active": True,
    }


def test_a_new_profile_has_both_events_and_the_body(invoke: Invoke, add: Invoke) -> None:
    add("front-desk")

    shown = _shown(invoke, "front-desk")

    assert shown["events"] == ["SMS_REPLY", "SMS_RECEIVED"]
    assert shown["include_message_body"] is True


def test_an_event_goes_to_all_active_profiles_that_subscribe_to_it(
    invoke: Invoke, add: Invoke, receiver: Any
) -> None:
    for name, events in (("a", "SMS_REPLY"), ("b", "SMS_RECEIVED"), ("c", "SMS_REPLY")):
        add(name, "--events", events, url=f"{receiver.url}/{name}")
    add("d", url=f"{receiver.url}/d")
    invoke("webhooks", "pause", "d")

    done = invoke("send", "--message-id", "m1")

    assert done.exit_code == 0, done.output
    assert [each.path[-2:] for each in receiver.received] == ["/a", "/c"]
    assert [each["messageId"] for each in _bodies(receiver)] == ["m1", "m1"]
    assert all(each.verified for each in receiver.received)
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["a", "m1"], ["c", "m1"]]


def test_a_profile_without_message_body_sends_none(
    invoke: Invoke, add: Invoke, receiver: Any
) -> None:
    add("bare", "--no-include-message-body")

    invoke("send", "--body", "secret text")
    invoke("test", "bare")
    invoke("replay", SAMPLES / "reply.json")

    assert [("messageBody" in each) for each in _bodies(receiver)] == [False] * 3
    assert all(each.verified for each in receiver.received)


def test_a_paused_profile_gets_nothing_until_it_is_resumed(
    invoke: Invoke, add: Invoke, receiver: Any
) -> None:
    add("front-desk")
    invoke("webhooks", "pause", "front-desk")

    refused = invoke("send")
    invoke("webhooks", "resume", "front-desk")
    sent = invoke("send")

    assert (refused.exit_code, sent.exit_code) == (2, 0)
    assert "add an active webhook profile for SMS_REPLY" in refused.stderr
    assert len(receiver.received) == 1


def test_a_paused_profile_can_still_be_tested(invoke: Invoke, add: Invoke, receiver: Any) -> None:
    add("front-desk", "--inactive")

    done = invoke("test", "front-desk")

    assert done.exit_code == 0
    assert "front-desk is inactive" in done.stderr
    assert done.stdout.splitlines()[-1] == "passed"
    assert len(receiver.received) == 1


def test_an_edit_changes_what_it_names_and_the_time(invoke: Invoke, add: Invoke) -> None:
    add("front-desk", "--events", "SMS_REPLY", url="https://a.test/h")
    before = _shown(invoke, "front-desk")

    done = invoke("webhooks", "edit", "front-desk", "--events", "SMS_RECEIVED, SMS_REPLY")

    after = _shown(invoke, "front-desk")
    assert done.exit_code == 0
    assert after["events"] == ["SMS_RECEIVED", "SMS_REPLY"]
    assert after["updated_at"] > before["updated_at"]
    kept = {"name", "url", "include_message_body", "has_secret", "active", "created_at"}
    assert {each: after[each] for each in kept} == {each: before[each] for each in kept}


def test_a_new_secret_signs_from_then_on(invoke: Invoke, add: Invoke, receiver: Any) -> None:
    add("front-desk")
    invoke("webhooks", "edit", "front-desk", "--secret", "another")

    done = invoke("send")

    assert done.exit_code == 1
    assert [each.verified for each in receiver.received] == [False]


def test_a_removed_profile_is_gone_and_its_log_stays(
    invoke: Invoke, add: Invoke, receiver: Any
) -> None:
    add("front-desk")
    invoke("send")

    assert invoke("webhooks", "remove", "front-desk").exit_code == 0
    assert invoke("webhooks", "show", "front-desk").exit_code == 1
    assert len(invoke("log", "--json").stdout.splitlines()) == 1


def test_the_list_fits_eighty_columns_and_shows_no_secret(
    invoke: Invoke, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = receiver.url.replace("//", f"//u:{HIDDEN}@")
    invoke("webhooks", "add", "a", "--url", url, "--secret", HIDDEN, "--basic", f"u:{HIDDEN}")
    outputs = [
        invoke(*arguments)
        for arguments in (
            ("webhooks", "list"),
            ("webhooks", "list", "--json"),
            ("webhooks", "show", "a"),
            ("webhooks", "show", "a", "--json"),
            ("send",),
            ("send", "--form"),
            ("log",),
            ("log", "--json"),
            ("log", "show", "1"),
            ("log", "show", "1", "--json"),
            ("log", "show", "2"),
        )
    ]

    assert not any(HIDDEN in each.output for each in outputs)
    assert "active" in outputs[0].stdout


def test_the_file_is_readable_by_its_owner_only(
    invoke: Invoke, add: Invoke, store_file: Path
) -> None:
    add("front-desk")

    assert stat.S_IMODE(store_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(store_file.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(
    invoke: Invoke, add: Invoke, store_file: Path
) -> None:
    store_file.parent.mkdir()
    store_file.touch(mode=0o644)
    store_file.chmod(0o644)

    add("front-desk")

    assert stat.S_IMODE(store_file.stat().st_mode) == 0o600


def test_the_option_names_another_file(invoke: Invoke, tmp_path: Path, store_file: Path) -> None:
    other = tmp_path / "other.db"

    invoke("webhooks", "add", "a", "--url", "https://a.test/", "--store", other)

    assert "a" in invoke("webhooks", "list", "--store", other).stdout
    assert not store_file.exists()


def test_a_file_of_a_newer_version_is_refused(
    invoke: Invoke, add: Invoke, store_file: Path
) -> None:
    add("front-desk")
    with closing(sqlite3.connect(store_file)) as db:
        db.execute("PRAGMA user_version = 99")

    done = invoke("webhooks", "list")

    assert done.exit_code == 1
    assert "a newer gofax-sender has used it" in done.stderr


def test_a_file_that_is_no_store_is_named(invoke: Invoke, store_file: Path) -> None:
    store_file.parent.mkdir()
    store_file.write_text("profiles: none\n" * 100)

    done = invoke("webhooks", "list")

    assert done.exit_code == 1
    assert str(store_file) in done.stderr
    assert "--store" in done.stderr
    assert store_file.read_text().startswith("profiles")


def _files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("alembic_version", "it is the store of a gofax-relay"),
        ("customers", "it has tables of another program: customers"),
    ],
)
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize(
    "command",
    ["webhooks list", "log", "send --url {url}", "webhooks add a --url https://a.test/"],
)
def test_the_database_of_another_program_is_refused_and_left_as_it_is(
    *,
    invoke: Invoke,
    receiver: Any,
    store_file: Path,
    table: str,
    said: str,
    journal: str,
    command: str,
) -> None:
    store_file.parent.mkdir()
    with closing(sqlite3.connect(store_file)) as db:
        db.execute(f"PRAGMA journal_mode = {journal}")
        db.execute(f"CREATE TABLE {table} (name text)")
    store_file.chmod(0o644)
    before = _files(store_file.parent)

    done = invoke(*command.format(url=receiver.url).split())

    assert (done.exit_code, receiver.received) == (1, [])
    for part in (str(store_file), said, "give another file with --store"):
        assert part in done.stderr
    assert _files(store_file.parent) == before
    assert stat.S_IMODE(store_file.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "command",
    [
        "send --secret x",
        "send --url https://a.test/ --body a --no-body",
        "test nobody",
        "webhooks list",
        "webhooks pause nobody",
        "log",
        "resend 7",
    ],
)
def test_who_has_nothing_to_keep_gets_no_file(
    invoke: Invoke, store_file: Path, command: str
) -> None:
    invoke(*command.split())

    assert not store_file.parent.exists()


def test_what_cannot_be_kept_is_said_once(
    invoke: Invoke, receiver: Any, secret: str, store_file: Path
) -> None:
    store_file.parent.write_text("not a folder")

    done = invoke("send", "--url", receiver.url, "--secret", secret, "--count", "3", "--json")

    assert done.stderr.count("not kept") == 1
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [None] * 3


def test_an_event_to_a_url_is_sent_though_the_log_cannot_be_kept(
    invoke: Invoke, receiver: Any, secret: str, store_file: Path
) -> None:
    store_file.parent.write_text("not a folder")

    done = invoke("send", "--url", receiver.url, "--secret", secret)

    assert done.exit_code == 0
    assert "not kept" in done.stderr
    assert len(receiver.received) == 1


UNUSABLE = [
    (["webhooks", "add", "a"], "Missing option '--url'"),
    (["webhooks", "add", "a", "--url", "example.com"], "not an http or https URL"),
    (["webhooks", "add", "", "--url", "https://a.test/"], "give a name"),
    (["webhooks", "add", "a", "--url", "https://a.test/", "--events", ","], "has no event"),
    (["webhooks", "edit", "a"], "nothing to change"),
    (["test", "nobody"], 'no webhook profile "nobody" (have: none yet'),
    (["test"], "give the name of a webhook profile"),
    (["test", "a", "--url", "https://a.test/"], "give the name of a webhook profile"),
    (["send", "--secret", "x"], "--secret belongs to --url"),
    (["send", "--undelivered"], "--undelivered belongs to --form"),
    (["send", "--form", "--event", "X"], "--event: the legacy form has no such field"),
    (["send", "--template", "nothing"], 'no sample "nothing"'),
    (["replay", "-"], "holds no payloads"),
]


def test_bad_use_exits_2_and_says_what_to_do(invoke: Invoke) -> None:
    for arguments, said in UNUSABLE:
        done = invoke(*arguments)

        assert done.exit_code == 2
        assert said in done.stderr


def test_a_name_that_is_taken_is_refused(invoke: Invoke, add: Invoke) -> None:
    add("front-desk")

    done = invoke("webhooks", "add", "front-desk", "--url", "https://a.test/")

    assert done.exit_code == 1
    assert 'there is already a webhook profile "front-desk"' in done.stderr


def test_an_event_name_that_nobody_knows_is_kept_with_a_note(invoke: Invoke, add: Invoke) -> None:
    done = add("front-desk", "--events", "SMS_REPLYS")

    assert "SMS_REPLYS is not one of SMS_REPLY, SMS_RECEIVED, SMS_STATUS" in done.stderr


def test_legacy_forms_go_to_profiles_that_subscribe_to_them(
    invoke: Invoke, add: Invoke, receiver: Any
) -> None:
    add("events")
    add("status", "--events", "SMS_STATUS", "--basic", "gofax:pw")

    done = invoke("send", "--form", "--undelivered", "--to", "+61412345678", "--message-id", "7")

    assert done.exit_code == 0, done.output
    (form,) = receiver.received
    assert form.headers["content-type"] == "application/x-www-form-urlencoded"
    assert form.headers["authorization"] == "Basic Z29mYXg6cHc="
    assert form.body == (
        b"Recipient=61412345678&ID=7&Success=False"
        b"&Message=Message+not+delivered+in+allowable+time+frame"
    )


def test_a_template_is_changed_by_the_options_only(
    invoke: Invoke, receiver: Any, secret: str
) -> None:
    url = ("--url", receiver.url, "--secret", secret)

    invoke("send", "--template", "unknown-fields", "--from", "+61411111111", *url, "--count", 2)

    first, second = _bodies(receiver)
    sample = json.loads((SAMPLES / "unknown-fields.json").read_text())
    assert first["messageId"] not in (sample["messageId"], second["messageId"])
    assert first["eventTimestamp"] != sample["eventTimestamp"]
    fresh = {"messageId": "", "eventTimestamp": "", "from": ""}
    assert first | fresh == sample | fresh
    assert first["from"] == "+61411111111"
    assert all(each.verified for each in receiver.received)
