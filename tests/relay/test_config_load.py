"""The file that people write: what it may say, and how its faults are told."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar, Literal

import pytest
import trustme
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr, model_validator

from connectors.base import Connector, Event, Options, Receipt
from relay import destinations
from relay.commands.check import plan
from relay.config.business_hours import BusinessHours
from relay.config.document import HALF, ConfigError, written
from relay.config.endpoints import BasicAuth, Endpoint, SignatureScheme
from relay.config.load import Need, load, load_document
from relay.config.model import (
    THREADS,
    Admin,
    AlertChannel,
    Config,
    DestinationConfig,
    Logs,
    Outbound,
    Requests,
    Retry,
    Server,
)
from relay.rules.delivery import Policy
from relay.rules.routing import Route, When
from relay.rules.scheme import Scheme
from relay.rules.tests import EventPattern
from relay.rules.units import RateLimit

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
#: What must never be shown, in a piece that no scanner takes for a secret.
HIDDEN = "hush" * 3
ENVIRON = {
    "GOFAX_SIGNING_SECRET": HIDDEN,
    "GOFAX_STATUS_PASSWORD": HIDDEN,
    "HUBSPOT_ACCESS_TOKEN": HIDDEN,
    "ZENDESK_CLIENT_SECRET": HIDDEN,
    "TEAMS_WORKFLOW_URL": f"https://example.com/flow?sig={HIDDEN}",
}
#: What is needed only when everything in the example is switched on.
FURTHER = {
    "SMTP_PASSWORD": HIDDEN,
    "GOFAX_METRICS_TOKEN": HIDDEN,
    "FLOW_URL": f"https://example.com/flow?sig={HIDDEN}",
    "FLOW_SECRET": "whsec_" + base64.b64encode(HIDDEN.encode() * 2).decode(),
    "FLOW_TOKEN": HIDDEN,
    "ALERTS_URL": f"json://example.com/{HIDDEN}",
    "HEARTBEAT_URL": f"https://example.com/{HIDDEN}",
}
ENDPOINT = "endpoints: [{path: /hook, signing_secrets: [one]}]\n"


class MailOptions(Options):
    token: SecretStr
    port: int = Field(25, ge=1)
    color: Literal["red", "green"] = "red"
    mode: str = "a"

    @model_validator(mode="after")
    def _consistent(self) -> MailOptions:
        if self.mode == "b" and self.port == 25:
            raise ValueError("mode b needs another port")
        return self


class Mail(Connector[MailOptions]):
    Options: ClassVar[type[BaseModel]] = MailOptions
    default_rate: ClassVar[str | None] = "4/1s"
    default_concurrency = 3

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        return Receipt(reference=key)

    def check(self) -> str:
        return "fine"


class Plain(Mail):
    """One without options or limits of its own."""

    Options = Options
    default_rate = None


def find_connector(name: str) -> type[Connector[Any]]:
    known = {"mail": Mail, "plain": Plain}
    if name not in known:
        raise LookupError(f'no connector named "{name}" (installed: mail, plain)')
    return known[name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


Read = Callable[..., Config]
Faults = Callable[..., list[str]]


@pytest.fixture
def read(file: Path) -> Read:
    """Load a text, with keyword arguments as the environment."""

    def read(text: str, **environ: str) -> Config:
        file.write_text(dedent(text), encoding="utf-8")
        return load(file, find_connector=find_connector, environ=environ)

    return read


@pytest.fixture
def faults(file: Path, read: Read) -> Faults:
    """Load a text that cannot be used, and return its faults as ``line: words``."""

    def faults(text: str, **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read(text, **environ)
        lines = str(caught.value).split("\n")
        assert len(lines) == len(caught.value.faults)
        assert all(line.startswith(f"{file}:") for line in lines)
        return [line.removeprefix(f"{file}:") for line in lines]

    return faults


class TestDefaults:
    def test_one_endpoint_is_enough(self, read: Read, file: Path) -> None:
        config = read(ENDPOINT)

        assert config.server == Server(
            listen="127.0.0.1:8080",
            trusted_proxies=0,
            max_body=65_536,
            threads=512,
            rate_per_address=None,
        )
        assert config.store == f"sqlite:///{file.parent}/relay.db"
        assert (config.retention, config.engine) == (timedelta(days=90), THREADS)
        assert (config.outbound.allow, config.destinations, config.routes) == ((), {}, ())

    def test_of_an_endpoint(self, read: Read) -> None:
        [endpoint] = read(ENDPOINT).endpoints

        assert (endpoint.path, endpoint.name, endpoint.format) == ("/hook", "/hook", "json")
        assert [each.get_secret_value() for each in endpoint.signing_secrets] == ["one"]
        assert endpoint.signature.model_dump() == {
            "header": "X-GoFax-Signature",
            "field": None,
            "encoding": "auto",
            "signs": "body",
            "timestamp_header": None,
            "tolerance": None,
            "secret_encoding": "text",
        }
        assert (endpoint.basic_auth, endpoint.allow_unsigned) == (None, False)
        assert (endpoint.on_duplicate, endpoint.dedupe_by) == ("revive", ("messageId",))
        assert endpoint.rate is None

    def test_of_a_destination_are_its_connectors(self, read: Read) -> None:
        config = read(ENDPOINT + "destinations: {a: {connector: mail, token: x}}")

        mail = config.destinations["a"]
        assert (mail.rate, mail.concurrency) == (RateLimit(4, timedelta(seconds=1)), 3)
        assert mail.deadline == timedelta(seconds=25)
        assert mail.policy == Policy()
        assert isinstance(mail.options, MailOptions)
        assert (mail.options.port, mail.options.token.get_secret_value()) == (25, "x")

    def test_a_connector_without_a_rate_has_no_limit(self, read: Read) -> None:
        config = read(ENDPOINT + "destinations: {a: {connector: plain}}")

        assert config.destinations["a"].rate is None

    def test_destinations_of_one_connection_need_one_rate(
        self, read: Read, faults: Faults
    ) -> None:
        shared = "connector: plain, connection: x, rate: 4/1s"
        text = f"{ENDPOINT}destinations:\n  a: {{{shared}}}\n  b: {{{shared}"

        config = read(text + "}\n")
        [fault] = faults(text + ", burst: 2}\n")

        limits = [each.limit for each in config.destinations.values()]
        assert limits == [RateLimit(4, timedelta(seconds=1))] * 2
        assert fault.endswith(
            "destinations.b.connection: a shares it and has another rate "
            "(4/1s; here 4/1s, 2 at once); write one"
        )

    def test_a_destination_may_say_otherwise(self, read: Read) -> None:
        config = read(
            ENDPOINT
            + """\
destinations:
  a:
    connector: mail
    token: x
    port: 465
    rate: 7/1m
    concurrency: 1
    deadline: 5s
    retry: {schedule: [1s, 2m], for: 1h}
    on_ambiguous: hold
    on_dead: hold
"""
        )

        mail = config.destinations["a"]
        assert (mail.rate, mail.concurrency) == (RateLimit(7, timedelta(minutes=1)), 1)
        assert mail.deadline == timedelta(seconds=5)
        assert mail.policy == Policy(
            schedule=(timedelta(seconds=1), timedelta(minutes=2)),
            window=timedelta(hours=1),
            on_ambiguous="hold",
            on_dead="hold",
        )
        assert mail.options.model_dump()["port"] == 465

    def test_routes_are_named_by_their_position(self, read: Read) -> None:
        config = read(
            ENDPOINT
            + "destinations: {a: {connector: plain}}\n"
            + "routes: [{to: [a]}, {name: mine, to: [a]}, {to: [a], stop: true}]"
        )

        assert [each.name for each in config.routes] == ["route 1", "mine", "route 3"]

    def test_nothing_of_it_changes(self, read: Read) -> None:
        with pytest.raises(ValueError, match="frozen"):
            read(ENDPOINT).server.threads = 1  # type: ignore[misc]  # that is the point


def test_an_address_has_host_and_port(read: Read) -> None:
    rows = [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::1]:65535", "::1", 65535),
        ("localhost:80", "localhost", 80),
    ]

    for listen, host, port in rows:
        server = read(ENDPOINT + f"server: {{listen: '{listen}'}}").server
        assert (server.host, server.port) == (host, port)


def test_the_inner_listener_is_on_loopback_or_guarded_or_off(read: Read) -> None:
    def admin(said: str) -> Admin | None:
        return read(f"{ENDPOINT}{said}").admin

    assert admin("") == Admin(listen="127.0.0.1:8081")
    assert admin("admin: off") is admin("admin: 'off'") is None
    for listen in ("127.0.0.1:0", "127.8.9.1:8081", "[::1]:8081", "localhost:8081"):
        assert admin(f"admin: {{listen: '{listen}'}}")
    guarded = admin("admin: {listen: '0.0.0.0:8081', metrics_token: for-prometheus}")
    assert guarded is not None and guarded.metrics_token is not None


def test_only_who_listens_needs_the_token_of_the_metrics(file: Path) -> None:
    said = "admin: {listen: '0.0.0.0:8081', metrics_token: '${NOT_SET}'}"
    file.write_text(ENDPOINT + said, encoding="utf-8")

    for need in (Need.ENDPOINTS, Need.NO_SECRETS):
        config, _ = load_document(file, find_connector=destinations.find, environ={}, need=need)
        assert config.admin is not None
    with pytest.raises(ConfigError, match="admin.metrics_token: environment variable NOT_SET"):
        load_document(file, find_connector=destinations.find, environ={})


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///relay.db", "relay.db"),
        ("sqlite:///var/relay.db", "var/relay.db"),
        ("sqlite:///./relay.db", "relay.db"),
    ],
)
def test_a_relative_store_lies_beside_the_file(
    read: Read, file: Path, monkeypatch: pytest.MonkeyPatch, url: str, path: str
) -> None:
    elsewhere = file.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    assert read(ENDPOINT + f"store: {url}").store == f"sqlite:///{file.parent / path}"


def test_an_absolute_store_lies_where_it_says(read: Read) -> None:
    assert read(ENDPOINT + "store: sqlite:////srv/relay.db").store == "sqlite:////srv/relay.db"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://relay@db/gofax", "postgresql://relay@db/gofax"),
        (f"postgres://relay:{HIDDEN}@db:5433/gofax", "postgres://relay:***@db:5433/gofax"),
        (f"postgresql://relay:{HIDDEN}%3Aa%40b@db/gofax", "postgresql://relay:***@db/gofax"),
        (
            f"postgresql://relay:{HIDDEN}@db1:5432,db2:5432/gofax?sslmode=verify-full",
            "postgresql://relay:***@db1:5432,db2:5432/gofax?sslmode=verify-full",
        ),
    ],
)
def test_a_server_is_taken_as_it_is_and_shown_without_its_password(
    read: Read, url: str, shown: str
) -> None:
    config = read(ENDPOINT + f"store: {url}")

    assert (config.store, config.store_name) == (url, shown)
    assert HIDDEN not in repr(config)


def test_a_relative_config_makes_an_absolute_store(
    read: Read, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(ENDPOINT)
    monkeypatch.chdir(file.parent)

    config = load(Path(file.name), find_connector=find_connector, environ={})

    assert config.store == f"sqlite:///{file.parent}/relay.db"


#: Rest of the file behind an endpoint in line 1; what is said of it.
ONE_FAULT = [
    (
        "public_url: sms.example.com",
        "2: public_url: write the address that GoFax posts to, such as https://sms.example.com",
    ),
    (
        "public_url: https://sms.example.com/?to=here",
        "2: public_url: write it without user, ? and #: paths of endpoints are added to it",
    ),
    ("server: {listen: 8080}", "2: server.listen: input should be a valid string"),
    ("server: {listen: ':8080'}", "2: server.listen: write host:port, such as 127.0.0.1:8080"),
    ("server: {listen: 'a:b'}", "2: server.listen: write host:port, such as 127.0.0.1:8080"),
    ("server: {listen: 'a:65536'}", "2: server.listen: write host:port, such as 127.0.0.1:8080"),
    ("server: {threads: 3}", "2: server.threads: input should be greater than or equal to 4"),
    ("server: {trusted_proxies: -1}",
     "2: server.trusted_proxies: input should be greater than or equal to 0"),
    ("server: {max_body: 64K}", "2: server.max_body: write a size such as 64KiB or 1MB"),
    ("server: {rate_per_address: fast}",
     "2: server.rate_per_address: write a rate such as 100/10s or 4/1s"),
    ("admin: {listen: '0.0.0.0:8081'}",
     "2: admin: metrics_token is needed: other machines reach this address; "
     "or listen on 127.0.0.1:8081"),
    ("admin: {listen: 'relay.example.com:8081'}",
     "2: admin: metrics_token is needed: other machines reach this address; "
     "or listen on 127.0.0.1:8081"),
    ("admin:", "2: admin: write off, or {listen: 127.0.0.1:8081}"),
    ("admin: {listn: x}", "2: admin.listn: unknown key; did you mean listen?"),
    ("server: {thread: 9}", "2: server.thread: unknown key; did you mean threads?"),
    ("server: {encodin: x}", "2: server.encodin: unknown key"),  # a key of another place
    ("encoding: x", "2: encoding: unknown key"),
    ("server:", "2: server: write a mapping of keys"),
    ("server: [a]", "2: server: write a mapping of keys"),
    ("sever: {}", "2: sever: unknown key; did you mean server?"),
    ("xyzzy: 1", "2: xyzzy: unknown key"),
    ("retention: 90", "2: retention: write a time such as 30s, 5m, 1h30m or 90d"),
    ("retention: 9999999999w", "2: retention: too long"),
    ("engine: celery",
     "2: engine: write threads, or {celery: {broker: amqp://user@host}}"),
    ("engine: {celery: }",
     "2: engine: write threads, or {celery: {broker: amqp://user@host}}"),
    ("engine: {}\nstore: postgresql://host/db",
     "2: engine: write threads, or {celery: {broker: amqp://user@host}}"),
    ("engine: {celery: {}}\nstore: postgresql://host/db",
     "2: engine.celery.broker: this key is needed"),
    ("engine: {celery: {broker: amqp://host, brokr: x}}\nstore: postgresql://host/db",
     "2: engine.celery.brokr: unknown key; did you mean broker?"),
    ("engine: {celery: {broker: amqp://host}}",
     "2: engine: a fleet cannot share a SQLite file; write store: postgresql://user@host/db"),
    *[(f"engine: {{celery: {{broker: '{broker}'}}}}\nstore: postgresql://host/db",
       "2: engine.celery.broker: write amqp://user@host/vhost or redis://host/0")
      for broker in ["x", "kafka://host", "amqp://", "redis:///0", "amqp://host:x", "amqp://[::1"]],
    ("store: postgresql://user@host",
     "2: store: write postgresql://user@host/db: host and name of the database"),
    ("store: 'postgresql:///db'",
     "2: store: write postgresql://user@host/db: host and name of the database"),
    ("store: 'postgresql://[::1/db'",
     "2: store: write postgresql://user@host/db: host and name of the database"),
    *[(f"store: 'postgresql://{host}/db'",
       "2: store: write postgresql://user@host:5432/db: a port is a number")
      for host in ["host:54x2", "me:HIDDEN@host:54x2", "[::1]:x"]],
    ("store: postgresql://host/db?password=HIDDEN",
     "2: store: write the password before the host: postgresql://user:password@host/db"),
    ("store: relay.db",
     "2: store: write sqlite:///relay.db (beside this file), sqlite:////path "
     "or postgresql://user@host/db"),
    ("store: 'sqlite:///'",
     "2: store: write sqlite:///relay.db (beside this file), sqlite:////path "
     "or postgresql://user@host/db"),
    ("outbound: {allow: [127.0.0.1/8]}",
     "2: outbound.allow[0]: not a network such as 127.0.0.0/8: 127.0.0.1/8 has host bits set"),
    ("outbound: {allow: 127.0.0.0/8}", "2: outbound.allow: write a list, such as [a, b]"),
    ("destinations: [a]", "2: destinations: write name: {connector: …} for each destination"),
    ("destinations: 5", "2: destinations: write name: {connector: …} for each destination"),
    ("destinations: {a: mail}", "2: destinations.a: write {connector: …} and its options"),
    ("destinations: {a: }", "2: destinations.a: write {connector: …} and its options"),
    ("destinations: {a: {}}", "2: destinations.a.connector: this key is needed"),
    ("destinations: {a: {connector: fax}}",
     '2: destinations.a.connector: no connector named "fax" (installed: mail, plain)'),
    ("destinations: {a: {connector: mail}}", "2: destinations.a.token: this key is needed"),
    ("destinations: {a: {connector: mail, token: x, port: 0}}",
     "2: destinations.a.port: input should be greater than or equal to 1"),
    ("destinations: {a: {connector: mail, token: x, color: blue}}",
     "2: destinations.a.color: input should be 'red' or 'green'"),
    ("destinations: {a: {connector: mail, token: x, mode: b}}",
     "2: destinations.a: mode b needs another port"),
    ("destinations: {a: {connector: mail, token: x, prot: 1}}",  # a key of the connector
     "2: destinations.a.prot: unknown key; did you mean port?"),
    ("destinations: {a: {connector: mail, token: x, on_daed: hold}}",  # and one of ours
     "2: destinations.a.on_daed: unknown key; did you mean on_dead?"),
    ("destinations: {a: {connector: plain, options: {}}}",
     "2: destinations.a.options: unknown key"),
    ("destinations: {a: {connector: plain, concurrency: 0}}",
     "2: destinations.a.concurrency: input should be greater than or equal to 1"),
    ("destinations: {a: {connector: plain, retry: {schedule: []}}}",
     "2: destinations.a.retry.schedule: needs at least one"),
    ("destinations: {a: {connector: plain, retry: {schedule: [5s, soon]}}}",
     "2: destinations.a.retry.schedule[1]: write a time such as 30s, 5m, 1h30m or 90d"),
    ("destinations: {a: {connector: plain, retry: {for: ever}}}",
     "2: destinations.a.retry.for: write a time such as 30s, 5m, 1h30m or 90d"),
    ("destinations: {a: {connector: plain, retry: {shedule: [5s]}}}",
     "2: destinations.a.retry.shedule: unknown key; did you mean schedule?"),
    ("routes: [{to: [crm]}]",
     '2: routes[0].to[0]: no destination named "crm" (there are none)'),
    ("destinations: {a: {connector: plain}, b: {connector: plain}}\nroutes: [{to: [a, c]}]",
     '3: routes[0].to[1]: no destination named "c" (have: a, b)'),
    ("routes: [{name: x}]", "2: routes[0].to: this key is needed"),
    ("routes: [{to: a}]", "2: routes[0].to: write a list, such as [a, b]"),
    ("routes: [{to: []}]", "2: routes[0].to: needs at least one"),
    ("routes: {to: [a]}", "2: routes: write a list, such as [a, b]"),
    ("routes: [a]", "2: routes[0]: write a mapping of keys"),
    ("destinations: {a: {connector: plain}}\nroutes: [{to: [a], whne: {}}]",
     "3: routes[0].whne: unknown key; did you mean when?"),
    ("destinations: {a: {connector: plain}}\nroutes: [{to: [a], when: {evnt: x}}]",
     "3: routes[0].when.evnt: unknown key; did you mean event?"),
    ("destinations: {a: {connector: plain}}\nroutes: [{to: [a], when: {event: }}]",
     "3: routes[0].when.event: empty: give a value, or leave the condition out"),
    ("destinations: {a: {connector: plain}}\nroutes: [{to: [a], when: {body: '('}}]",
     "3: routes[0].when.body[0]: not a regular expression of RE2: missing ): ("),
    ("destinations: {a: {connector: plain}}\nroutes: [{to: [a], when: {event: [A, []]}}]",
     "3: routes[0].when.event[1]: input should be a valid string"),
    ('"\\ud83d": 1', f"2: \ufffd: {HALF}"),
    ('server: {listen: "x\\udcf1"}', f"2: server.listen: {HALF}"),
]  # fmt: skip


def test_a_fault_is_told_with_its_line_and_place(faults: Faults) -> None:
    wrong = [
        (text, got) for text, words in ONE_FAULT if (got := faults(ENDPOINT + text)) != [words]
    ]

    assert wrong == []


#: One endpoint, without its line and place.
ENDPOINT_FAULTS = [
    ("{path: /a}", "endpoints[0]: needs signing_secrets or basic_auth (or allow_unsigned: true: "
                   "anybody may post)"),
    ("{path: /a, signing_secrets: []}",
     "endpoints[0]: needs signing_secrets or basic_auth (or allow_unsigned: true: "
     "anybody may post)"),
    ("{path: /a, allow_unsigned: false}",
     "endpoints[0]: needs signing_secrets or basic_auth (or allow_unsigned: true: "
     "anybody may post)"),
    ("{signing_secrets: [x]}", "endpoints[0].path: this key is needed"),
    ("{path: a, signing_secrets: [x]}",
     "endpoints[0].path: string should match pattern '^/[A-Za-z0-9/_.~-]*$'"),
    ('{path: "/a\\n", signing_secrets: [x]}',
     "endpoints[0].path: string should match pattern '^/[A-Za-z0-9/_.~-]*$'"),
    ("{path: [a], signing_secrets: [x]}", "endpoints[0].path: input should be a valid string"),
    ("{path: /a, signing_secrets: x}",
     "endpoints[0].signing_secrets: write a list, such as [a, b]"),
    ("{path: /a, signing_secrets: ['']}",
     "endpoints[0].signing_secrets[0]: empty: anybody could sign; use at least 32 random "
     "characters"),
    ("{path: /a, signing_secrets: [x, ' ']}",
     "endpoints[0].signing_secrets[1]: empty: anybody could sign; use at least 32 random "
     "characters"),
    ("{path: /a, basic_auth: {username: x}}",
     "endpoints[0].basic_auth.password: this key is needed"),
    ("{path: /a, basic_auth: {username: x, password: ''}}",
     "endpoints[0].basic_auth.password: empty: anybody could sign; use at least 32 random "
     "characters"),
    ("{path: /a, signing_secrets: [x], format: xml}",
     "endpoints[0].format: input should be 'json' or 'form'"),
    ("{path: /a, signing_secrets: [x], signature: {encoding: rot13}}",
     "endpoints[0].signature.encoding: input should be 'auto', 'hex' or 'base64'"),
    ("{path: /a, signing_secrets: [x], dedupe_by: []}",
     "endpoints[0].dedupe_by: needs at least one"),
    ("{path: /a, signing_secrets: [x], dedupe_by: [eventType]}",
     "endpoints[0].dedupe_by: must contain messageId: without it, different events look alike"),
    ("{path: /a, signing_secrets: [x], on_duplicate: panic}",
     "endpoints[0].on_duplicate: input should be 'revive' or 'ignore'"),
    ("{path: /a, signing_secret: [x], allow_unsigned: true}",
     "endpoints[0].signing_secret: unknown key; did you mean signing_secrets?"),
    ("5", "endpoints[0]: write a mapping of keys"),
]  # fmt: skip


def test_an_endpoint_is_complete_and_guarded(faults: Faults) -> None:
    for endpoint, words in ENDPOINT_FAULTS:
        assert faults(f"retention: 90d\nendpoints:\n  - {endpoint}\n") == [f"3: {words}"]


def test_one_guard_is_enough(read: Read) -> None:
    rows = [
        "signing_secrets: [x]",
        "basic_auth: {username: x, password: y}",
        "allow_unsigned: true",
    ]

    for guard in rows:
        assert len(read(f"endpoints: [{{path: /a, {guard}}}]").endpoints) == 1


def test_the_relays_own_paths_are_taken(faults: Faults) -> None:
    rows = ["/api", "/api/v1/x", "/console", "/console/sign-in", "/livez", "/readyz", "/metrics"]

    for path in rows:
        assert faults(f"endpoints: [{{path: {path}, allow_unsigned: true}}]") == [
            "1: endpoints[0].path: the relay uses this path itself "
            "(/api, /console, /livez, /metrics, /readyz)"
        ]


def test_any_other_path_is_free(read: Read) -> None:
    rows = ["/", "/apis", "/consoles/x", "/hook/livez", "/a.b/~c_d-e"]

    for path in rows:
        config = read(f"endpoints: [{{path: {path}, allow_unsigned: true}}]")
        assert config.endpoints[0].path == path


def test_there_must_be_an_endpoint(faults: Faults) -> None:
    rows = ["{}", "server: {}", "endpoints:", "endpoints: []"]

    for text in rows:
        [fault] = faults(text)
        assert fault.startswith("1: endpoints: ")


class TestTwins:
    def test_two_endpoints_with_one_path_are_a_fault(self, faults: Faults) -> None:
        text = """\
            endpoints:
              - {path: /a, allow_unsigned: true}
              - {path: /b, allow_unsigned: true}
              - path: /a
                allow_unsigned: true
            """

        assert faults(text) == ['4: endpoints[2].path: two endpoints have the path "/a"']

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("path: /a, name: same", "path: /b, name: same"),
            ("path: /a", "path: /b, name: /a"),  # a path is the name if there is none
            ("path: /a, name: /b", "path: /b"),
        ],
    )
    def test_two_endpoints_with_one_name_are_a_fault(
        self, faults: Faults, one: str, other: str
    ) -> None:
        guard = "allow_unsigned: true"

        [fault] = faults(f"endpoints:\n- {{{one}, {guard}}}\n- {{{other}, {guard}}}\n")

        assert re.fullmatch(r'3: endpoints\[1\]\.name: two endpoints have the name "\S+"', fault)

    def test_faulty_endpoints_are_not_taken_for_twins(self, faults: Faults) -> None:
        assert faults("endpoints: [{allow_unsigned: true}, {allow_unsigned: true}]") == [
            "1: endpoints[0].path: this key is needed",
            "1: endpoints[1].path: this key is needed",
        ]

    def test_a_key_given_twice_is_a_fault(self, faults: Faults) -> None:
        rows = ["retention: 2d", '"retention": 2d', "retention: 1d"]

        for again in rows:
            assert faults(f"{ENDPOINT}retention: 1d\n{again}\n") == [
                "3: retention: this key is given twice"
            ]

    def test_a_key_given_twice_inside_is_a_fault(self, faults: Faults) -> None:
        text = "server:\n  listen: a:1\n  threads: 4\n  listen: b:2\n"

        assert faults(ENDPOINT + text) == ["5: server.listen: this key is given twice"]


def test_every_fault_is_told_at_once_in_the_order_of_the_file(faults: Faults) -> None:
    text = """\
        sever: {}
        server:
          threads: 0
          max_body: big
        endpoints:
          - path: /metrics
            signing_secrets: [""]
            signature: {encoding: x}
          - {path: /b, basic_auth: {username: a, password: "${MISSING}"}}
          - {path: /b, allow_unsigned: true}
        destinations:
          crm: {connector: nowhere, on_dead: x}
          helpdesk:
            connector: mail
            prt: 1
        routes:
          - to: [nobody]
            when: {even: x, body: "["}
          - {}
        """

    found = faults(text)

    assert [fault.partition(": ")[0] for fault in found] == sorted(
        (fault.partition(": ")[0] for fault in found), key=int
    )
    assert [": ".join(fault.split(": ")[:2]) for fault in found] == [
        "1: sever",
        "3: server.threads",
        "4: server.max_body",
        "6: endpoints[0].path",
        "7: endpoints[0].signing_secrets[0]",
        "8: endpoints[0].signature.encoding",
        "9: endpoints[1].basic_auth.password",
        "10: endpoints[2].path",
        "12: destinations.crm.connector",
        "12: destinations.crm.on_dead",
        "13: destinations.helpdesk.token",
        "15: destinations.helpdesk.prt",
        "17: routes[0].to[0]",
        "18: routes[0].when.body[0]",
        "18: routes[0].when.even",
        "19: routes[1].to",
    ]


class TestReferences:
    def test_a_variable_is_filled_in(self, read: Read) -> None:
        rows = [
            ("${X}", {"X": "5d"}, timedelta(days=5)),
            ("${X}${Y}", {"X": "5", "Y": "d"}, timedelta(days=5)),
            ("1h${X}m", {"X": "30"}, timedelta(minutes=90)),
            ("${X:-7d}", {}, timedelta(days=7)),
            ("${X:-7d}", {"X": ""}, timedelta(days=7)),  # as in a shell
            ("${X:-7d}", {"X": "5d"}, timedelta(days=5)),
            ("${X:-7}d", {"X": "5"}, timedelta(days=5)),
            ("3d${X:-}", {}, timedelta(days=3)),
        ]

        for text, environ, expected in rows:
            config = read(f'{ENDPOINT}retention: "{text}"', **environ)
            assert config.retention == expected, text

    def test_the_environment_of_the_process_counts(
        self, read: Read, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read(ENDPOINT + 'retention: "${X}"', X="1d")
        monkeypatch.setenv("X", "2d")

        assert load(file, find_connector=find_connector).retention == timedelta(days=2)

    def test_what_a_variable_holds_is_not_read_again(self, read: Read) -> None:
        config = read("endpoints: [{path: /a, signing_secrets: ['${X}']}]", X="${Y} file:z")

        assert config.endpoints[0].signing_secrets[0].get_secret_value() == "${Y} file:z"

    def test_a_variable_that_is_no_text_is_a_fault(self, faults: Faults) -> None:
        assert faults(ENDPOINT + "retention: '${X}'", X="\udcff") == [
            "2: retention: environment variable X is not UTF-8 text"
        ]

    def test_only_values_are_filled_in(self, faults: Faults) -> None:
        assert faults(ENDPOINT + '"${X}": 1', X="retention") == ["2: ${X}: unknown key"]

    @pytest.mark.parametrize(
        "place",
        [
            "retention: '%s'",
            "server: {listen: '%s'}",
            "outbound: {allow: ['%s']}",
            "destinations: {a: {connector: mail, token: '%s'}}",
            "destinations: {a: {connector: mail, token: x, port: '%s'}}",
            "routes: [{to: ['%s']}]",
        ],
    )
    def test_a_variable_that_is_not_set_is_the_only_fault_of_its_place(
        self, faults: Faults, place: str
    ) -> None:
        [fault] = faults(ENDPOINT + place % "${ABSENT}")

        assert fault.endswith(": environment variable ABSENT is not set")

    def test_every_variable_that_is_not_set_is_named(self, faults: Faults) -> None:
        assert faults(ENDPOINT + "retention: '${A}${B}'") == [
            "2: retention: environment variable A is not set",
            "2: retention: environment variable B is not set",
        ]

    def test_an_empty_variable_is_no_secret(self, faults: Faults) -> None:
        [fault] = faults("endpoints: [{path: /a, signing_secrets: ['${X}']}]", X="")

        place = "1: endpoints[0].signing_secrets[0]"
        assert fault == f"{place}: environment variable X is set but empty"

    def test_an_empty_default_is_meant(self, faults: Faults) -> None:
        [fault] = faults("endpoints: [{path: /a, signing_secrets: ['${X:-}']}]", X="")

        assert "signing_secrets[0]: empty: anybody could sign" in fault

    @pytest.mark.parametrize("text", ["${}", "${A-B}", "${1}", "${A", "${A:b}", "${ A }", "x${"])
    def test_what_only_looks_like_a_reference_is_no_secret(
        self, faults: Faults, text: str
    ) -> None:
        assert faults(f"endpoints: [{{path: /a, signing_secrets: ['{text}']}}]", A="x") == [
            "1: endpoints[0].signing_secrets[0]: write ${NAME} or ${NAME:-default} for an "
            "environment variable"
        ]

    @pytest.mark.parametrize("text", ["$X", "a$b", "$", "{X}", "$$"])
    def test_a_dollar_alone_means_itself(self, read: Read, text: str) -> None:
        config = read(f"endpoints: [{{path: /a, signing_secrets: ['{text}']}}]", X="no")

        assert config.endpoints[0].signing_secrets[0].get_secret_value() == text


class TestFiles:
    TEXT = "endpoints: [{path: /a, signing_secrets: ['file:%s']}]"

    @pytest.mark.parametrize(
        ("contents", "secret"),
        [
            ("hush", "hush"),
            ("hush\n", "hush"),
            ("hush\r\n", "hush"),
            (" hush \n\n", " hush "),
            ("two\nlines\n", "two\nlines"),
            ("${X}", "${X}"),  # a file means what it says
        ],
    )
    def test_the_contents_of_a_file_are_filled_in(
        self, read: Read, file: Path, contents: str, secret: str
    ) -> None:
        (file.parent / "secret").write_bytes(contents.encode())

        for name in ("secret", " secret", str(file.parent / "secret")):
            [endpoint] = read(self.TEXT % name).endpoints
            assert endpoint.signing_secrets[0].get_secret_value() == secret

    def test_its_name_may_hold_a_variable(self, read: Read, file: Path) -> None:
        (file.parent / "secret").write_text("hush")

        [endpoint] = read(self.TEXT % "${DIR}/secret", DIR=str(file.parent)).endpoints

        assert endpoint.signing_secrets[0].get_secret_value() == "hush"

    def test_a_variable_that_is_not_set_is_its_only_fault(self, faults: Faults) -> None:
        [fault] = faults(self.TEXT % "${DIR}/secret")

        assert fault.endswith(": environment variable DIR is not set")

    def test_a_url_is_no_reference(self, faults: Faults) -> None:
        assert faults(ENDPOINT + "store: 'file:///etc/passwd'") == [
            "2: store: write sqlite:///relay.db (beside this file), sqlite:////path "
            "or postgresql://user@host/db"
        ]

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("absent", "No such file or directory"), (".", "Is a directory"),
         ("latin", "not UTF-8 text")],
    )  # fmt: skip
    def test_a_file_that_cannot_be_read_is_a_fault(
        self, faults: Faults, file: Path, name: str, reason: str
    ) -> None:
        (file.parent / "latin").write_bytes(b"\xff")

        [fault] = faults(self.TEXT % name)

        path = file.parent / name
        place = "1: endpoints[0].signing_secrets[0]"
        assert fault == f"{place}: file {path} cannot be read: {reason}"

    def test_an_empty_file_is_no_secret(self, faults: Faults, file: Path) -> None:
        (file.parent / "secret").write_text("\n")

        [fault] = faults(self.TEXT % "secret")

        assert "signing_secrets[0]: empty: anybody could sign" in fault


class TestMissingSecrets:
    TEXT = dedent("""\
        endpoints: [{path: /a, signing_secrets: ["${SECRET}", "file:absent"]}]
        destinations:
          crm: {connector: hubspot, access_token: "${TOKEN}", concurrency: 3, connection: one}
          other: {connector: hubspot, access_token: "token", connection: one}
        routes: [{to: [crm, other]}]
        """)

    def test_a_command_that_needs_none_gets_the_rest(self, file: Path) -> None:
        file.write_text(self.TEXT)

        config, document = load_document(
            file, find_connector=destinations.find, environ={"TOKEN": ""}, need=Need.NO_SECRETS
        )

        assert (config.destinations["crm"].concurrency, len(document.left_out)) == (3, 3)
        assert config.endpoints[0].name == "/a"

    def test_nobody_knows_what_stands_for_an_endpoints_secret(self, file: Path) -> None:
        file.write_text(self.TEXT)

        made = set()
        for _ in range(2):
            config, _ = load_document(
                file, find_connector=destinations.find, environ={}, need=Need.NO_SECRETS
            )
            made |= {each.get_secret_value() for each in config.endpoints[0].signing_secrets}

        assert len(made) == 4
        assert min(map(len, made)) > 40

    @pytest.mark.parametrize(("need", "number"), [(Need.ALL, 3), (Need.ENDPOINTS, 2)])
    def test_a_command_that_receives_or_delivers_names_what_it_needs(
        self, file: Path, need: Need, number: int
    ) -> None:
        file.write_text(self.TEXT)

        with pytest.raises(ConfigError) as raised:
            load_document(file, find_connector=destinations.find, environ={}, need=need)

        assert len(raised.value.faults) == number
        assert "environment variable SECRET is not set" in str(raised.value)

    @pytest.mark.parametrize("need", Need)
    def test_other_faults_stay(self, file: Path, need: Need) -> None:
        file.write_text('store: "${STORE}"\n' + self.TEXT + "retention: never\n")

        with pytest.raises(ConfigError, match=r"STORE is not set[^$]*retention: "):
            load_document(file, find_connector=destinations.find, environ={}, need=need)


class TestYaml:
    def test_what_is_no_mapping_says_so(self, faults: Faults) -> None:
        rows = ["", "\n", "# only a comment\n", "--- \n", "null", "- a\n", "text", "5"]

        for text in rows:
            [fault] = faults(text)
            assert fault.endswith(": this is not a mapping of keys; config.example.yaml shows one")

    def test_bad_yaml_is_told_with_its_line(self, faults: Faults) -> None:
        rows = [
            ("a: b: c\n", 2),
            ("a: [1, 2\nb: 3\n", 3),
            ("a:\n\t- b\n", 3),
            ("a: 'x\n", 3),
            ("a: @x\n", 2),
            ("a: *nobody\n", 2),
            ("a: !python/object:os.system x\n", 2),
            ("a: {<<: 5}\n", 2),
            ("a: 1\n---\nb: 2\n", 3),
            ("a: \x01\n", 2),
            ("%YAML 9\n", 2),
        ]

        for text, line in rows:
            [fault] = faults(ENDPOINT + text)
            assert fault.startswith(f"{line}: not YAML: "), text

    @pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}"])
    def test_what_holds_itself_is_a_fault(self, faults: Faults, text: str) -> None:
        assert faults(ENDPOINT + text) == ["1: not YAML: nested too deeply"]

    def test_a_value_that_yaml_cannot_read_is_a_fault(self, faults: Faults) -> None:
        rows = ["2025-13-45", "!!int x", "!!float x", "!!bool x", "!!timestamp x"]

        for value in rows:
            assert faults(f"{ENDPOINT}retention: {value}\nsever: 1\n") == [
                "2: retention: this value cannot be read; put it in quotes",
                "3: sever: unknown key; did you mean server?",
            ]

    def test_an_absent_file_points_to_the_example(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            load(tmp_path / "absent.yaml", find_connector=find_connector)

        assert str(caught.value) == (
            f"{tmp_path}/absent.yaml:1: cannot be read: No such file or directory; "
            "config.example.yaml shows one"
        )

    def test_a_folder_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r":1: cannot be read: Is a directory$"):
            load(tmp_path, find_connector=find_connector)

    def test_bytes_that_are_no_text_cannot_be_read(self, file: Path) -> None:
        file.write_bytes(b"retention: \xff\n")

        with pytest.raises(ConfigError, match=r":1: cannot be read: not UTF-8 text$"):
            load(file, find_connector=find_connector)

    def test_anchors_and_merges_work(self, read: Read) -> None:
        config = read(
            ENDPOINT
            + """\
destinations:
  a: &a {connector: mail, token: x, rate: 1/1s, port: 26}
  b: &b {<<: *a, rate: 2/1s}
  c: *b
  d: {<<: [*b, *a], rate: 4/1s}
"""
        )

        rates = {name: str(each.rate) for name, each in config.destinations.items()}
        assert rates == {"a": "1/1s", "b": "2/1s", "c": "2/1s", "d": "4/1s"}
        assert {each.options.model_dump()["port"] for each in config.destinations.values()} == {26}

    def test_pairs_of_surrogates_are_joined_as_json_writes_them(self, file: Path) -> None:
        values = {
            "endpoints": [{"path": "/hook", "signing_secrets": ["\U0001f511"]}],
            "destinations": {"\U0001f4f1": {"connector": "plain"}},
            "routes": [{"name": "\U0001f4f1 all", "to": ["\U0001f4f1"]}],
        }
        file.write_text(json.dumps(values, indent=1))  # "\ud83d\udcf1"

        config = load(file, find_connector=find_connector, environ={})

        assert list(config.destinations) == ["\U0001f4f1"] == list(config.routes[0].to)
        assert config.routes[0].name == "\U0001f4f1 all"
        assert config.endpoints[0].signing_secrets[0].get_secret_value() == "\U0001f511"

    def test_a_fault_in_what_was_merged_has_the_line_of_its_origin(self, faults: Faults) -> None:
        text = """\
destinations:
  a: &a {connector: mail, token: x,
         port: 0}
  b: {<<: *a}
"""

        assert faults(ENDPOINT + text) == [
            "4: destinations.a.port: input should be greater than or equal to 1",
            "4: destinations.b.port: input should be greater than or equal to 1",
        ]

    def test_a_key_given_twice_beside_a_merge_is_a_fault(self, faults: Faults) -> None:
        text = "destinations:\n  a: &a {connector: plain}\n  b: {<<: *a, rate: 1/1s, rate: 2/1s}\n"

        assert faults(ENDPOINT + text) == ["4: destinations.b.rate: this key is given twice"]

    def test_a_bare_phone_number_is_what_it_looks_like(self, read: Read) -> None:
        rows = [
            ("+61700000000", "+61700000000"),  # an integer to YAML, without its plus
            ("61412345678", "+61412345678"),
            ("0412345670", "+61412345670"),  # an octal one, because it has no 8 or 9
            ("0412345678", "+61412345678"),
            ("'0412 345 678'", "+61412345678"),
        ]

        for scalar, wanted in rows:
            config = read(
                ENDPOINT
                + "destinations: {a: {connector: plain}}\n"
                + f"routes: [{{to: [a], when: {{from: {scalar}, account: [007, 0, 12]}}}}]\n"
            )
            assert config.routes[0].when.from_ == (wanted,)
            assert config.routes[0].when.account == ("007", "0", "12")


#: Files with a secret in the wrong place, or near to a fault.
LEAKS = [
    "endpoints: [{path: /a, signing_secrets: HIDDEN}]",
    "endpoints: [{path: /a, signing_secrets: [[HIDDEN]]}]",
    "endpoints: [{path: /a, signing_secrets: {x: HIDDEN}}]",
    "endpoints: [{path: /a, signing_secrets: [HIDDEN], format: HIDDEN}]",
    "endpoints: [{path: HIDDEN, signing_secrets: [HIDDEN], rate: HIDDEN}]",
    "endpoints: [{path: /a, basic_auth: HIDDEN}]",
    "endpoints: [{path: /a, basic_auth: {username: HIDDEN, pasword: HIDDEN}}]",
    "endpoints: [{path: /a, signing_secrets: [*HIDDEN]}]",
    "endpoints: [{path: /a, signing_secrets: [!HIDDEN]}]",
    "endpoints: [{path: /a, signing_secrets: [!HIDDEN!x y]}]",
    "endpoints: [{path: /a, signing_secrets: [&HIDDEN]}]",
    "endpoints: [{path: /a, signing_secrets: [&HIDDEN a, &HIDDEN b, *x]}]",
    "endpoints: [{path: /a, signing_secrets: [%HIDDEN]}]",
    "endpoints: [{path: /a, signing_secrets: ['HIDDEN]}]",
    "endpoints: [{path: /a, signing_secrets: ['HIDDEN' HIDDEN]}]",
    "endpoints: [{path: /a, signing_secrets: ['${HIDDEN']}]",
    "endpoints: [{path: /a, signing_secrets: ['${X}${HIDDEN-X}']}]",
    "HIDDEN",
    "[HIDDEN]",
    "destinations: {a: {connector: mail, token: [HIDDEN]}}",
    "destinations: {a: {connector: mail, token: {b: HIDDEN}}}",
    "destinations: {a: {connector: mail, token: HIDDEN, port: HIDDEN, color: HIDDEN}}",
    "destinations: {a: {connector: mail, token: HIDDEN, mode: b}}",
    "destinations: {a: {connector: mail, tokn: HIDDEN}}",
    "destinations: {a: HIDDEN}",
    "destinations: HIDDEN",
    "store: HIDDEN",
    "store: postgresql://user:HIDDEN@host",
    "store: postgresql://user@host/db?password=HIDDEN",
    "engine: {celery: {broker: HIDDEN}}",
    "engine: {celery: {broker: 'amqp://user:HIDDEN@'}}",
    "engine: {celery: {broker: 'amqp://user:HIDDEN@host'}}",
    "engine: {celery: {broker: 'redis://:HIDDEN@host:HIDDEN/0'}}",
    "server: {listen: 'HIDDEN:HIDDEN', max_body: HIDDEN}",
    "retention: !!int HIDDEN",
]


def test_no_message_repeats_a_secret(faults: Faults) -> None:
    for text in LEAKS:
        for fault in faults(text.replace("HIDDEN", HIDDEN), X="1"):
            assert HIDDEN not in fault, text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(alphabet="ab:-[]{}<&*!%|>'\"#@$,.?\n\t ~0+e", max_size=40))
def test_any_text_is_a_config_or_a_list_of_faults(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError):
        load(file, find_connector=find_connector, environ={})


def test_a_place_is_written_as_people_do() -> None:
    assert written(("routes", 2, "when", "any", 0, "from")) == "routes[2].when.any[0].from"
    assert written(()) == ""


@pytest.mark.parametrize("broker", [f"amqp://u:{HIDDEN}@host/v", f"rediss://:{HIDDEN}@host:6/0"])
def test_a_fleet_has_a_broker_whose_password_is_not_shown(read: Read, broker: str) -> None:
    config = read(
        ENDPOINT + f"store: postgresql://host/db\nengine: {{celery: {{broker: '{broker}'}}}}"
    )

    assert config.engine.celery is not None
    assert config.engine.celery.broker.get_secret_value() == broker
    assert HIDDEN not in repr(config)
    assert HIDDEN not in plan(config)


class TestExample:
    @pytest.fixture
    def text(self) -> str:
        return EXAMPLE.read_text(encoding="utf-8")

    @pytest.fixture
    def everything(self, text: str, file: Path) -> Config:
        """The example with every key that is off switched on."""
        file.write_text(re.sub(r"(?m)^( *)#(?=[a-z]|- )", r"\1", text), encoding="utf-8")
        (file.parent / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
        return load(file, find_connector=destinations.find, environ=ENVIRON | FURTHER)

    @pytest.fixture
    def example(self) -> Config:
        return load(EXAMPLE, find_connector=destinations.find, environ=ENVIRON)

    def test_it_needs_no_other_variables(self, text: str) -> None:
        live = re.sub(r"(?m)^ *#.*", "", text)

        assert set(re.findall(r"\$\{(\w+)", live)) == set(ENVIRON)

    def test_the_server_is_as_without_it(self, example: Config) -> None:
        assert example.server == Server()
        assert example.outbound == Outbound()
        for key in ("retention", "engine"):
            assert getattr(example, key) == Config.model_fields[key].default

    def test_its_first_endpoint_shows_the_defaults(self, example: Config) -> None:
        first = example.endpoints[0]

        plain = Endpoint(path=first.path, signing_secrets=first.signing_secrets)
        assert first == plain.model_copy(update={"name": first.name})

    def test_its_second_endpoint_takes_forms(self, example: Config) -> None:
        second = example.endpoints[1]

        assert (second.path, second.format) == ("/webhooks/gofax/status", "form")
        assert second.basic_auth is not None

    def test_its_first_destination_shows_the_defaults(self, example: Config) -> None:
        crm = example.destinations["crm"]
        connector = destinations.find("hubspot")

        assert crm.policy == Policy()
        assert crm.deadline == DestinationConfig.model_fields["deadline"].default
        assert (crm.rate, crm.concurrency) == (
            connector.default_rate,
            connector.default_concurrency,
        )

    @pytest.mark.parametrize("name", ["inbox", "flow", "archive"])
    def test_what_is_off_shows_defaults_too(self, everything: Config, name: str) -> None:
        options = everything.destinations[name].options
        free = {"ca", "username", "password", "body", "secrets", "headers"}

        for key, field in type(options).model_fields.items():
            if not field.is_required() and key not in free:
                assert getattr(options, key) == field.default, key

    @pytest.mark.parametrize("name", ["crm", "helpdesk", "front-desk"])
    def test_the_options_of_its_connectors_are_their_defaults(
        self, example: Config, name: str
    ) -> None:
        destination = example.destinations[name]
        credentials = {"subdomain", "client_id", "client_secret", "access_token", "url"}

        for key, field in destinations.find(destination.connector).Options.model_fields.items():
            if not field.is_required() and key not in credentials:
                assert getattr(destination.options, key) == field.default, key

    def test_everything_in_it_can_be_switched_on(self, everything: Config) -> None:
        assert everything.server.rate_per_address is not None
        assert everything.endpoints[0].rate is not None
        assert everything.sentiment == "vader"
        assert [each.name for each in everything.alerts] == ["on call"]
        assert everything.heartbeat is not None
        assert everything.public_url == "https://sms.example.com"
        assert everything.longest_silence is not None
        when = everything.routes[1].when
        assert [key for key in When.model_fields if not getattr(when, key)] == ["keyword"]
        assert when.not_ == When(keyword="STOP")  # a keyword has no sentiment

    def test_it_shows_every_key(self, text: str, everything: Config) -> None:
        models: list[type[BaseModel]] = [
            Config, Server, Admin, Endpoint, SignatureScheme, BasicAuth, Requests, Outbound, Retry,
            Route, When, AlertChannel, Logs, BusinessHours, EventPattern,
            *(type(each.options) for each in everything.destinations.values()),
        ]  # fmt: skip
        assert {each.connector for each in everything.destinations.values()} == {
            "hubspot", "zendesk", "teams", "email", "webhook", "archive"
        }  # fmt: skip
        keys = {key for model in models for key in _keys(model)}
        keys |= set(_keys(DestinationConfig)) - {"options"}
        keys = keys - {"metadata"} | {"metadata.campaign"}

        missing = {key for key in keys if not re.search(rf"(?m)^ *(#|# |- )?{key}:", text)}

        assert not missing

    def test_each_of_its_keys_has_a_comment_near_by(self, text: str) -> None:
        lines = text.splitlines()
        keys = [n for n, line in enumerate(lines) if re.match(r" +#?[a-z_]+:(?! *$)", line)]

        bare = [lines[n] for n in keys if not any("# " in line for line in lines[n - 4 : n])]

        assert not bare

    def test_status_events_stay_out_of_chat_and_tickets(self, example: Config) -> None:
        chat, tickets = ("front-desk", "helpdesk")

        for route in example.routes:
            if {chat, tickets} & set(route.to):
                assert route.when.event is not None
                assert "SMS_STATUS" not in route.when.event

    def test_it_holds_no_secret(self, text: str, example: Config) -> None:
        for key, value in _leaves(yaml.safe_load(text)):
            named = re.search("secret|password|token|url", key)
            if named and key not in ("base_url", "secret_encoding"):
                assert value.startswith("${"), key
        shown = repr(example) + str(example) + example.model_dump_json()
        assert HIDDEN not in shown


def _keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of a parsed file with the key that it stands under."""
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            yield from _leaves(inner, inner_key)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    elif isinstance(value, str):
        yield key, value


class TestSignatures:
    def scheme(self, read: Read, said: str, *, secrets: str = "[one]", more: str = "") -> Scheme:
        text = f"endpoints: [{{path: /hook, signing_secrets: {secrets}, signature: {said}{more}}}]"
        return read(text).endpoints[0].signature.scheme

    def test_a_field_alone_takes_the_place_of_the_header(self, read: Read) -> None:
        both = "{header: X-Sign, field: mac, signs: body-without-field}"

        alone = self.scheme(read, "{field: mac, signs: body-without-field}")

        assert (alone.header, alone.field) == (None, "mac")
        assert self.scheme(read, both) == replace(alone, header="X-Sign")

    def test_secrets_are_read_in_their_encoding(self, read: Read) -> None:
        text = "endpoints: [{path: /a, signing_secrets: [%s], signature: {secret_encoding: %s}}]"

        assert read(text % ("00ff", "hex")).endpoints[0].signing_keys == (b"\x00\xff",)
        assert read(text % ("aGk", "base64")).endpoints[0].signing_keys == (b"hi",)

    @pytest.mark.parametrize(
        ("said", "more", "fault"),
        [
            ("{signs: timestamp.body}", "", "needs timestamp_header"),
            ("{field: mac}", "", "cannot be of the whole body"),
            ("{secret_encoding: hex}", "", "signing_secrets: secret 1 is not hex"),
            (
                "{signs: sorted-json}",
                ", format: form",
                "sorted-json is of JSON, and format is form",
            ),
        ],
    )
    def test_what_cannot_be_is_a_fault(self, read: Read, said: str, more: str, fault: str) -> None:
        with pytest.raises(ConfigError, match=fault):
            self.scheme(read, said, more=more)

    def test_a_route_of_an_endpoint_that_is_not_there_is_a_fault(self, read: Read) -> None:
        text = "routes: [{to: [a], when: {not: {endpoint: [main, /hook]}}}]"

        with pytest.raises(ConfigError, match=r'no endpoint named "main" \(have: /hook\)'):
            read(f"{ENDPOINT}\n{text}")


def test_faults_of_business_hours_are_named_with_their_lines(faults: Faults) -> None:
    text = f"""{ENDPOINT}
business_hours:
  time_zone: Sydney
  days:
    mon-fri: 9-17
    monday: "9:00-17:00"
    sat: ["9:00-12:00", "9:00-29:00"]
    sun:
  holidays: [25 December, 20261225]
"""

    found = faults(text)

    dates = "write a date such as 2026-12-25"
    assert found == [
        "4: business_hours.time_zone: this system knows no such time zone: write one such as "
        "Australia/Sydney",
        "6: business_hours.days.mon-fri[0]: write hours such as 9:00-17:30",
        "7: business_hours.days.monday: write a day such as mon, or days such as mon-fri "
        "(mon, tue, wed, thu, fri, sat, sun)",
        "8: business_hours.days.sat[1]: 29:00 is no time of a day",
        "9: business_hours.days.sun[0]: input should be a valid string",
        f"10: business_hours.holidays[0]: {dates}",
        f"10: business_hours.holidays[1]: {dates}",
    ]


def test_a_day_has_its_hours_in_one_place(faults: Faults) -> None:
    text = f'{ENDPOINT}business_hours: {{days: {{mon-fri: "9:00-17:00", fri-sun: "9:00-12:00"}}}}'

    [fault] = faults(text)

    assert "business_hours.days: fri is in mon-fri and in fri-sun: write its hours as one" in fault


def test_business_hours_are_in_the_zone_of_the_file_or_their_own(read: Read) -> None:
    said = 'business_hours: {days: {mon: "9:00-17:00"}%s}'

    zones = [
        read(f"{ENDPOINT}time_zone: Australia/Sydney\n{said % own}").hours
        for own in ("", ", time_zone: Australia/Perth")
    ]

    assert [str(each and each.zone) for each in zones] == ["Australia/Sydney", "Australia/Perth"]
    assert read(ENDPOINT).hours is None


@pytest.mark.parametrize(
    ("said", "is_fault"),
    [
        ('{mon-sun: "0:00-24:00"}', True),
        ('{mon-sun: ["12:00-0:00", "0:00-12:00"]}', True),
        ('{mon-sat: "0:00-24:00"}', False),
        ('{mon-sun: "0:00-24:00"}, holidays: [2026-12-25]', False),
    ],
)
def test_a_route_for_closed_hours_needs_some(
    read: Read, file: Path, said: str, is_fault: bool
) -> None:
    text = f"""{ENDPOINT}
destinations: {{a: {{connector: plain}}}}
business_hours: {{days: {said}}}
routes: [{{to: [a], when: {{not: {{hours: closed}}}}}}]
"""

    if not is_fault:
        read(text)
        return
    with pytest.raises(ConfigError, match=r":5: routes.* never holds: business_hours have no end"):
        read(text)


def test_a_route_by_the_hours_needs_business_hours(read: Read) -> None:
    text = f"{ENDPOINT}\nroutes: [{{to: [a], when: {{any: [{{hours: open}}]}}}}]"

    with pytest.raises(ConfigError, match="nobody knows the hours without business_hours at the"):
        read(text)
