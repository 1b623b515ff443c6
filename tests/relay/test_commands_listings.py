"""Finding events and requests on the command line, and everything with one customer."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import (
    NOON,
    accept,
    arrival,
    delivered,
    eventually,
    failed,
    finish,
    request,
    take_one,
)
from terminals import terminal

from relay.cli import cli
from relay.rules.delivery import OutcomeKind
from relay.store import Database, Inbox, Queue
from relay.store.texts import Texts

CONFIG = """\
store: sqlite:///relay.db
time_zone: Australia/Sydney
endpoints:
  - {path: /webhooks/gofax, allow_unsigned: true}
destinations:
  crm: {connector: hubspot, access_token: test}
  chat: {connector: hubspot, access_token: test}
"""
ANNA, BERT = "+61412345678", "+61487654321"
HOUR = timedelta(hours=1)


@pytest.fixture
def folder(path: Path, inbox: Inbox, queue: Queue) -> Path:
    (path.parent / "config.yaml").write_text(CONFIG)
    accept(inbox, "m1", customer=ANNA, body="=1+1 see you\non Tuesday", to=("crm", "chat"))
    finish(queue, take_one(queue), delivered("ticket-7"))
    accept(inbox, "m2", customer=BERT, at=NOON + HOUR)
    inbox.accept(arrival("m3", customer=ANNA, ours="+61700000009", at=NOON + 2 * HOUR))
    inbox.refuse([request(outcome="refused", status=401, at=NOON, message_id="r1")])
    return path.parent


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--config", str(folder / "config.yaml")])


def names(said: Result) -> list[str]:
    return [json.loads(line)["message_id"] for line in said.stdout.splitlines()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--customer", "0412 345 678"), ["m1", "m3"]),
        (("--customer", "321"), ["m2"]),
        (("--destination", "chat"), ["m1"]),
        (("--state", "delivered"), ["m1"]),
        (("--message-id", "m2"), ["m2"]),
        # Noon in UTC is 23:00 in Sydney.
        (("--since", "2026-11-25T00:00"), ["m2", "m3"]),
        (("--until", "2026-11-24T12:30Z"), ["m1"]),
        (("--type", "SMS_REPLY", "--limit", "1"), ["m3"]),
        (("--standing", "conflict"), []),
    ],
)
def test_events_are_found(folder: Path, options: tuple[str, ...], expected: list[str]) -> None:
    assert names(run(folder, "events", "--json", *options)) == expected


def test_requests_are_found(folder: Path) -> None:
    assert names(run(folder, "requests", "--standing", "refused", "--json")) == ["r1"]
    assert names(run(folder, "requests", "--customer", "678", "--json")) == ["m1", "m3"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--customer", "78"), "3 digits or more"),
        (("--json", "--csv"), "not both"),
        (("--since", "1h", "--until", "2h"), "nothing is between them"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    folder: Path, options: tuple[str, ...], said: str
) -> None:
    done = run(folder, "events", *options)

    assert (done.exit_code, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())


def test_a_spreadsheet_gets_every_row_in_the_time_zone_and_no_formula(folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run(folder, "events", "--csv").stdout)))

    assert [row["message_id"] for row in rows] == ["m1", "m2", "m3"]
    assert rows[0]["received"] == "2026-11-24T23:00:00+11:00"
    assert rows[0]["text"] == "'=1+1 see you on Tuesday"
    assert rows[0]["from"] == ANNA
    assert rows[0]["links"] == "https://example.com/ticket-7"


def test_a_conversation_shows_texts_and_links_over_all_numbers_of_ours(folder: Path) -> None:
    said = run(folder, "conversation", "345678").stdout

    assert said.startswith(f"{ANNA}: 2 events\n")
    assert "2026-11-24 23:00:00 AEDT  → +61700000000  SMS_REPLY" in said
    assert '"=1+1 see you on Tuesday"' in said
    assert "✓ crm delivered: https://example.com/ticket-7" in said
    assert "+61700000009" in said and BERT not in said
    assert "Tuesday" not in run(folder, "conversation", "345678", "--hide-text").stdout


def test_a_conversation_of_several_customers_names_them(folder: Path, inbox: Inbox) -> None:
    accept(inbox, "m4", customer="+61400000678")

    done = run(folder, "conversation", "678")

    assert done.exit_code == 1
    assert f"several customers' numbers end so: +61400000678, {ANNA}" in done.stderr


def test_explain_shows_the_text_unless_it_is_to_be_hidden(folder: Path) -> None:
    assert '"=1+1 see you on Tuesday"' in run(folder, "explain", "m1").stdout
    for options in (("--hide-text",), ("--hide-text", "--json")):
        assert "Tuesday" not in run(folder, "explain", "m1", *options).stdout


@pytest.mark.parametrize("command", ["events", "requests"])
def test_what_comes_is_followed(folder: Path, inbox: Inbox, command: str) -> None:
    with terminal(command, "--follow", "--customer", BERT, folder=folder) as screen:
        eventually(lambda: "m2" in screen.said)
        accept(inbox, "m5", customer=ANNA)
        accept(inbox, "m6", customer=BERT)
        eventually(lambda: "m6" in screen.said)
        assert "m1" not in screen.said and "m5" not in screen.said
        screen.process.terminate()


def test_destinations_show_why_they_are_not_served(folder: Path, queue: Queue) -> None:
    claim = take_one(queue, limit=1, now=NOON + HOUR)
    finish(queue, claim, failed(OutcomeKind.UNAUTHORIZED, "token expired"), now=NOON + HOUR)

    said = run(folder, "destinations").stdout
    crm, chat = map(json.loads, run(folder, "destinations", "--json").stdout.splitlines())

    assert "paused (unauthorized)" in said and "token expired" in said
    assert (crm["name"], crm["state"], crm["backlog"]) == ("crm", "paused", 2)
    assert (chat["state"], chat["oldest"]) == ("served", NOON.isoformat())


def test_events_are_found_by_words_of_their_text(folder: Path) -> None:
    assert names(run(folder, "events", "--text", "TUESDAY you", "--json")) == ["m1"]
    assert names(run(folder, "events", "--text", "you tues", "--json")) == ["m1"]
    assert names(run(folder, "events", "--text", "hello", "--until", "2020-01-01", "--json")) == []
    assert names(run(folder, "requests", "--text", "hello", "--json")) == ["m2", "m3"]
    found = run(folder, "conversation", ANNA, "--text", "tuesday", "--json")
    assert names(found) == ["m1"]
    missing = run(folder, "conversation", ANNA, "--text", "wednesday")
    assert "no events with this customer and these words" in missing.stderr


@pytest.mark.parametrize(("typed", "said"), [
    ("🙂", "nothing to search for: write a word or a number"),
    ("\"*' -()", "nothing to search for"),
    ("\x1b\x00", "is empty"),
    ("  ", "is empty"),
])  # fmt: skip
def test_a_text_without_a_word_is_refused_with_what_to_do(
    folder: Path, typed: str, said: str
) -> None:
    ended = run(folder, "events", "--text", typed)

    assert ended.exit_code == 2
    assert said in ended.stderr


def test_a_search_says_beside_what_it_found_that_older_texts_are_not_indexed(
    folder: Path, database: Database
) -> None:
    Texts(database).index(limit=1)

    found = run(folder, "events", "--text", "hello", "--json")

    assert names(found) == ["m3"]
    before = "2026-11-25 00:00:00 AEDT"
    assert f"note: texts of events before {before} are not indexed yet" in found.stderr
