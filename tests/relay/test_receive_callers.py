"""Who calls the endpoints: addresses, rates, threads and networks."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fakes import eventually
from flask.testing import FlaskClient
from receiving import BODY, NewClient, clients, last_request, sign
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from relay.refused import LOGGED_EACH
from relay.store import Database, Inbox, Queries


@pytest.fixture
def new_client(tmp_path: Path, database: Database, inbox: Inbox) -> Iterator[NewClient]:
    with clients(tmp_path, database, inbox) as new_client:
        yield new_client


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
    new_client: NewClient, database: Database, named: str, remote: str
) -> None:
    headers = {"Content-Type": "application/json", "X-Forwarded-For": named}
    new_client("trusted_proxies: 1").post("/open", data=BODY, headers=headers)

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


@pytest.mark.parametrize("lies", LIES)
def test_without_a_trusted_proxy_nobody_is_somebody_else(
    new_client: NewClient, database: Database, lies: list[str]
) -> None:
    for name in ("X-Forwarded-For", "X-Forwarded_For", "X_Forwarded_For"):
        client = new_client("rate_per_address: 2/60s")

        assert _statuses(client, name, lies) == [200, 200, 429, 429], name
    noted = [each for each in Queries(database).requests() if each.outcome != "refused"]
    assert [each.remote for each in noted] == ["127.0.0.1"] * 6


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded_For"])
def test_what_a_trusted_proxy_passes_on_does_not_escape_a_rate(
    new_client: NewClient, name: str
) -> None:
    for lies in LIES[1:]:
        client = new_client("rate_per_address: 2/60s, trusted_proxies: 1")

        assert _statuses(client, name, lies) == [200, 200, 429, 429], lies


def test_a_quote_does_not_swallow_what_two_proxies_append(new_client: NewClient) -> None:
    client = new_client("rate_per_address: 2/60s, trusted_proxies: 2")
    lies = [f'192.0.2.{number}, ", 198.51.100.7, 10.0.0.2' for number in range(4)]

    assert _statuses(client, "X-Forwarded-For", lies) == [200, 200, 429, 429]


def test_callers_behind_a_trusted_proxy_have_a_rate_each(new_client: NewClient) -> None:
    client = new_client("rate_per_address: 2/60s, trusted_proxies: 1")

    assert _statuses(client, "X-Forwarded-For", LIES[0]) == [200] * 4


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
