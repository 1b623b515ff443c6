"""What links to the console from elsewhere: what connectors make, previews, alerts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from consoles import Console, console
from fakes import NOON, Scripted, accept, destination, take_one

from connectors import sandbox
from connectors.sandbox.records import Records
from relay import attempts, destinations
from relay.acts import trying
from relay.config import installed
from relay.config.load import load
from relay.config.model import Config
from relay.rules.access import Role
from relay.rules.advice import ADVICE
from relay.rules.kinds import Kind
from relay.rules.pages import REPOSITORY, event_page, problem_page
from relay.shapes import sample as samples
from relay.store import Database, Inbox, Queue
from relay.store.problems import Alert
from relay.telling import channels

ADDRESS = "https://relay.example.com"
MESSAGE = {"messageId": "m1", "eventType": "SMS_REPLY", "direction": "reply",
           "from": "+61400000001", "to": "+61700000000", "messageBody": "Hello"}  # fmt: skip


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def config(tmp_path: Path, records: Records) -> Iterator[Config]:
    """A config with an address of the console, whose destinations are stand-ins."""
    with sandbox.serving(sandbox.create_app(records)) as url:
        (tmp_path / "config.yaml").write_text(
            f"store: sqlite:///relay.db\nadmin: {{url: '{ADDRESS}'}}\n"
            "outbound: {allow: ['127.0.0.0/8']}\n"
            "endpoints: [{path: /in, allow_unsigned: true}]\n"
            "destinations:\n"
            f"  chat: {{connector: teams, url: '{url}/teams'}}\n"
            f"  flow: {{connector: webhook, url: '{url}/webhook'}}\n"
            f"  notes: {{connector: zendesk, subdomain: a, access_token: t, public: false,"
            f" base_url: '{url}/zendesk'}}\n"
            f"  tickets: {{connector: zendesk, subdomain: a, access_token: t,"
            f" base_url: '{url}/zendesk'}}\n"
            f"  crm: {{connector: hubspot, access_token: t, base_url: '{url}/hubspot'}}\n"
            "routes: [{name: all, to: [chat, flow, notes, tickets, crm]}]\n"
        )
        yield load(tmp_path / "config.yaml", find_connector=installed.find)


def test_a_connector_is_given_the_page_of_its_event(queue: Queue, inbox: Inbox) -> None:
    accept(inbox, "m1")
    claim, crm = take_one(queue), Scripted()

    attempts.attempt(replace(destination("crm", crm), console=ADDRESS), claim)

    (call,) = crm.calls
    assert call.event.url == f"{ADDRESS}/console/events/{claim.event.id}"


@pytest.mark.parametrize("admin", ["off", {}, {"listen": "127.0.0.1:9999"}])
def test_without_an_address_that_people_reach_nothing_links(admin: Any) -> None:
    given = {
        "endpoints": [{"path": "/in", "allow_unsigned": True}],
        "admin": admin,
        "destinations": {},
    }

    config = Config.model_validate(given)

    assert config.admin is None or config.admin.url is None
    assert destination("crm", Scripted()).console is None


def test_what_colleagues_read_links_and_what_customers_may_read_does_not(config: Config) -> None:
    sample = samples.of_bytes(config, json.dumps(MESSAGE).encode())
    link = f"{ADDRESS}/console/events/{sample.event.id}"

    shown = {
        each.destination: str([preview.content for preview in each.previews or ()])
        for each in samples.shown(config, sample)
    }

    assert {name for name, content in shown.items() if link in content} == {
        "chat",
        "flow",
        "notes",
        "crm",
    }
    assert "Hello" in shown["tickets"]
    assert "/console/" not in shown["tickets"]


def test_a_test_is_kept_nowhere_and_so_has_no_page(config: Config, records: Records) -> None:
    for name in ("chat", "flow", "notes", "crm"):
        assert trying.send_test(config, name, who="mary").is_good

    assert len(records.listing()) == 4
    assert "/console/" not in str(records.listing())


def test_the_sandbox_shows_the_link(config: Config, inbox: Inbox, queue: Queue) -> None:
    accept(inbox, "m1", to=("chat", "crm", "notes"))
    built = destinations.build(config)

    for name in ("chat", "crm", "notes"):
        claim = take_one(queue, destination=name)
        assert attempts.attempt(built[name], claim).receipt is not None
    for each in built.values():
        each.connector.close()

    given = config.destinations["chat"].options.model_dump()["url"].get_secret_value()
    page = requests.get(given.removesuffix("teams"), timeout=10).text
    assert page.count(f"{ADDRESS}/console/events/{claim.event.id}") >= 3


ALERT = Alert(
    seq=1, channel="mail", change="opened", kind=Kind.UNAUTHORIZED, subject="the crm",
    level="error", said="the crm refuses", at=NOON, tries=1, repeat=False,
)  # fmt: skip


def test_an_alert_ends_with_the_page_that_mends_it() -> None:
    *_, last = channels.message_of(ALERT, console=ADDRESS)["body"].splitlines()

    assert last == f"{ADDRESS}/console/destinations/the%20crm"


def test_an_alert_without_an_address_has_no_link_to_the_console() -> None:
    assert "/console" not in channels.message_of(ALERT)["body"]


def test_an_alert_leads_to_the_section_that_says_how_to_mend_it_until_it_is_over() -> None:
    section = f"{REPOSITORY}/docs/mending.md#unauthorized"

    assert section in channels.message_of(ALERT)["body"]
    assert section not in channels.message_of(replace(ALERT, change="resolved"))["body"]


@pytest.fixture
def running(tmp_path: Path, database: Database) -> Iterator[Console]:
    with console(tmp_path, database) as made:
        yield made


def test_each_problem_leads_to_a_page_that_there_is(running: Console) -> None:
    visitor = running.visitor(Role.VIEWER)

    statuses = {kind: visitor.get(problem_page(kind, "crm")).status for kind in Kind}

    assert set(statuses.values()) == {200}, statuses


def test_an_event_leads_to_a_page_that_there_is(running: Console) -> None:
    id = running.sms("m1", "Is it on?")

    page = running.visitor(Role.VIEWER).get(event_page(id))

    assert page.status == 200
    assert "Is it on?" in page.text


@pytest.mark.parametrize("subject", ["a/b", "../x", "ä?&#", ""])
def test_no_name_leaves_the_console(subject: str) -> None:
    for kind in Kind:
        parts = urlsplit(ADDRESS + problem_page(kind, subject))

        assert parts.netloc == "relay.example.com"
        assert parts.path.startswith("/console/")
        assert ".." not in parts.path.split("/")


def test_every_kind_has_its_advice() -> None:
    assert set(ADVICE) == set(Kind)
