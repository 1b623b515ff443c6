"""The webhook connector: signatures by the reference implementation, bodies, answers."""

from __future__ import annotations

import base64
import html
import json
import time
import traceback
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rawserver import Connection, RawServer, answer
from standardwebhooks import Webhook as Reference
from standardwebhooks import WebhookVerificationError

from connectors import plain
from connectors.base import (
    Ambiguous,
    DeliveryError,
    Event,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.http import Http
from connectors.sandbox import create_app
from connectors.sandbox.records import Records
from connectors.sandbox.webhook import StandIn
from connectors.testing import sample_event
from connectors.webhook import Webhook, WebhookOptions, default_body


def secret(fill: int, size: int = 32) -> str:
    return "whsec_" + base64.b64encode(bytes([fill]) * size).decode()


NEW, OLD = secret(1), secret(2)
KEY = "5" * 40
THEIRS, FLOW = "words of theirs", "signature-of-a-flow"
HOSTILE = 'a"b\\c\n</script>&amp; \u2028 {{ 7*7 }} \U0001f600'


def connector(url: str, *, allow: tuple[str, ...] = ("127.0.0.0/8",), **given: Any) -> Webhook:
    return Webhook(WebhookOptions.model_validate({"url": url, **given}), http=Http(allow=allow))


def deliver(webhook: Webhook, event: Event | None = None, *, key: str = KEY) -> Receipt:
    try:
        return webhook.deliver(
            event or sample_event(), key=key, thread=None, repeat=False, deadline=5
        )
    finally:
        webhook.close()


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer(answer(202)) as server:
        yield server


def posted(server: RawServer, number: int = -1) -> tuple[str, dict[str, str], bytes]:
    """Return request line, headers and body of a request."""
    head, _, body = server.requests[number].partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    return (
        line,
        {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)},
        body,
    )


class TestSignature:
    def test_the_reference_implementation_accepts_it(self, server: RawServer) -> None:
        event = sample_event(body=HOSTILE)

        receipt = deliver(connector(server.url, secrets=[NEW]), event)

        _, headers, body = posted(server)
        verified = Reference(NEW).verify(body, headers)
        assert verified["data"]["body"] == HOSTILE
        assert headers["webhook-id"] == receipt.reference == f"msg_{KEY}"
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60

    def test_each_secret_signs(self, server: RawServer) -> None:
        deliver(connector(server.url, secrets=[NEW, OLD]))

        _, headers, body = posted(server)
        assert len(headers["webhook-signature"].split(" ")) == 2
        for each in (NEW, OLD):
            assert Reference(each).verify(body, headers)["type"] == "SMS_REPLY"
        with pytest.raises(WebhookVerificationError):
            Reference(secret(3)).verify(body, headers)

    def test_nothing_is_signed_without_a_secret(self, server: RawServer) -> None:
        deliver(connector(server.url))

        _, headers, _ = posted(server)
        assert "webhook-signature" not in headers
        assert headers["webhook-id"] == f"msg_{KEY}"

    def test_the_id_is_the_same_at_each_attempt(self, server: RawServer) -> None:
        for _ in range(2):
            deliver(connector(server.url))

        (_, first, one), (_, second, other) = posted(server, 0), posted(server, 1)
        assert (first["webhook-id"], one) == (second["webhook-id"], other)

    @settings(deadline=None, max_examples=50)
    @given(st.text())
    def test_any_text_is_signed_as_it_is_sent(self, body: str) -> None:
        webhook = connector("https://example.com/", secrets=[NEW])
        content = webhook._body(sample_event(body=body))
        headers = webhook._signed(content, id="msg_1")
        webhook.close()

        data = Reference(NEW).verify(content, headers)["data"]

        assert data["body"] == body.encode("utf-8", "replace").decode()


class TestRequest:
    def test_method_headers_and_address_are_as_configured(self, server: RawServer) -> None:
        headers = {"Authorization": "Bearer of-the-test", "X-Team": "desk 7"}
        path = "/flow/%2Ftriggers?sig=a%2Fb~c&sp=%2Fx"

        deliver(connector(server.url + path, method="PUT", headers=headers))

        line, sent, _ = posted(server)
        assert line == f"PUT {path} HTTP/1.1"
        assert (sent["authorization"], sent["x-team"]) == ("Bearer of-the-test", "desk 7")
        assert sent["content-type"] == "application/json"

    def test_by_default_the_body_is_the_event(self, server: RawServer) -> None:
        deliver(connector(server.url))

        _, _, body = posted(server)
        read = json.loads(body)
        assert set(read) == {"type", "timestamp", "data"}
        assert (read["type"], read["timestamp"]) == (
            "SMS_REPLY",
            "2025-12-04T00:24:07.112733+00:00",
        )
        assert read["data"]["customer"] == "+61400000000"
        assert read["data"]["received_at"] == "2025-12-04T00:24:08+00:00"
        assert (read["data"]["metadata"], read["data"]["title"]) == (
            {"accountId": "12345"},
            "SMS reply from +61400000000",
        )

    def test_every_field_of_an_event_is_there(self) -> None:
        read = json.loads(default_body(sample_event(body=None)))

        assert set(read["data"]) == set(plain.values(sample_event())) | {"title", "text"}
        assert read["data"]["body"] is None and read["data"]["text"].startswith("(no text")

    def test_what_json_has_no_word_for_is_left_out(self) -> None:
        deep: Any = {}
        for _ in range(900):
            deep = {"a": deep}
        odd = sample_event(
            metadata={"a": float("nan"), "b": [float("inf"), "\ud83d"]}, payload=deep
        )

        read = json.loads(default_body(odd))

        assert read["data"]["metadata"] == {"a": None, "b": [None, "?"]}


class TestTemplate:
    def body(self, server: RawServer, event: Event | None = None, **given: Any) -> str:
        deliver(connector(server.url, **given), event)
        return posted(server)[2].decode()

    def test_values_are_escaped_inside_json(self, server: RawServer) -> None:
        event = sample_event(body=HOSTILE, metadata={"k": [HOSTILE, 1, None, True]})
        source = """{"a": "{{ text }}", "b": {{ text | tojson }}, "c": {{ metadata }},
            "d": "{{ '"' ~ text }}", "e": {{ keyword | tojson }}, "f": {{ 1 + 1 }}}"""

        read = json.loads(self.body(server, event, body=source))

        assert read == {
            "a": HOSTILE, "b": HOSTILE, "c": {"k": [HOSTILE, 1, None, True]}, "d": '"' + HOSTILE,
            "e": None, "f": 2,
        }  # fmt: skip

    def test_values_are_escaped_for_the_kind_of_body(self, server: RawServer) -> None:
        rows: list[tuple[str, str, str]] = [
            ("text/html", "<p>{{ text }}</p>", f"<p>{html.escape(HOSTILE)}</p>"),
            ("application/xml", "<p>{{ text }}</p>", f"<p>{html.escape(HOSTILE)}</p>"),
            ("text/plain; charset=utf-8", "{{ text }}", HOSTILE),
        ]
        for kind, source, escaped in rows:
            event = sample_event(body=HOSTILE)

            assert self.body(server, event, body=source, content_type=kind) == escaped
            assert posted(server)[1]["content-type"] == kind

    def test_values_are_escaped_in_a_form(self, server: RawServer) -> None:
        event = sample_event(body=HOSTILE + "&admin=1")
        kind = "application/x-www-form-urlencoded"

        body = self.body(server, event, body="text={{ text }}&x=1", content_type=kind)

        assert parse_qs(body) == {"text": [HOSTILE + "&admin=1"], "x": ["1"]}

    def test_what_is_no_json_is_refused(self, server: RawServer) -> None:
        rows: list[tuple[str, str]] = [
            ('{"a": {{ text }}}', "body: the template makes no JSON for event evt_"),
            ('{"a": {{ keyword }}}', "expecting value in line 1"),
            ("{{ text }}", "tojson"),
            ("NaN", "a number or a nesting"),
            # Newer Pythons read it to its end, which is as bad.
            ("[" * 5000, "body: the template makes no JSON for event evt_"),
            ("{{ metadata.nothing }}", "body: the template does not work for event evt_"),
        ]
        for source, fault in rows:
            with pytest.raises(Refused) as caught:
                self.body(server, body=source)

            assert fault in str(caught.value)
            assert "Thanks" not in str(caught.value)
            assert server.requests == []


def test_answers() -> None:
    rows: list[tuple[int, type[DeliveryError]]] = [
        (302, Unauthorized),
        (400, Refused),
        (401, Unauthorized),
        (403, Unauthorized),
        (404, Unauthorized),
        (408, Transient),
        (409, Refused),
        (410, Unauthorized),
        (429, Throttled),
        (500, Ambiguous),
        (503, Ambiguous),
        (101, Ambiguous),
        (999, Ambiguous),
    ]
    for status, kind in rows:
        with RawServer(answer(status, body=THEIRS.encode(), Location="/x")) as server:
            with pytest.raises(DeliveryError) as caught:
                deliver(connector(f"{server.url}/?sig={FLOW}"))

            assert len(server.requests) == 1
        assert type(caught.value) is kind
        assert caught.value.status == status
        shown = "".join(traceback.format_exception(caught.value))
        assert THEIRS not in shown and FLOW not in shown


def test_a_2xx_is_a_delivery_whatever_surrounds_it() -> None:
    rows: list[bytes] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes!",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ]
    for said in rows:

        def end(connection: Connection, said: bytes = said) -> None:
            connection.say(said)

        with RawServer(end) as server:
            deliver(connector(server.url))

        assert len(server.requests) == 1, said


def test_check_posts_nothing(server: RawServer) -> None:
    webhook = connector(server.url, secrets=[NEW])

    assert "nothing was posted" in webhook.check() and "will be signed" in webhook.check()
    assert server.connections == 0
    webhook.close()


class TestOptions:
    def test_a_wrong_option_is_found(self) -> None:
        rows: list[tuple[dict[str, Any], str]] = [
            ({"url": "ftp://example.com"}, "must be an http(s) address"),
            ({"url": "https://"}, "must be an http(s) address"),
            ({"url": "https://example.com/ä"}, "copy it again"),
            ({"url": "https://a:b@example.com"}, "must not contain a user name"),
            ({"method": "GET"}, "method"),
            ({"secrets": ["hush"]}, "write whsec_"),
            ({"secrets": ["whsec_ä"]}, "write whsec_"),
            ({"secrets": ["whsec_!!!!"]}, "write whsec_"),
            ({"secrets": [secret(1, 23)]}, "24 to 64 random bytes"),
            ({"secrets": [secret(1, 65)]}, "24 to 64 random bytes"),
            ({"headers": {"a b": "c"}}, "no name of a header"),
            ({"headers": {"x": "a\r\nb: c"}}, "x: values are printable ASCII"),
            ({"headers": {"x": ""}}, "x: values are printable ASCII"),
            ({"headers": {"Content-Length": "0"}}, "is written by the relay"),
            ({"headers": {"WEBHOOK-ID": "0"}}, "is written by the relay"),
            ({"body": "{{ bdy }}"}, "did you mean body?"),
            ({"content_type": "json"}, "content_type"),
            ({"content_type": "text/plain\r\nx: y"}, "content_type"),
        ]
        for wrong, fault in rows:
            with pytest.raises(ValidationError) as caught:
                WebhookOptions.model_validate({"url": "https://example.com/", **wrong})

            assert fault in str(caught.value)
            for value in ("a:b@", "hush", "a\r\nb"):
                assert value not in str(caught.value)

    def test_a_secret_may_come_without_its_padding(self) -> None:
        rows: list[int] = [24, 32, 64]
        for size in rows:
            given = secret(1, size).rstrip("=")

            assert WebhookOptions.model_validate(
                {"url": "https://example.com/", "secrets": [given]}
            )

    def test_secrets_are_hidden(self) -> None:
        headers = {"Authorization": "Bearer of-the-test"}
        given = {"url": "https://example.com/sig", "secrets": [NEW], "headers": headers}
        options = WebhookOptions.model_validate(given)

        for shown in (repr(options), str(options), options.model_dump_json()):
            assert not [each for each in ("sig", NEW, "of-the-test") if each in shown]


def later(seconds: float) -> float:
    return time.time() + seconds


class TestStandIn:
    def test_it_records_what_was_posted(self) -> None:
        client = create_app().test_client()

        body = default_body(sample_event())
        for _ in range(2):
            headers = {"webhook-id": "msg_1"}
            assert client.post("/webhook", data=body, headers=headers).status_code == 204
        assert client.put("/webhook/a/b", data=b"\xff no JSON").status_code == 204

        first, second = client.get("/records").get_json()
        assert (first["system"], first["kind"], first["reference"]) == (
            "webhook",
            "event",
            "msg_1",
        )
        assert (first["text"], first["conversation"]) == (
            "Thanks for your message",
            "+61400000000",
        )
        assert second["text"] == "\ufffd no JSON"
        page = client.get("/").get_data(as_text=True)
        assert "Thanks for your message" in page and "msg_1" in page

    def test_it_refuses_what_is_not_signed_by_the_secret(self) -> None:
        rows: list[tuple[dict[str, str], int]] = [
            ({"webhook-signature": "v1,AAAA"}, 0),
            ({"webhook-signature": ""}, 0),
            ({"webhook-id": "msg_2"}, 0),
            ({"webhook-timestamp": "x"}, 0),
            ({}, 301),
            ({}, -301),
        ]
        for changed, late in rows:
            key = bytes([1]) * 32
            stand_in = StandIn(Records(), secret=key, clock=partial(later, late))
            client = create_app(Records(), webhook=stand_in).test_client()
            webhook = connector("https://example.com", secrets=[NEW])
            headers = webhook._signed(b"{}", id="msg_1") | changed
            webhook.close()

            assert client.post("/webhook", data=b"{}", headers=headers).status_code == 401
