"""Mentions of a customer, in people's words and in bodies as they came."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from relay.rules.mentions import Mentions

TEXT = "Überweisung an Müller 🙂, heute"
MENTIONS = Mentions("+61412345678", [TEXT, "ok"])


@pytest.mark.parametrize(
    "words",
    [
        "call 0412 345 678 now",
        "(+61) 412-345-678",
        "+61 (0)412 345 678",
        "0011 61 412345678",
        "61412345678",
        "４１２３４５６７８",  # noqa: RUF001  # full width
        "0399998888 0412345678 0399998887",  # beside other numbers
        "0412\u00a0345\u2011678",
        f"wrote: {TEXT}!",
    ],
)
def test_the_customer_is_found_in_words(words: str) -> None:
    assert MENTIONS.in_text(words)


@pytest.mark.parametrize(
    "words",
    [
        "04123456789",  # one digit more
        "10412345678",
        "+62412345678",  # another country
        "ok",
        "",
        "Überweisung",
        "\x00\ud83d",
    ],
)
def test_others_are_not(words: str) -> None:
    assert not MENTIONS.in_text(words.encode("utf-8", "replace").decode())


SAID = {"messageId": "m1", "from": "+61412345678", "messageBody": "hi"}
ABOUT = {"messageBody": TEXT}


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps(SAID).encode(),
        json.dumps(SAID).replace("+", "\\u002b").replace("6", "\\u0036").encode(),
        urlencode(SAID).encode(),
        b'{"from": 61412345678}',
        "from=0412345678&text=\xfcber".encode("cp1252"),
        json.dumps(ABOUT).encode(),
        json.dumps(ABOUT, ensure_ascii=False).encode(),
        json.dumps(ABOUT).encode()[:40],  # cut
        urlencode(ABOUT).encode(),
        b'{"messageBody": "\\ud83d", "from": "+61412345678"}',  # half an emoji
    ],
)
def test_the_customer_is_found_in_bodies(raw: bytes) -> None:
    assert MENTIONS.in_body(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\xff\\",
        b'{"messageBody": "\\ud83d"}',
        json.dumps(SAID | {"from": "+61412345679"}).encode(),
        json.dumps({"messageBody": "Überweisung an Maier"}).encode(),
        b'{"messageBody": "ok"}',  # a text that may be anybody's
    ],
)
def test_bodies_of_others_are_left(raw: bytes) -> None:
    assert not MENTIONS.in_body(raw)


def test_a_customer_may_be_known_by_a_name() -> None:
    assert Mentions("Acme").in_text("an ACME thing")
    assert not Mentions("Acme").in_text("acmes")
    assert not Mentions("%").in_text("100 % sure")
