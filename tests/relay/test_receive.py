"""The endpoints through Flask's own client: what is asked in which order, and what is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fakes import eventually, locked
from flask.testing import FlaskClient
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from relay import every
from relay.app import create_app
from relay.callers import Rates
from relay.config.load import load
from relay.every import Every
from relay.refused import LOGGED_EACH, Refusals
from relay.rules import units
from relay.store import Database, Inbox, Queries
from relay.store.values import Request
from relay.telling.watch import OldSecrets

CONFIG = """\
endpoints:
  - {path: /signed, signing_secrets: [new, old]}
  - {path: /hex, signing_secrets: [new], signature: {header: X-Other, encoding: hex}}
  - {path: /form, format: form, basic_auth: {username: gofax, password: päss}}
  - {path: /signed-form, format: form, signing_secrets: [new]}
  - {path: /both, signing_secrets: [new], basic_auth: {username: gofax, password: pass}}
  - {path: /open, allow_unsigned: true}
  - {path: /near, allow_unsigned: true, allow_from: [198.51.100.0/24, "2001:db8::/32"]}
  - {path: /slow, allow_unsigned: true, rate: 2/60s}
"""
BODY = json.dumps({"messageId": "m1", "eventType": "SMS_REPLY"}).encode()

Post = Callable[..., TestResponse]


#: Makes the client of a relay with another `server:` than CONFIG's.
NewClient = Callable[..., FlaskClient]


@pytest.fixture
def new_client(tmp_path: Path, database: Database, inbox: Inbox) -> Iterator[NewClient]:
    refusals = Refusals(inbox.refuse)

    def new_client(server: str, old_secrets: OldSecrets | None = None) -> FlaskClient:
        path = tmp_path / "config.yaml"
        path.write_text(f"server: {{{server}}}\n{CONFIG}")
        config = load(path, find_connector=lambda name: pytest.fail(name))
        app = create_app(
            config,
            database=database,
            inbox=inbox,
            refusals=refusals,
            old_secrets=old_secrets,
        )
        return app.test_client()

    yield new_client
    refusals.close()


@pytest.fixture
def client(new_client: NewClient) -> FlaskClient:
    return new_client("max_body: 2KiB, trusted_proxies: 1")


@pytest.fixture
def post(client: FlaskClient) -> Post:
    def posted(path: str, body: bytes = BODY, **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.post(path, data=body, headers={"Content-Type": "application/json"} | named)

    return posted


def sign(body: bytes = BODY, secret: str = "new") -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def last_request(database: Database) -> Request:
    """Return the newest request of the log, once there is one."""
    eventually(lambda: list(Queries(database).requests()))
    return list(Queries(database).requests())[-1]


@pytest.mark.parametrize(("secret", "number"), [("new", 1), ("old", 2)])
def test_every_secret_is_tried_and_the_log_says_which_one_it_was(
    post: Post, database: Database, secret: str, number: int
) -> None:
    answer = post("/signed", X_GoFax_Signature=sign(secret=secret))

    assert answer.json == {"status": "accepted", "messageId": "m1"}
    assert last_request(database).reason == f"signature matches secret {number}"


@pytest.mark.parametrize(
    ("url", "headers", "status"),
    [
        ("/signed", {}, 401),
        ("/signed", {"X-GoFax-Signature": "0" * 64}, 401),
        # A label refuses nothing that a signature proves genuine.
        ("/signed", {"X-GoFax-Signature": sign(), "Content-Type": "text/plain"}, 200),
        ("/signed", {"X-GoFax-Signature": sign(), "Content-Type": ""}, 200),
        ("/signed", {"X-GoFax-Signature": "0" * 64, "Content-Type": "text/plain"}, 401),
        ("/signed", {"Content-Type": "text/plain"}, 415),
        ("/open", {"Content-Type": "application/vnd.gofax+json; charset=utf-8"}, 200),
        ("/open", {"Content-Type": "text/json"}, 200),
        ("/open", {"Content-Type": "text/plain"}, 415),
        ("/signed", {"X-GoFax-Signature": sign(), "Content-Encoding": "br"}, 415),
        ("/hex", {"X-Other": sign()}, 200),
        ("/hex", {"X-Other": base64.b64encode(bytes.fromhex(sign())).decode()}, 401),
        ("/hex", {"X-GoFax-Signature": sign()}, 401),
        ("/both", {"X-GoFax-Signature": sign()}, 401),
        ("/both", {"X-GoFax-Signature": sign(), "Authorization": basic("gofax", "pass")}, 200),
        ("/both", {"Authorization": basic("gofax", "pass")}, 401),
        ("/open", {}, 200),
    ],
)
def test_a_request_is_answered_by_what_its_endpoint_asks_for(
    client: FlaskClient, url: str, headers: Mapping[str, str], status: int
) -> None:
    headers = {"Content-Type": "application/json"} | dict(headers)

    assert client.post(url, data=BODY, headers=headers).status_code == status


def test_a_body_that_is_too_long_is_refused_by_its_length_or_by_reading(
    client: FlaskClient, database: Database
) -> None:
    long = b'{"a": "' + b"x" * 3000 + b'"}'

    announced = client.post("/open", data=long, content_type="application/json")
    assert announced.status_code == 413
    assert announced.headers["Connection"] == "close"
    assert last_request(database).reason == f"{len(long)} bytes, more than 2048"


@pytest.mark.parametrize("host", ["sms.example.com", "[::1]:8080", "bücher.example", "a b", ""])
def test_whatever_name_leads_here_it_is_the_same_relay(client: FlaskClient, host: str) -> None:
    asked = {"HTTP_HOST": host}
    answer = client.post(
        "/open", data=BODY, content_type="application/json", environ_overrides=asked
    )

    assert answer.status_code == 200
    assert client.get("/livez", environ_overrides=asked).status_code == 200


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (basic("gofax", "päss"), 200),
        (basic("gofax", "pass"), 401),
        (basic("gofäx", "päss"), 401),
        ("Basic !!!", 401),
        ("Basic " + base64.b64encode(b"no colon").decode(), 401),
        ("Bearer abc", 401),
    ],
)
def test_basic_authentication_is_checked_in_utf_8(
    client: FlaskClient, given: str, status: int
) -> None:
    answer = client.post("/form", data={"ID": "1"}, headers={"Authorization": given})

    assert answer.status_code == status
    if status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")


def test_fields_in_the_url_of_a_signed_form_do_not_count(
    client: FlaskClient, database: Database
) -> None:
    """A signature does not cover the URL: whoever has one signed form could say anything there."""
    body = b"ID=1&Recipient=61412345678"
    headers = {
        "X-GoFax-Signature": sign(body),
        "Content-Type": "application/x-www-form-urlencoded",
    }

    answer = client.post("/signed-form?Message=forged&ID=2", data=body, headers=headers)

    assert answer.status_code == 200
    [view] = Queries(database).events()
    assert (view.event.message_id, view.event.body) == ("1", None)


def test_a_form_without_a_field_is_400(client: FlaskClient) -> None:
    headers = {"Authorization": basic("gofax", "päss")}

    answer = client.post(
        "/form", data=b"", headers=headers, content_type="application/x-www-form-urlencoded"
    )

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=windows-1252",
        'application/json;charset="Windows-1252"',
        "application/json; profile=x; Charset=windows-1252 ",
    ],
)
def test_the_charset_of_the_content_type_counts(
    post: Post, database: Database, content_type: str
) -> None:
    body = '{"messageId": "m1", "messageBody": "5 €"}'.encode("windows-1252")

    assert post("/open", body, Content_Type=content_type).status_code == 200

    [view] = Queries(database).events()
    assert view.event.body == "5 €"


def test_a_byte_order_mark_before_form_data_is_dropped(post: Post, database: Database) -> None:
    body = b"\xef\xbb\xbfID=1&Recipient=0412345678&Message=hi"
    headers = {"Content_Type": "application/x-www-form-urlencoded"}

    assert post("/form", body, Authorization=basic("gofax", "päss"), **headers).status_code == 200

    [view] = Queries(database).events()
    assert (view.event.message_id, view.event.body) == ("1", "hi")


def test_too_many_requests_are_told_when_to_come_again(post: Post) -> None:
    answers = [post("/slow") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 60
    assert post("/open").status_code == 200


def test_a_store_that_is_away_is_503_and_nothing_is_acknowledged(
    post: Post, database: Database
) -> None:
    with locked(database):
        answer = post("/open")

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert list(Queries(database).events()) == []
    assert post("/open").json == {"status": "accepted", "messageId": "m1"}


@pytest.mark.parametrize(
    ("named", "remote"),
    [
        ("203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("198.51.100.7:40000", "198.51.100.7"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("unknown", "127.0.0.1"),
    ],
)
def test_the_address_is_the_callers_as_the_trusted_proxy_says(
    post: Post, database: Database, named: str, remote: str
) -> None:
    post("/open", X_Forwarded_For=named)

    assert last_request(database).remote == remote


class SlowBody:
    """A body that comes when it is told to."""

    def __init__(self) -> None:
        self.is_read, self.comes = threading.Event(), threading.Event()

    def read(self, limit: int) -> bytes:
        self.is_read.set()
        self.comes.wait(30)
        return b""


def test_a_caller_that_holds_its_share_of_threads_is_told_to_come_again(
    new_client: NewClient,
) -> None:
    app = new_client("threads: 4").application
    slow = [SlowBody() for _ in range(2)]
    third = SlowBody()

    def send(body: SlowBody) -> TestResponse:
        return app.test_client().post(
            "/open",
            data=BODY,
            content_type="application/json",
            environ_overrides={"REMOTE_ADDR": "198.51.100.7", "wsgi.input": body},
        )

    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(send, body) for body in slow]
        assert all(body.is_read.wait(30) for body in slow)
        answer = send(third)
        honest = app.test_client().post("/open", data=BODY, content_type="application/json")
        for body in slow:
            body.comes.set()

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    assert answer.headers["Connection"] == "close"
    assert not third.is_read.is_set()
    assert honest.status_code == 200
    assert [each.result().status_code for each in waiting] == [408, 408]


#: What a caller may write to seem another one at each request.
LIES = [
    [f"198.51.100.{number}" for number in range(4)],
    [f"198.51.100.7:{number}" for number in range(4)],
    ["2001:db8::1", "[2001:db8::2]", "[2001:db8::3]:443", "2001:db8:0:0:ffff::4"],
    ["198.51.100.7", "::ffff:198.51.100.7", '"198.51.100.7:1"', "[::ffff:c633:6407]:443"],
    ['"198.51.100.1 x', '198.51.100.2, "', '\\', '"'],
    ["fe80::1%a", "fe80::1%b", "fe80::1%c", "[fe80::1%d]:1"],
    ["unknown", "_hidden", "198.51.100.700", "<script>"],
    ["", ",", "198.51.100.7, ", "198.51.100.8,,"],
    ["198.51.100.1 a", "198.51.100.1:a:b", "[198.51.100.1:", "0x7f.1"],
    ["198.51.100.1, 203.0.113.9", "unknown, 203.0.113.9", "a" * 900 + ",203.0.113.9",
     "203.0.113.8,203.0.113.9:7"],
]  # fmt: skip


def _statuses(client: FlaskClient, name: str, values: list[str]) -> list[int]:
    headers = {"Content-Type": "application/json"}
    return [
        client.post("/open", data=BODY, headers=headers | {name: value}).status_code
        for value in values
    ]


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded_For", "X_Forwarded_For"])
@pytest.mark.parametrize("lies", LIES)
def test_without_a_trusted_proxy_nobody_is_somebody_else(
    new_client: NewClient, database: Database, name: str, lies: list[str]
) -> None:
    client = new_client("rate_per_address: 2/60s")

    assert _statuses(client, name, lies) == [200, 200, 429, 429]
    assert last_request(database).remote == "127.0.0.1"


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded_For"])
@pytest.mark.parametrize("lies", LIES[1:])
def test_what_a_trusted_proxy_passes_on_does_not_escape_a_rate(
    new_client: NewClient, name: str, lies: list[str]
) -> None:
    client = new_client("rate_per_address: 2/60s, trusted_proxies: 1")

    assert _statuses(client, name, lies) == [200, 200, 429, 429]


def test_a_quote_does_not_swallow_what_two_proxies_append(new_client: NewClient) -> None:
    client = new_client("rate_per_address: 2/60s, trusted_proxies: 2")
    lies = [f'192.0.2.{number}, ", 198.51.100.7, 10.0.0.2' for number in range(4)]

    assert _statuses(client, "X-Forwarded-For", lies) == [200, 200, 429, 429]


def test_callers_behind_a_trusted_proxy_have_a_rate_each(new_client: NewClient) -> None:
    client = new_client("rate_per_address: 2/60s, trusted_proxies: 1")

    assert _statuses(client, "X-Forwarded-For", LIES[0]) == [200] * 4


def test_probes_say_whether_process_and_store_are_well(
    client: FlaskClient, database: Database
) -> None:
    assert client.get("/livez").json == {"status": "alive"}
    assert client.get("/readyz").json == {"status": "ready"}


def test_a_receiver_with_a_loop_that_cannot_go_on_is_not_ready(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(every, "AFTER_ERROR", 0.001)
    with closing(Every("accept", 0.001, lambda: {}["missing"])) as loop:
        loop.start()
        eventually(lambda: loop.fault)
        answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json == {"status": "not working", "loops": ["accept"]}
    assert client.get("/readyz").status_code == 200


def test_a_loop_that_events_do_not_need_makes_nobody_unready(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(every, "AFTER_ERROR", 0.001)
    with closing(Every("alerts", 0.001, lambda: {}["missing"], is_vital=False)) as loop:
        loop.start()
        eventually(lambda: loop.fault)

        assert client.get("/readyz").json == {"status": "ready"}


def test_the_use_of_an_old_secret_is_noted_once_a_minute(new_client: NewClient) -> None:
    old_secrets = OldSecrets()
    client = new_client("", old_secrets)
    for secret in ("new", "old", "old"):
        body = json.dumps({"messageId": secret}).encode()
        headers = {"X-GoFax-Signature": sign(body, secret), "Content-Type": "application/json"}
        assert client.post("/signed", data=body, headers=headers).status_code == 200

    assert set(old_secrets.take()) == {("/signed", b"old")}
    assert not old_secrets.take()


def test_unknown_paths_and_methods_are_answered_in_json(client: FlaskClient) -> None:
    answers: dict[str, Any] = {
        "nowhere": client.post("/nowhere"),
        "method": client.get("/open"),
        "options": client.options("/open"),
    }

    assert {name: a.status_code for name, a in answers.items()} == {
        "nowhere": 404,
        "method": 405,
        "options": 405,
    }
    assert answers["method"].json == {"error": "method not allowed"}
    assert answers["method"].headers["Allow"] == "POST"


def test_a_rate_may_span_less_than_a_second() -> None:
    now = 0.0
    rates, limit = Rates(clock=lambda: now), units.rate("3/300ms")

    assert [rates.over(limit, "a") for _ in range(5)] == [0, 0, 0, 1, 1]
    now = 0.29
    assert rates.over(limit, "a") == 1
    now = 0.3
    assert [rates.over(limit, "a") for _ in range(4)] == [0, 0, 0, 1]


def test_who_called_longest_ago_is_forgiven_where_memory_ends() -> None:
    rates, limit = Rates(room=4, clock=lambda: 0.0), units.rate("2/1m")
    for who in ("a", "a", "b", "b", "a"):
        rates.over(limit, who)

    # Whoever goes on calling is remembered, though what it called is refused.
    rates.over(limit, "c")
    assert [rates.over(limit, who) > 0 for who in ("a", "b")] == [True, False]
    assert len(rates._times) <= 4
    many = Rates(room=1, clock=lambda: 0.0)
    assert [many.over(limit, "a") > 0 for _ in range(3)] == [False, False, True]


class _Unread(io.BytesIO):
    """A body that nobody may look at."""

    def read(self, *_: Any) -> bytes:
        pytest.fail("a body was read")


@pytest.fixture
def flood(new_client: NewClient) -> Callable[..., list[int]]:
    """Send three requests of one address, of which only the first may be read."""

    def flood(server: str, url: str, method: str = "POST", **environ: str) -> list[int]:
        client = new_client(server)
        headers = {"X-GoFax-Signature": sign(), "Content-Type": "application/json"}
        given = {"CONTENT_LENGTH": str(len(BODY)), "REMOTE_ADDR": "192.0.2.1", **environ}
        bodies = (io.BytesIO(BODY), _Unread(), _Unread())
        return [
            client.open(
                url,
                method=method,
                headers=headers,
                environ_overrides={**given, "wsgi.input": body},
            ).status_code
            for body in bodies
        ]

    return flood


@pytest.mark.parametrize(
    ("method", "url", "first"),
    [
        ("POST", "/signed", 200),
        ("POST", "/nowhere", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/signed", 405),
        ("GET", "/readyz", 200),
    ],
)
def test_a_rate_of_an_address_holds_before_anything_is_looked_at(
    flood: Callable[..., list[int]], database: Database, method: str, url: str, first: int
) -> None:
    assert flood("rate_per_address: 1/60s", url, method) == [first, 429, 429]
    if first == 200 and method == "POST":
        eventually(lambda: last_request(database).status == 429)
        noted = last_request(database)
        assert (noted.headers, noted.body) == ({}, None)
        assert noted.reason == "address 192.0.2.1: more than 1/60s"


def test_whether_the_receiver_lives_may_be_asked_at_any_rate(
    flood: Callable[..., list[int]],
) -> None:
    assert flood("rate_per_address: 1/60s", "/livez", "GET") == [200] * 3


def test_this_machine_may_ask_whether_the_store_is_well_as_often_as_it_likes(
    flood: Callable[..., list[int]],
) -> None:
    given = {"REMOTE_ADDR": "127.0.0.1"}

    assert flood("rate_per_address: 1/60s", "/readyz", "GET", **given) == [200] * 3


@pytest.mark.parametrize(
    ("server", "remote", "forwarded", "status"),
    [
        ("", "198.51.100.7", "", 200),
        ("", "::ffff:198.51.100.7", "", 200),
        ("", "2001:db8::1", "", 200),
        ("", "192.0.2.1", "", 403),
        ("", "192.0.2.1", "198.51.100.7", 403),
        ("", "", "", 403),
        ("trusted_proxies: 1", "10.0.0.1", "198.51.100.7", 200),
        ("trusted_proxies: 1", "10.0.0.1", "198.51.100.7, 192.0.2.1", 403),
        # The proxy itself, which health checks come from.
        ("trusted_proxies: 1", "10.0.0.1", "", 403),
    ],
)
def test_only_some_networks_may_call(
    new_client: NewClient,
    database: Database,
    server: str,
    remote: str,
    forwarded: str,
    status: int,
) -> None:
    client = new_client(server)
    body = io.BytesIO(BODY) if status == 200 else _Unread()
    answer = client.post(
        "/near",
        headers={"X-Forwarded-For": forwarded, "Content-Type": "application/json"},
        environ_overrides={
            "REMOTE_ADDR": remote, "wsgi.input": body, "CONTENT_LENGTH": str(len(BODY)),
        },
    )  # fmt: skip

    assert answer.status_code == status
    noted = last_request(database)
    assert noted.status == status
    if status == 403:
        assert answer.json == {"error": "not from this address"}
        assert answer.headers["Connection"] == "close"
        assert (noted.outcome, noted.body, noted.headers) == ("refused", None, {})
        assert "in none of the networks of allow_from" in noted.reason


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("POST", "/near", 403, "192.0.2.1 is in none of the networks of allow_from"),
        ("POST", "/neer", 404, "no endpoint has the path /neer; /near was probably meant"),
        ("GET", "/near", 405, "method GET, not POST"),
    ],
)
def test_whoever_locked_gofax_out_finds_it_in_the_log(
    new_client: NewClient, method: str, path: str, status: int, reason: str
) -> None:
    client, calls = new_client(""), 3 * LOGGED_EACH

    def said(event: str) -> list[MutableMapping[str, Any]]:
        return [each for each in logs if each["event"] == event]

    def is_accounted_for() -> bool:
        counted = sum(each["count"] for each in said("requests.not_logged"))
        return len(said("request.received")) + counted == calls

    with capture_logs() as logs:
        for _ in range(calls):
            client.open(path, method=method, environ_overrides={"REMOTE_ADDR": "192.0.2.1"})
        eventually(is_accounted_for)

    lines = said("request.received")
    assert {(each["status"], each["remote"], each["reason"]) for each in lines} == {
        (status, "192.0.2.1", reason)
    }
    # The calls may lie in two seconds.
    assert LOGGED_EACH <= len(lines) <= 2 * LOGGED_EACH


def test_whoever_looks_around_fills_no_log(client: FlaskClient) -> None:
    with capture_logs() as logs:
        assert client.get("/wp-login.php").status_code == 404

    assert logs == []
