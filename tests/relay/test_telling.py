"""Alerts by real channels: mail by SMTP and JSON by HTTP, from a process that reaches no other."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fakes import NOON
from pydantic import SecretStr

from connectors.suites.mailbox import Mailbox
from relay.config.model import Config
from relay.rules.kinds import Kind
from relay.rules.problems import Finding
from relay.store import Database
from relay.store.actions import Act
from relay.store.nodes import Node, Nodes
from relay.store.problems import Alert, Problems
from relay.telling import channels, heartbeat
from relay.telling.sender import masked
from relay.telling.watch import Watch

ENDPOINT = {"path": "/hook", "allow_unsigned": True}
LOOPBACK = {"allow": ["127.0.0.0/8"]}
ALERT = Alert(
    seq=7,
    channel="json-1",
    change="opened",
    kind=Kind.NO_WORKER,
    subject="",
    level="error",
    said="no worker is running",
    at=datetime(2026, 11, 24, 12, tzinfo=UTC),
    tries=1,
    repeat=False,
)


class Receiver:
    """Takes what is posted, and answers what it is told to."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.status, self.delay = 200, 0.0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                receiver.taken.append(json.loads(self.rfile.read(length)))
                time.sleep(receiver.delay)
                self._answer()

            def do_GET(self) -> None:
                receiver.taken.append({"path": self.path})
                self._answer()

            def _answer(self) -> None:
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


def config(*urls: str, **values: Any) -> Config:
    given = {
        "endpoints": [ENDPOINT],
        "alerts": [{"url": url} for url in urls],
        "outbound": LOOPBACK,
        **values,
    }
    return Config.model_validate(given)


def send(config: Config, *alerts: Alert, **options: Any) -> dict[int, str | None]:
    (channel,) = config.alerts
    messages = [channels.message_of(each) for each in alerts or [ALERT]]
    return dict(channels.send(config, channel, messages, **options))


def test_json_is_posted(receiver: Receiver) -> None:
    assert send(config(f"json://{receiver.address}/token")) == {7: None}

    (taken,) = receiver.taken
    assert taken["title"] == "gofax-relay: no worker: opened"
    assert taken["message"].startswith("no worker is running\nopened 2026-11-24 12:00:00Z")
    assert taken["type"] == "failure"


def test_mail_goes_by_a_real_server() -> None:
    with Mailbox() as mailbox:
        url = f"mailto://127.0.0.1:{mailbox.port}?from=relay@example.com&to=desk@example.com"
        assert send(config(url)) == {7: None}

    (mail,) = mailbox.messages
    assert mail["Subject"] == "gofax-relay: no worker: opened"
    assert mailbox.recipients == [["desk@example.com"]]


def test_what_follows_a_failure_is_not_tried(receiver: Receiver) -> None:
    receiver.status = 503
    after = Alert(**{name: getattr(ALERT, name) for name in ALERT.__slots__} | {"seq": 8})

    results = send(config(f"json://{receiver.address}/a-secret-token"), ALERT, after)

    assert list(results) == [7]
    assert "503" in str(results[7])
    assert "a-secret-token" not in str(results)
    assert len(receiver.taken) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_private_address_needs_to_be_allowed(receiver: Receiver, host: str) -> None:
    port = receiver.server.server_port

    (reason,) = send(config(f"json://{host}:{port}", outbound={"allow": []})).values()

    assert "is a private address: outbound.allow does not contain it" in str(reason)
    assert receiver.taken == []


def test_a_channel_that_does_not_answer_is_left_at_the_deadline(receiver: Receiver) -> None:
    receiver.delay = 4.0
    started = time.monotonic()

    assert send(config(f"json://{receiver.address}"), deadline=3.5) == {}

    assert time.monotonic() - started < 4.0


def test_one_that_may_be_repeated_says_so(receiver: Receiver) -> None:
    values = {name: getattr(ALERT, name) for name in ALERT.__slots__} | {"repeat": True}

    send(config(f"json://{receiver.address}"), Alert(**values))

    assert "This may be a repetition" in receiver.taken[0]["message"]


def test_no_part_of_a_url_is_shown() -> None:
    url = "mailto://user:pass%20word@mail.example.com/?to=desk@example.com"

    said = masked("cannot reach mail.example.com as user with pass%20word", url)

    assert said == "cannot reach *** as user with ***"


def test_the_heartbeat_is_called(receiver: Receiver) -> None:
    well = config(heartbeat=f"http://{receiver.address}/ping/token")

    assert heartbeat.call(well) == ""

    assert receiver.taken == [{"path": "/ping/token"}]


def test_a_heartbeat_that_fails_says_why_without_its_url(receiver: Receiver) -> None:
    receiver.status = 500
    url = f"http://{receiver.address}/ping/token"

    assert heartbeat.call(config(heartbeat=url)) == "answered 500"
    blocked = heartbeat.call(config(heartbeat=url, outbound={"allow": []}))
    assert "127.0.0.1" in blocked
    assert "token" not in blocked


@pytest.fixture
def nodes(database: Database, receiver: Receiver) -> list[Watch]:
    """Two nodes with a heartbeat, the first of which calls."""
    named = ["a", "b"]
    for name in named:
        Nodes(database).beat(Node(name=name, role="worker", version="1", host="here", pid=1))
    given = config(heartbeat=f"http://{receiver.address}/ping")
    return [Watch(given, database, node=name) for name in named]


def test_one_node_calls_while_all_is_well(receiver: Receiver, nodes: list[Watch]) -> None:
    for node in nodes:
        node.call()

    assert receiver.taken == [{"path": "/ping"}]


def test_the_next_node_calls_when_the_first_has_left(
    receiver: Receiver, nodes: list[Watch], database: Database
) -> None:
    Nodes(database).leave("a")

    nodes[1].call()

    assert receiver.taken == [{"path": "/ping"}]


def test_nobody_calls_while_an_error_is_open_that_nobody_has_acknowledged(
    receiver: Receiver, nodes: list[Watch], database: Database
) -> None:
    problems = Problems(database)
    found = Finding(kind=Kind.FAILING, subject="crm", said="it fails")
    problems.judge([found], channels=lambda problem, change: ())

    nodes[0].call()
    assert receiver.taken == []
    problems.acknowledge(problems.unresolved(), Act(who="ann", why=None, at=NOON))
    nodes[0].call()

    assert receiver.taken == [{"path": "/ping"}]


def test_urls_are_secrets_and_channels_have_names() -> None:
    made = config("json://127.0.0.1/hush-hush", "json://127.0.0.2/hush-hush")

    assert [each.name for each in made.alerts] == ["json-1", "json-2"]
    assert "hush" not in repr(made)
    assert isinstance(made.alerts[0].url, SecretStr)


@pytest.mark.parametrize(
    ("alerts", "fault"),
    [
        ([{"url": "nonsense"}], "write a URL of Apprise"),
        ([{"url": "json://"}], "write a URL of Apprise"),
        ([{"url": "json://a", "name": "x"}, {"url": "json://b", "name": "x"}], "named x"),
        ([{"url": "json://a", "kinds": ["nothing"]}], "unauthorized"),
        ([{"url": "json://a", "changes": []}], "at least 1"),
    ],
)
def test_what_cannot_work_is_a_fault(alerts: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        config(alerts=alerts)


def test_a_channel_gets_what_it_wants() -> None:
    (all_of_it, one_kind) = config(
        alerts=[{"url": "json://a"}, {"url": "json://b", "kinds": ["dead"], "changes": ["opened"]}]
    ).alerts

    assert all_of_it.wants(Kind.FAILING, "resolved")
    assert one_kind.wants(Kind.DEAD, "opened")
    assert not one_kind.wants(Kind.DEAD, "resolved")
    assert not one_kind.wants(Kind.HELD, "opened")
