"""Sentiment: how texts are judged, and that nobody can keep the judge busy."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.app import create_app
from relay.config.document import ConfigError
from relay.config.load import load
from relay.config.model import Config
from relay.refused import Refusals
from relay.rules import sentiment
from relay.store import Database, Inbox, Queries

ENDPOINTS = "endpoints: [{path: /open, allow_unsigned: true}]\n"

judge = sentiment.vader()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Thanks, that was great!", "positive"),
        ("This is terrible, I want a refund!!", "negative"),
        ("It is at the front door", "neutral"),
        ("not good at all", "negative"),
        ("\U0001f600", "positive"),
        ("Wo bleibt das Paket?", "neutral"),
        ("!!!", "neutral"),
        (" ", "neutral"),
        ("\0\ud800", "neutral"),
    ],
)
def test_a_text_sounds(text: str, expected: str) -> None:
    assert judge(text) == expected


@pytest.mark.parametrize("text", ["\U0001f600", "but good ", "a ", "at least ", "!", "x"])
def test_no_text_keeps_the_receiver_busy(text: str) -> None:
    began = time.process_time()

    judge(text * (60_000 // len(text)))

    assert time.process_time() - began < 1


@settings(deadline=None)
@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    assert judge(text) in ("positive", "neutral", "negative")


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Config]:
    def read(text: str) -> Config:
        (tmp_path / "config.yaml").write_text(text)
        return load(tmp_path / "config.yaml", find_connector=lambda name: pytest.fail(name))

    return read


@pytest.fixture
def client(
    read: Callable[[str], Config], database: Database, inbox: Inbox, request: pytest.FixtureRequest
) -> Iterator[FlaskClient]:
    refusals = Refusals(inbox.refuse)
    config = read(ENDPOINTS + getattr(request, "param", "sentiment: vader\n"))
    yield create_app(config, database=database, inbox=inbox, refusals=refusals).test_client()
    refusals.close()


def stored_sentiment(client: FlaskClient, database: Database, **fields: object) -> str | None:
    event = {"messageId": "m1", "eventType": "SMS_REPLY", "direction": "reply"} | fields
    headers = {"Content-Type": "application/json"}
    assert client.post("/open", data=json.dumps(event), headers=headers).status_code == 200
    view = Queries(database).event("m1")
    assert view is not None
    return view.event.sentiment


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"messageBody": "This is terrible"}, "negative"),
        ({"messageBody": "See you at 3"}, "neutral"),
        ({}, None),
        ({"messageBody": ""}, None),
        # A command is no opinion, whatever its word sounds like.
        ({"messageBody": "Stop!"}, None),
        # What we wrote ourselves is not judged.
        ({"messageBody": "This is terrible", "direction": "outbound"}, None),
    ],
)
def test_an_event_keeps_how_its_text_sounds(
    client: FlaskClient, database: Database, fields: dict[str, object], expected: str | None
) -> None:
    assert stored_sentiment(client, database, **fields) == expected


@pytest.mark.parametrize("client", [""], indirect=True)
def test_it_is_off_unless_asked_for(client: FlaskClient, database: Database) -> None:
    assert stored_sentiment(client, database, messageBody="This is terrible") is None


def test_a_missing_package_is_one_line_with_the_mend(
    read: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment", None)

    with pytest.raises(ConfigError) as caught:
        read(ENDPOINTS + "sentiment: vader\n")

    [fault] = str(caught.value).splitlines()
    mend = 'pip install "gofax-relay[sentiment]"'
    assert fault.endswith(f":2: sentiment: vader needs the package vaderSentiment: {mend}")


def test_another_judge_is_a_fault(read: Callable[[str], Config]) -> None:
    with pytest.raises(ConfigError, match=":2: sentiment: .*vader"):
        read(ENDPOINTS + "sentiment: oracle\n")


ROUTES = """\
destinations: {}
routes:
  - to: []
    when:
      any:
        - not: {sentiment: negative}
"""


def test_a_route_that_asks_for_what_is_off_is_a_fault(read: Callable[[str], Config]) -> None:
    with pytest.raises(ConfigError) as off:
        read(ENDPOINTS + ROUTES)
    with pytest.raises(ConfigError) as on:
        read(ENDPOINTS + ROUTES + "sentiment: vader\n")

    words = "routes[0].when.any[0].not.sentiment: no event has a sentiment without"
    assert f":7: {words} sentiment: vader" in str(off.value)
    assert words not in str(on.value)
