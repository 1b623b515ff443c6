"""What the API makes of calls that nobody means: a problem with the field, and nothing done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apis
import pytest
from apis import Api

from relay import migrations
from relay.admin_app import MAX_BODY
from relay.store import connect

#: What people, scanners and broken programs write into a field.
HOSTILE = [
    "\x00",
    "a\x00b",
    "\ud800",
    "\u202e",
    "%00",
    "'; DROP TABLE events; --",
    "../../../etc/passwd",
    "{{7*7}}",
    "<script>",
    "%",
    "_",
    "\\",
    "9" * 400,
    "-1",
    "1e999",
    "0001-01-01T00:00Z",
    "9999-12-31T23:59Z",
    "99999999d",
    "\U0001f600",
    "",
    " ",
]
#: Calls with a field each, where a text goes.
FIELDS = [
    *(("GET", "/events", each) for each in (
        "customer", "text", "message_id", "destination", "state", "type", "endpoint", "standing",
        "since", "until", "limit", "cursor",
    )),
    *(("GET", "/requests", each) for each in ("customer", "text", "standing", "cursor")),
    *(("GET", "/deliveries", each) for each in ("reason", "customer", "destination")),
    ("GET", "/audit", "who"),
    ("GET", "/search", "q"),
    *(("GET", "/traffic", each) for each in ("since", "until", "each")),
    ("POST", "/destinations/crm/pause", "for"),
    ("POST", "/routes/try", "raw"),
    ("POST", "/routes/try", "event"),
    ("POST", "/requests/admit", "since"),
    ("POST", "/requests/admit", "unverified"),
    ("POST", "/deliveries/resend", "rate"),
    ("POST", "/users", "name"),
    ("POST", "/users", "role"),
    ("POST", "/tokens", "for"),
    ("POST", "/erase", "number"),
]  # fmt: skip
PATHS = ["/events/%s", "/conversations/%s", "/deliveries/%s", "/deliveries/%s/attempts",
         "/requests/%s", "/destinations/%s", "/acts/%s", "/export/%s"]  # fmt: skip


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("input")
    database = connect(f"sqlite:///{folder}/relay.db")
    migrations.upgrade(database)
    with apis.api(folder, database) as made:
        yield made
    database.close()


def raw(api: Api, body: bytes, *, type: str = "application/json", **options: Any) -> apis.Answer:
    return api.operator.call(
        "POST", "/destinations/crm/pause", data=body, content_type=type, **options
    )


def test_no_text_in_any_field_or_path_makes_a_call_fail(api: Api) -> None:
    admin = api.admin
    wrong = []
    for text in HOSTILE:
        for method, path, name in FIELDS:
            if method == "GET":
                query = {name: text.encode("utf-8", "surrogatepass")}
                answer = admin.call(method, path, query_string=query)
            else:
                answer = admin.call(method, path, json={name: text})
            if answer.status >= 500:
                wrong.append(f"{method} {path} {name}={text[:20]!r}: {answer.status}")
        for path in PATHS:
            quoted = "".join(f"%{each:02x}" for each in text.encode("utf-8", "surrogatepass"))
            if (status := admin.get(path % quoted).status) >= 500:
                wrong.append(f"{path} {text[:20]!r}: {status}")

    assert wrong == []


def test_no_value_of_another_type_makes_a_call_fail(api: Api) -> None:
    values = [None, True, 0, -1, 10**30, 1.5, "x", [], [[]], {}, {"a": {}}, ["x"] * 200]
    calls = {
        "/destinations/crm/pause": ("for", "why"),
        "/deliveries/resend": ("ids", "filter", "again", "dry_run", "rate"),
        "/events/replay": ("ids", "filter", "destination"),
        "/requests/admit": ("ids", "since", "dry_run"),
        "/routes/try": ("payload", "raw", "event", "endpoint"),
        "/users": ("name", "role"),
        "/tokens": ("name", "scopes", "for"),
        "/erase": ("number", "dry_run"),
    }
    admin = api.admin
    wrong = [
        (path, name, value)
        for path, names in calls.items()
        for name in names
        for value in values
        if admin.post(path, **{name: value}).status not in (200, 202, 404, 422)
    ]

    assert wrong == []


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/events", {"colour": "red"}, "colour"),
        ("/events", {"limit": "0"}, "limit"),
        ("/events", {"limit": "201"}, "limit"),
        ("/events", {"limit": "many"}, "limit"),
        ("/events", {"state": "lost"}, "state.0"),
        ("/events", {"customer": "12"}, "customer"),
        ("/events", {"text": "!!"}, "text"),
        ("/events", {"since": "yesterday"}, "since"),
        ("/events", {"since": "1h", "until": "2h"}, "body"),
        ("/events", [("cursor", "a"), ("cursor", "b")], "cursor"),
        ("/events", [("limit", "1"), ("limit", "1")], "limit"),
        ("/problems", {"limit": "1"}, "limit"),
        ("/destinations/crm", {"x": "1"}, "x"),
    ],
)
def test_the_field_at_fault_is_named(api: Api, path: str, query: Any, field: str) -> None:
    answer = api.reader.call("GET", path, query_string=query)

    assert (answer.status, answer.fields) == (422, [field])
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_body_has_no_field_that_nobody_knows(api: Api) -> None:
    answer = api.operator.post("/destinations/crm/pause", because="x")

    assert (answer.status, answer.fields) == (422, ["because"])


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff\xfe", b'{"why": NaN}', b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b"x"],
)
def test_what_is_no_json_is_said_to_be_none(api: Api, body: bytes) -> None:
    assert raw(api, body).status == 400


@pytest.mark.parametrize("body", [b"[]", b"5", b'"{}"', b"null", b"true"])
def test_json_that_is_no_object_is_refused(api: Api, body: bytes) -> None:
    answer = raw(api, body)

    assert (answer.status, answer.fields) == (422, ["body"])


def test_another_kind_of_body_is_refused(api: Api) -> None:
    assert raw(api, b"why=x", type="application/x-www-form-urlencoded").status == 415
    assert raw(api, b"{}", type="").status == 415


def test_a_large_body_is_refused(api: Api) -> None:
    assert raw(api, b" " * (MAX_BODY + 1)).status == 413
    assert raw(api, b'{"why": "' + b"x" * 3000 + b'"}').fields == ["why"]


def test_a_method_that_is_none_is_refused_with_those_that_are(api: Api) -> None:
    answer = api.operator.call("DELETE", "/destinations/crm")

    assert answer.status == 405
    assert "GET" in answer.headers["Allow"]
    assert api.operator.get("/nothing").status == 404


def test_what_strangers_wrote_comes_back_as_it_is_and_obeys_nobody(api: Api) -> None:
    answer = api.reader.client.get(
        f"/api/v1/events/{api.filled.hostile}", headers=api.reader.headers
    )

    text = answer.get_data(as_text=True)
    assert "<script>alert(1)</script>" in answer.json["body"]  # type: ignore[index]
    assert "\u202e" not in text and "\\u202e" in text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
