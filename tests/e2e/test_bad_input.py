"""What careless and hostile senders post: never a 5xx, never a stack trace, nothing lost."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests
from gofax import EXAMPLE, sign
from processes import SECRET, Relay
from programs import eventually


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    with ExitStack() as stack:
        relay = Relay(tmp_path_factory.mktemp("relay"), stack, sandbox="http://127.0.0.1:9")
        relay.start("web")
        yield relay
        assert "Traceback" not in (relay.folder / "web.log").read_text()


def request_with(relay: Relay, **wanted: object) -> dict:
    """Wait for the line of the request log that has all of *wanted*."""

    def find() -> dict | None:
        listed = relay.listed("requests")
        return next((r for r in listed if wanted.items() <= r.items()), None)

    return eventually(find)


def event_with(relay: Relay, message_id: str | None) -> dict:
    return next(e for e in relay.listed("events") if e["message_id"] == message_id)


def body_of(message_id: object, **changes: object) -> bytes:
    return json.dumps({**EXAMPLE, "messageId": message_id, **changes}).encode()


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (None, "no X-GoFax-Signature header"),
        ("", "no X-GoFax-Signature header"),
        ("0" * 64, "signature does not match the secret"),
        ("abc", "signature not a SHA-256 value in hex or base64 (3 characters)"),
        ("zz" * 32, "signature not a SHA-256 value in hex or base64 (64 characters)"),
        # The web server drops header values that are no ASCII.
        ("é" * 64, "no X-GoFax-Signature header"),
        ("sha256=", "signature not a SHA-256 value in hex or base64 (7 characters)"),
    ],
)
def test_a_bad_signature_is_401_with_its_reason_in_the_request_log(relay, signature, reason):
    body = body_of("never accepted")
    probe = repr(signature)[:20].encode().hex()
    headers = {"Content-Type": "application/json", "X-Probe": probe}
    if signature is not None:
        headers["X-GoFax-Signature"] = signature.encode("latin-1")

    answer = requests.post(relay.url + "/webhooks/gofax", data=body, headers=headers, timeout=10)

    assert (answer.status_code, answer.json()) == (401, {"error": "not authorized"})

    def find() -> dict | None:
        listed = relay.listed("requests")
        return next((r for r in listed if r["headers"].get("x-probe") == probe), None)

    request = eventually(find)
    assert (request["status"], request["reason"]) == (401, reason)
    assert "never accepted" not in {each["message_id"] for each in relay.listed("events")}


def test_every_usual_form_of_a_signature_is_accepted(relay):
    body = body_of("forms")
    digest = bytes.fromhex(sign(body, SECRET))
    in_base64 = base64.b64encode(digest).decode()

    for value in (
        digest.hex(),
        digest.hex().upper(),
        "sha256=" + digest.hex(),
        in_base64,
        in_base64.rstrip("="),
        "v1," + in_base64,
        f"v1,{base64.b64encode(bytes(32)).decode()} v1,{in_base64}",
    ):
        assert relay.post(body, headers={"X-GoFax-Signature": value}).status_code == 200, value


def test_a_truncated_body_is_not_accepted(relay):
    whole = body_of("truncated")

    answer = relay.post(whole[:-3], headers={"X-GoFax-Signature": sign(whole, SECRET)})

    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[1, 2]", "a JSON list, not an object"),
        (b"12", "a JSON int, not an object"),
        (b'"text"', "a JSON str, not an object"),
        (b"null", "a JSON NoneType, not an object"),
        (b"", "not JSON: Expecting value at character 0"),
        (b'{"messageId": ', "not JSON: Expecting value at character 14"),
        (b"[" * 20_000, "not a JSON object"),
    ],
)
def test_what_is_signed_but_no_json_object_is_400_and_kept(relay, body, reason):
    answer = relay.post(body)

    assert answer.status_code == 400
    request = request_with(relay, status=400, reason=reason)
    assert request["body"] == body.decode()


ODD = {
    "deeply nested": b'{"messageId": "deep", "a": ' + b'{"a":' * 9000 + b"1" + b"}" * 9001,
    "a 20,000-digit number": b'{"messageId": "digits", "n": ' + b"9" * 20_000 + b"}",
    "a 20,000-digit messageId": b'{"messageId": ' + b"8" * 20_000 + b"}",
    "duplicate keys": b'{"messageId": "first", "messageId": "twice"}',
    "NaN and Infinity": b'{"messageId": "nan", "a": NaN, "b": -Infinity}',
    "lone surrogates": b'{"messageId": "surrogate", "messageBody": "\\ud800 \\u0000 x"}',
    "a NUL as it is": b'{"messageId": "nul", "messageBody": "a\x00b\x07"}',
    "bytes that are no UTF-8": b'{"messageId": "latin", "messageBody": "caf\xe9"}',
    "a byte order mark": b'\xef\xbb\xbf{"messageId": "bom"}',
    "UTF-16": '{"messageId": "utf-16"}'.encode("utf-16"),
    "a 10,000-character messageId": body_of("m" * 10_000),
    "a null from": body_of("null from", **{"from": None}),
    "numbers that are none": body_of("objects", **{"from": {"a": 1}, "to": [1], "metadata": 3}),
    "an object as messageId": b'{"messageId": {"a": 1}}',
    "no messageId": b'{"eventType": "SMS_REPLY"}',
    "an empty object": b"{}",
    "a boolean messageId": b'{"messageId": true}',
    "an odd time": body_of("time", eventTimestamp="0001-01-01T00:00:00+14:00"),
    "a type with markup": body_of("markup", eventType="<script>alert(1)</script>"),
}


def test_odd_objects_are_stored_visible_and_harm_no_neighbour(relay):
    plain = [body_of(f"plain {number}") for number in range(20)]
    before = len(relay.listed("events"))

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(relay.post, [*ODD.values(), *plain]))

    assert {a.status_code for a in answers} == {200}
    assert {a.json()["status"] for a in answers} == {"accepted"}
    assert len(relay.listed("events")) == before + len(ODD) + len(plain)
    again = [relay.post(body).json()["status"] for body in ODD.values()]
    assert set(again) == {"duplicate"}


def test_an_unreadable_object_is_shown_as_one_that_no_route_matched(relay):
    relay.post(b'{"x": ' + b'{"a":' * 9000 + b"1" + b"}" * 9001)

    event = next(e for e in relay.listed("events") if e["type"] == "UNREADABLE")

    assert event["deliveries"] == []
    explained = relay.command("explain", event["id"]).stdout
    assert "the payload could not be read" in explained


def test_a_resend_with_another_meaning_is_a_conflict_and_is_kept_once(relay):
    first = relay.post(body_of("contested", messageBody="yes"))
    twins = [relay.post(body_of("contested", messageBody="no")) for _ in range(2)]
    renewed = relay.post(body_of("contested", messageBody="yes", eventTimestamp="2026-01-01"))

    assert first.json()["status"] == "accepted"
    assert [twin.json()["status"] for twin in twins] == ["conflict", "conflict"]
    assert renewed.json()["status"] == "duplicate"
    found = [e for e in relay.listed("events") if e["message_id"] == "contested"]
    assert [e["status"] for e in found] == ["accepted", "conflict"]
    assert found[1]["deliveries"] == []


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/webhooks/gofax", {}, 405),
        ("PUT", "/webhooks/gofax", {}, 405),
        ("OPTIONS", "/webhooks/gofax", {}, 405),
        ("POST", "/webhooks/gofax/", {}, 404),
        ("POST", "/nowhere", {}, 404),
        ("POST", "/webhooks/gofax", {"X-GoFax-Signature": "", "Content-Type": "text/plain"}, 415),
        ("POST", "/webhooks/gofax", {"Content-Encoding": "gzip"}, 415),
        ("POST", "/webhooks/gofax", {"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_what_is_not_taken_is_told_with_its_status(relay, method, path, headers, status):
    body = body_of("statuses")
    sent = {"Content-Type": "application/json", "X-GoFax-Signature": sign(body, SECRET)} | headers

    answer = requests.request(method, relay.url + path, data=body, headers=sent, timeout=10)

    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"


def test_a_body_over_the_limit_is_413_without_being_read(relay):
    """The sender announces a gigabyte, sends nothing of it, and is answered all the same."""
    with socket.create_connection(("127.0.0.1", relay.port), timeout=5) as client:
        client.sendall(
            b"POST /webhooks/gofax HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\n"
            b"X-GoFax-Signature: " + b"0" * 64 + b"\r\nContent-Length: 1000000000\r\n\r\n"
        )
        answer = client.recv(4096)

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_is_read_up_to_the_limit(relay):
    small, large = body_of("chunked"), b'{"a": "' + b"x" * 70_000 + b'"}'

    def post(body: bytes) -> requests.Response:
        headers = {"Content-Type": "application/json", "X-GoFax-Signature": sign(body, SECRET)}
        chunks = (body[i : i + 1000] for i in range(0, len(body), 1000))
        return requests.post(
            relay.url + "/webhooks/gofax", data=chunks, headers=headers, timeout=10
        )

    assert post(small).json() == {"status": "accepted", "messageId": "chunked"}
    assert post(large).status_code == 413


def test_credentials_are_not_kept_with_a_request(relay):
    hidden = "Bearer " + "do-not-keep"
    relay.post(
        body_of("credentials"),
        headers={"Authorization": hidden, "Cookie": "do-not-keep", "X-Shown": "yes"},
    )

    request = request_with(relay, message_id="credentials")

    assert request["headers"]["x-shown"] == "yes"
    assert "do-not-keep" not in json.dumps(request)
    log = (relay.folder / "web.log").read_text()
    assert "do-not-keep" not in log
    assert SECRET not in log


def test_logs_hold_neither_texts_nor_whole_numbers(relay):
    relay.post(body_of("private", messageBody="a very private text"))

    log = (relay.folder / "web.log").read_text()

    assert "a very private text" not in log
    assert "+61400000000" not in log
