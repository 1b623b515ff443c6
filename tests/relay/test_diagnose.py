"""Which scheme explains a signature: the forms of public senders, and what is left open."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping

import pytest

from relay.rules.diagnose import Diagnosis, Match, Secret, diagnose
from relay.rules.scheme import Scheme, key, without

SECRET = "correct horse battery staple"
FIELDS = {"messageId": "m-1", "from": "+61400000123", "messageBody": "Grüße", "n": 7}
BODY = json.dumps(FIELDS).encode()
NOW = "1764547200"


def mac(data: bytes, *, secret: bytes = SECRET.encode(), hash: str = "sha256") -> str:
    return hmac.digest(secret, data, hash).hex()


def found(
    headers: Mapping[str, str], body: bytes = BODY, *, secret: str = SECRET, path: str = "/hook"
) -> Diagnosis:
    secrets = [Secret(name="another", text="wrong"), Secret(name="secret 2", text=secret)]
    return diagnose(headers=headers, body=body, secrets=secrets, path=path)


def best(headers: Mapping[str, str], body: bytes = BODY, *, secret: str = SECRET) -> Match:
    return found(headers, body, secret=secret).matches[0]


def with_field(name: str = "signature", *, indent: int | None = None) -> bytes:
    """Return a body that has its signature in a field, over what it is without that."""
    signed = json.dumps(FIELDS, indent=indent).encode()
    return json.dumps(FIELDS | {name: mac(signed)}, indent=indent).encode()


IN_FIELD = "signature: {field: signature, signs: body-without-field}"
TIMED = {"x-gofax-signature": mac(NOW.encode() + b"." + BODY), "x-request-time": NOW}
IN_ORDER = mac(json.dumps(FIELDS, sort_keys=True).encode())
SAYABLE = {
    "another header": (
        {"x-hub-signature-256": f"sha256={mac(BODY)}"},
        BODY,
        "signature: {header: X-Hub-Signature-256}",
    ),
    "the header that is expected": ({"x-gofax-signature": mac(BODY)}, BODY, ""),
    "base64": (
        {"x-hmac": base64.b64encode(bytes.fromhex(mac(BODY))).decode()},
        BODY,
        "signature: {header: X-Hmac}",
    ),
    "a time before the body": (
        TIMED,
        BODY,
        "signature: {signs: timestamp.body, timestamp_header: X-Request-Time}",
    ),
    "a field": ({}, with_field(), IN_FIELD),
    "a field of a body over lines": ({}, with_field(indent=2), IN_FIELD),
    "a field of another name": (
        {},
        with_field("hmac"),
        "signature: {field: hmac, signs: body-without-field}",
    ),
    "a header over the body without its field": (
        {"x-gofax-signature": mac(BODY)},
        json.dumps(FIELDS | {"signature": "HMAC_SHA256"}).encode(),
        "signature: {signs: body-without-field}",
    ),
    "fields in order": ({"x-gofax-signature": IN_ORDER}, BODY, "signature: {signs: sorted-json}"),
}


@pytest.mark.parametrize(("headers", "body", "yaml"), SAYABLE.values(), ids=SAYABLE)
def test_what_the_config_can_say_is_recommended(
    headers: dict[str, str], body: bytes, yaml: str
) -> None:
    match = best(headers, body)

    assert match.is_recommended
    assert match.secret == "secret 2"
    assert match.yaml == yaml


@pytest.mark.parametrize(("headers", "body", "yaml"), SAYABLE.values(), ids=SAYABLE)
def test_what_is_recommended_accepts_the_request(
    headers: dict[str, str], body: bytes, yaml: str
) -> None:
    scheme = best(headers, body).scheme
    assert scheme is not None

    def header(name: str) -> str | None:
        return headers.get(name.lower())

    assert scheme.verify(header, body, [SECRET.encode()]).good
    assert not scheme.verify(header, body, [b"another"]).good
    for changed in (body.replace(b"m-1", b"m-2"), body.replace(b"+61400000123", b"+61400000124")):
        assert not scheme.verify(header, changed, [SECRET.encode()]).good


OPEN = {
    "nothing": (b"", "nothing"),
    "the path": (b"/hook", "the path of the URL"),
    "the id": (b"m-1", "only the field messageId"),
    "the time": (NOW.encode(), "only the header X-Time"),
}


@pytest.mark.parametrize(("signed", "covers"), OPEN.values(), ids=OPEN)
def test_what_leaves_the_message_open_is_named_and_never_recommended(
    signed: bytes, covers: str
) -> None:
    match = best({"x-gofax-signature": mac(signed), "x-time": NOW})

    assert (match.covers, match.is_open, match.is_recommended, match.yaml) == (
        covers,
        True,
        False,
        "",
    )


AMENDED = {
    "newline": (SECRET + "\n", SECRET.encode(), "without the trailing newline", "text"),
    "quotes": (f'"{SECRET}"', SECRET.encode(), "without the quotes", "text"),
    "hex": ("00ff" * 8, bytes.fromhex("00ff" * 8), "", "hex"),
    "base64": (base64.b64encode(b"k" * 24).decode(), b"k" * 24, "", "base64"),
}


@pytest.mark.parametrize(("text", "used", "amend", "encoding"), AMENDED.values(), ids=AMENDED)
def test_a_secret_that_is_written_otherwise_is_found(
    text: str, used: bytes, amend: str, encoding: str
) -> None:
    match = best({"x-gofax-signature": mac(BODY, secret=used)}, secret=text)

    assert (match.amend, match.secret_encoding) == (amend, encoding)
    assert match.yaml == (
        "" if encoding == "text" else f"signature: {{secret_encoding: {encoding}}}"
    )


def test_standard_webhooks_are_recognised_and_cannot_be_said() -> None:
    text = "whsec" + "_" + base64.b64encode(b"k" * 24).decode()
    signed = hmac.digest(b"k" * 24, b"msg_1." + NOW.encode() + b"." + BODY, "sha256")
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": NOW,
        "webhook-signature": "v1," + base64.b64encode(signed).decode(),
    }

    match = best(headers, secret=text)

    assert match.covers == "Webhook-Id.Webhook-Timestamp.body (Standard Webhooks)"
    assert (match.scheme, match.amend) == (None, "without whsec_")


@pytest.mark.parametrize("hash", ["sha1", "sha512"])
def test_another_hash_is_named(hash: str) -> None:
    assert hash in hashlib.algorithms_guaranteed
    match = best({"x-signature": mac(BODY, hash=hash)})

    assert (match.hash, match.is_recommended) == (hash, False)


def test_without_an_explanation_it_says_what_was_tried() -> None:
    diagnosis = found({"x-gofax-signature": mac(b"something else"), "host": "example.org"})

    assert diagnosis.matches == []
    assert diagnosis.places == ["header X-Gofax-Signature"]
    assert diagnosis.secrets == 2
    assert diagnosis.contents > 5


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b"[" * 9000, b"9" * 20_000, b'{"signature": ' + b"[" * 9000, b"\xff"],
)
def test_any_body_can_be_looked_at(body: bytes) -> None:
    assert found({"x-gofax-signature": mac(b"x")}, body).matches == []


WITHOUT = {
    "first": (b'{"s": 1, "a": 2}', b'{"a": 2}'),
    "last": (b'{"a": 2 , "s":1 }', b'{"a": 2 }'),
    "between": (b'{"a":2,"s":{"x":"}"},"b":3}', b'{"a":2,"b":3}'),
    "alone": (b'{ "s": 1 }', b'{  }'),
    "twice": (b'{"s": 1, "s": 2}', b'{"s": 1}'),
    "byte order mark": (b'\xef\xbb\xbf{"s":1,"a":2}', b'{"a":2}'),
}  # fmt: skip


@pytest.mark.parametrize(("body", "left"), WITHOUT.values(), ids=WITHOUT)
def test_a_field_is_left_out_with_its_comma(body: bytes, left: bytes) -> None:
    assert next(without(body, "s")) == left


def test_a_secret_that_is_not_in_its_encoding_is_a_fault() -> None:
    with pytest.raises(ValueError, match="is not hex"):
        key("zz", "hex")
    with pytest.raises(ValueError, match="is not base64"):
        key("???", "base64")
    assert key("aGk_", "base64") == key("aGk/", "base64")


def test_a_scheme_names_what_is_missing() -> None:
    timed = Scheme(signs="timestamp.body", timestamp_header="X-Time")
    signed = {"x-gofax-signature": mac(b"x")}

    assert timed.verify(lambda _: None, b"{}", [b"k"]).reason == "no X-GoFax-Signature header"
    assert (
        "no X-Time header" in timed.verify(lambda n: signed.get(n.lower()), b"{}", [b"k"]).reason
    )
    other = Scheme(signs="sorted-json")
    assert (
        "not a JSON object" in other.verify(lambda n: signed.get(n.lower()), b"[", [b"k"]).reason
    )
