"""Test events: recognised as they come, marked for good, and routed only where they are wanted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fakes import accept, arrival
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.testing.events import sample_event
from relay.app import create_app
from relay.cli import cli
from relay.config import installed
from relay.config.document import ConfigError
from relay.config.load import load
from relay.config.model import Config
from relay.refused import Refusals
from relay.rules.routing import Check, Route, match
from relay.rules.tests import SENDER, EventPattern, is_test, proposed
from relay.store import Database, Inbox, Queries
from relay.store.values import EventView
from sender.commands import send as sender_commands

CONFIG = """\
store: sqlite:///relay.db
endpoints: [{path: /open, allow_unsigned: true}]
destinations: {crm: {connector: hubspot, access_token: test}}
routes:
  - {name: everything, to: [crm], stop: true}
  - {name: tests, when: {test: true, body: "(?i)chat"}, to: [crm]}
"""
Read = Callable[[str], Config]


@pytest.mark.parametrize("event_type", ["SMS_REPLY", "SMS_RECEIVED", "SMS_STATUS"])
def test_what_gofax_sender_sends_is_a_test_by_default(event_type: str) -> None:
    sent = sender_commands._test_payload(event_type)

    assert is_test(sample_event(message_id=sent.message_id, body=None), (SENDER,))


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        ({"message_id": "^abc"}, {}, True),
        ({"message_id": "^ABC"}, {}, False),
        ({"message_id": "^abc"}, {"message_id": None}, False),
        ({"text": "for your"}, {}, True),
        ({"text": "for your"}, {"body": None}, False),
        ({"text": "for your"}, {"body": "f\u200bor\u00a0your"}, True),  # as a route's body is
        ({"message_id": "^abc", "text": "hello"}, {}, False),  # all of an item
        ({"message_id": "^abc", "text": "message$"}, {}, True),
        ({"message_id": "^abc"}, {"type": "UNREADABLE"}, False),
    ],
)
def test_an_event_is_a_test(
    pattern: dict[str, str], event: dict[str, Any], expected: bool
) -> None:
    assert is_test(sample_event(**event), [EventPattern(**pattern)]) is expected


def test_one_item_of_several_is_enough() -> None:
    assert is_test(sample_event(), [SENDER, EventPattern(text="Thanks")])
    assert not is_test(sample_event(), [])


@pytest.mark.parametrize("pattern", [{}, {"text": ".*"}, {"text": "x?", "message_id": ""}])
def test_a_pattern_that_finds_everything_is_a_fault(pattern: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        EventPattern(**pattern)


@pytest.mark.parametrize(
    ("when", "test", "held"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"test": True}, True, True),
        ({"test": True}, False, False),
        ({"test": False}, True, False),
        ({"test": False}, False, True),
        ({"event": "SMS_REPLY"}, True, False),
        ({"test": True, "event": "SMS_STATUS"}, True, False),
    ],
)
def test_a_route_takes_tests_or_the_rest(when: dict[str, Any], test: bool, held: bool) -> None:
    route = Route.model_validate({"name": "r", "when": when, "to": ["crm"]})

    [asked] = match(sample_event(test=test), [route]).routes

    assert asked.matched is held
    if test or "test" in when:
        said = asked.checks[0]
        assert (said.condition, said.saw) == ("test", str(test).lower())
    if not when and test:
        assert asked.checks == (Check(condition="test", wanted="false", saw="true", held=False),)


@pytest.mark.parametrize(
    ("message_id", "body", "expected"),
    [
        ("test-0f3a", "Test 17 of it", {"message_id": "^test-[0-9a-f]{4}$",
                                        "text": "^Test [0-9]+ of it$"}),
        ("webhook_test.2026", None, {"message_id": r"^webhook_test\.[0-9]+$"}),
        # Any id may be like these: the text alone says that it is a test.
        ("0193a1b2c3d4", "Is it on?", {"text": r"^Is it on\?$"}),
        ("6f9619ff-8b86-d011-b42d-00cf4fc964ff", "(1)", {"text": r"^\([0-9]+\)$"}),
        (None, "one line\nand more", {"text": "^one line"}),
        (None, "a" * 100, {"text": "^" + "a" * 80}),
        ("4711", None, None),
        (None, " ", None),
    ],
)  # fmt: skip
def test_a_pattern_is_proposed_that_finds_it_and_its_like(
    message_id: str | None, body: str | None, expected: dict[str, str] | None
) -> None:
    event = sample_event(message_id=message_id, body=body)

    found = proposed(event)

    assert (found and found.model_dump(exclude_none=True)) == expected
    assert found is None or found.finds(event)


@given(st.text(max_size=30) | st.none(), st.text(max_size=30) | st.none())
def test_what_is_proposed_for_any_event_finds_it_and_can_be_copied(
    message_id: str | None, body: str | None
) -> None:
    event = sample_event(message_id=message_id, body=body)

    found = proposed(event)

    assert found is None or found.finds(event)
    for pattern in (found and found.message_id, found and found.text):
        assert pattern is None or pattern.isprintable()


@pytest.fixture
def read(path: Path) -> Read:
    """Load a config beside the store that the tests use."""

    def read(text: str) -> Config:
        file = path.parent / "config.yaml"
        file.write_text(text)
        return load(file, find_connector=lambda name: pytest.fail(name))

    return read


@pytest.fixture
def client(path: Path, database: Database, inbox: Inbox) -> Iterator[FlaskClient]:
    file = path.parent / "config.yaml"
    file.write_text(CONFIG)
    config = load(file, find_connector=installed.find)
    refusals = Refusals(inbox.refuse)
    yield create_app(config, database=database, inbox=inbox, refusals=refusals).test_client()
    refusals.close()


def post(client: FlaskClient, database: Database, **fields: object) -> EventView:
    said = {"eventType": "SMS_REPLY", "direction": "reply", "messageBody": "hello"} | fields
    headers = {"Content-Type": "application/json"}
    assert client.post("/open", data=json.dumps(said), headers=headers).status_code == 200
    view = Queries(database).event(str(fields["messageId"]))
    assert view is not None
    return view


TEST = "test-" + "0" * 24


def test_a_test_is_marked_and_goes_only_where_tests_are_wanted(
    client: FlaskClient, database: Database
) -> None:
    plain = post(client, database, messageId="m1")
    lost = post(client, database, messageId=TEST)
    wanted = post(client, database, messageId=TEST[:-1] + "1", messageBody="to the chat")

    assert [view.event.test for view in (plain, lost, wanted)] == [False, True, True]
    assert [len(view.deliveries) for view in (plain, lost, wanted)] == [1, 0, 1]
    assert [each["route"] for each in wanted.routing if each["matched"]] == ["tests"]


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--config", str(path.parent / "config.yaml")])


def test_people_and_programs_see_the_mark(
    client: FlaskClient, database: Database, path: Path
) -> None:
    post(client, database, messageId=TEST)

    explained = run(path, "explain", TEST).stdout

    assert "accepted, a test, " in explained
    assert "no: test is false (saw true)" in explained
    assert "it is a test, and no route for tests (when: {test: true}) matched" in explained
    assert "SMS_REPLY (test)" in run(path, "events").stdout
    assert json.loads(run(path, "events", "--json").stdout)["test"] is True


def test_replay_treats_it_as_what_it_was(
    client: FlaskClient, database: Database, path: Path
) -> None:
    config = path.parent / "config.yaml"
    post(client, database, messageId="m1")
    post(client, database, messageId=TEST)

    # Today's patterns find the other one.
    config.write_text(CONFIG.replace(', body: "(?i)chat"', "") + "tests: [{message_id: m1}]\n")

    [test] = json.loads(run(path, "replay", TEST, "--dry-run", "--json").stdout)["destinations"]
    assert (test["then"], test["now"]) == (False, True)
    [plain] = json.loads(run(path, "replay", "m1", "--dry-run", "--json").stdout)["destinations"]
    assert (plain["then"], plain["now"]) == (True, True)


class TestMarkTest:
    @pytest.fixture
    def file(self, path: Path, inbox: Inbox) -> Path:
        (path.parent / "config.yaml").write_text(CONFIG)
        accept(inbox, "gofax-test-17", body="This is a test (1)")
        accept(inbox, "gofax-test-18", body="This is a test (2)")
        inbox.accept(arrival("abc", body="hello"))
        inbox.accept(arrival("4711", body=None))
        return path

    def test_it_prints_what_to_write_and_what_that_finds(self, file: Path) -> None:
        said = run(file, "events", "--mark-test", "gofax-test-17")

        assert said.exit_code == 0, said.output
        yaml = said.stdout.partition("\n\n")[2].partition("\n\n")[0]
        assert yaml == (
            "tests:\n"
            "  - message_id: '^test-[0-9a-f]{24}$'\n"
            "  - message_id: '^gofax-test-[0-9]+$'\n"
            r"    text: '^This is a test \([0-9]+\)$'"
        )
        assert (
            "It finds this event and 1 more of the newest 4 events. Are they tests" in said.stdout
        )
        assert "gofax-test-18" in said.stdout
        (file.parent / "config.yaml").write_text(f"{CONFIG}{yaml}\n")
        assert "find it already" in run(file, "events", "--mark-test", "gofax-test-18").stdout

    def test_it_says_that_customers_may_write_a_text(self, file: Path) -> None:
        said = run(file, "events", "--mark-test", "abc").stdout

        assert "- text: '^hello$'" in said
        assert "It finds this event and no other of the newest 4 events." in said
        assert "a customer who writes this is taken for a test" in said

    def test_it_says_that_nothing_stands_out(self, file: Path) -> None:
        said = run(file, "events", "--mark-test", "4711")

        assert said.exit_code == 1
        assert "nothing tells it from a customer's" in said.stderr
        assert run(file, "events", "--mark-test", "nobody").exit_code == 1
        assert run(file, "events", "--mark-test", "abc", "--follow").exit_code == 2


def test_a_route_for_tests_needs_tests(read: Read) -> None:
    routes = "routes: [{to: [crm], when: {test: true}}]"

    with pytest.raises(ConfigError, match=r"routes\[0\].when.test: no event is a test with tests"):
        read(f"endpoints: [{{path: /open, allow_unsigned: true}}]\ntests: []\n{routes}")


def test_faults_of_tests_are_named_with_their_lines(read: Read) -> None:
    text = """\
endpoints: [{path: /open, allow_unsigned: true}]
tests:
  - {text: "(", message_id: "^x"}
  - {text: ".*"}
  - {body: "x"}
routes:
  - {to: [a], when: {any: [{test: true}]}}
"""

    with pytest.raises(ConfigError) as caught:
        read(text)

    said = str(caught.value)
    assert ":3: tests[0].text: not a regular expression of RE2: missing )" in said
    assert ":4: tests[1]: this is found in every event: none would be routed as usual" in said
    assert ":5: tests[2].body: unknown key" in said
    assert ":7: routes[0].when.any[0].test: tests match a route as a whole, or not" in said
