"""The file that people write: what it may say, and how its faults are told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from config_files import (
    ENDPOINT,
    HIDDEN,
    Faults,
    MailOptions,
    Read,
    find_connector,
)

from relay.commands.check import plan
from relay.config import installed
from relay.config.document import HALF, ConfigError
from relay.config.load import Need, load, load_document
from relay.config.model import (
    THREADS,
    Admin,
    Server,
)
from relay.rules.delivery import Policy
from relay.rules.units import RateLimit


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

    def test_a_type_can_be_kept_for_another_time(self, read: Read) -> None:
        config = read(f"{ENDPOINT}retention: {{sms_status: 7d, default: 30d}}")

        assert config.kept.default == timedelta(days=30)
        assert config.kept.types == {"SMS_STATUS": timedelta(days=7)}
        assert "keeps events for 30d, SMS_STATUS 7d" in plan(config).splitlines()
        assert "keeps events for 90d" in plan(read(ENDPOINT)).splitlines()

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
        config, _ = load_document(file, find_connector=installed.find, environ={}, need=need)
        assert config.admin is not None
    with pytest.raises(ConfigError, match="admin.metrics_token: environment variable NOT_SET"):
        load_document(file, find_connector=installed.find, environ={})


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
    ("retention: {SMS_STATUS: 7}",
     "2: retention.SMS_STATUS: write a time such as 30s, 5m, 1h30m or 90d"),
    ("retention: {SMS_A: 7d, sms_a: 8d}",
     "2: retention: the type SMS_A is given twice; case makes no difference"),
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


@pytest.mark.parametrize("broker", [f"amqp://u:{HIDDEN}@host/v", f"rediss://:{HIDDEN}@host:6/0"])
def test_a_fleet_has_a_broker_whose_password_is_not_shown(read: Read, broker: str) -> None:
    config = read(
        ENDPOINT + f"store: postgresql://host/db\nengine: {{celery: {{broker: '{broker}'}}}}"
    )

    assert config.engine.celery is not None
    assert config.engine.celery.broker.get_secret_value() == broker
    assert HIDDEN not in repr(config)
    assert HIDDEN not in plan(config)
