"""The endpoints through Flask's own client: what is asked in which order, and what is told."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fakes import eventually, locked
from flask.testing import FlaskClient
from receiving import BODY, NewClient, clients, last_request, sign
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from relay import every
from relay.every import Every
from relay.store import Database, Inbox, Queries
from relay.telling.watch import OldSecrets

Post = Callable[..., TestResponse]


@pytest.fixture
def new_client(tmp_path: Path, database: Database, inbox: Inbox) -> Iterator[NewClient]:
    with clients(tmp_path, database, inbox) as new_client:
        yield new_client


@pytest.fixture
def client(new_client: NewClient) -> FlaskClient:
    return new_client("max_body: 2KiB, trusted_proxies: 1")


@pytest.fixture
def post(client: FlaskClient) -> Post:
    def posted(path: str, body: bytes = BODY, **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.post(path, data=body, headers={"Content-Type": "application/json"} | named)

    return posted


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


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


def test_whoever_looks_around_fills_no_log(client: FlaskClient) -> None:
    with capture_logs() as logs:
        assert client.get("/wp-login.php").status_code == 404

    assert logs == []
