"""The published vectors of HMAC-SHA256 over a raw body, in each spelling that providers use."""

from __future__ import annotations

import base64

import pytest

from sender import SenderError, sign

SLACK_BODY = (
    "token=xyzz0WbapA4v" "BCDEFasx0q6G" "&team_id=T1DC2JH3J&team_domain=testteamnow"
    "&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
    "&command=%2Fwebhook-collect&text="
    "&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
    "%2F96rGlfmibIGlgcZRskXaIFfN"
    "&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)  # fmt: skip

HEX = [
    pytest.param(
        "It's a Secret to Everybody",
        b"Hello, World!",
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        id="1 GitHub",
    ),
    pytest.param(
        "8f742231b10e8888abcd99yyyzzz85a5",
        f"v0:1531420618:{SLACK_BODY}".encode(),
        "a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        id="4 Slack",
    ),
    pytest.param(
        b"\x0b" * 20,
        b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        id="8 RFC 4231, 1",
    ),
    pytest.param(
        "Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        id="9 RFC 4231, 2",
    ),
]

BASE64 = [
    pytest.param(
        "channel_secret",
        b"bodybodybodybody",
        "/gg9a+LvFevTH1sd7XCQycD7tsWclCsInj7MhBHxN7k=",
        id="2 LINE",
    ),
    pytest.param(
        "asdf1234",
        b'https://example.com/webhook{"hello":"world"}',
        "2kRE5qRU2tR+tBGlDwMEw2avJ7QM4ikPYD/PJ3bd9Og=",
        id="3 Square",
    ),
    pytest.param(
        base64.b64decode("MfKQ9r8GKYqrTwjU" + "PD8ILPZIo2LaLaSw"),
        b'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}',
        "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        id="5 Standard Webhooks",
    ),
    pytest.param(
        base64.b64decode("plJ3nmyCDGBK" + "InavdOK15jsl"),
        b'msg_loFOjxBNrRLzqYUf.1731705121.{"event_type":"ping","data":{"success":true}}',
        "rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        id="6 Svix",
    ),
]


@pytest.mark.parametrize(("secret", "body", "expected"), HEX)
def test_a_published_hex_signature_is_made(
    secret: str | bytes, body: bytes, expected: str
) -> None:
    assert sign(body, secret) == expected


@pytest.mark.parametrize(("secret", "body", "expected"), BASE64)
def test_a_published_base64_signature_has_our_bytes(
    secret: str | bytes, body: bytes, expected: str
) -> None:
    assert bytes.fromhex(sign(body, secret)) == base64.b64decode(expected, validate=True)


def test_text_is_a_secret_by_its_utf_8_bytes() -> None:
    assert sign(b"body", "Schlüssel") == sign(b"body", "Schlüssel".encode())


def test_a_secret_from_the_environment_that_is_no_utf_8_keeps_its_bytes() -> None:
    assert sign(b"body", b"\xff\xfe".decode("utf-8", "surrogateescape")) == sign(
        b"body", b"\xff\xfe"
    )


@pytest.mark.parametrize("secret", ["", b""])
def test_an_empty_secret_is_refused(secret: str | bytes) -> None:
    with pytest.raises(SenderError, match="secret is empty"):
        sign(b"body", secret)
