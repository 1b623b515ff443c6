"""Probes: signed like events, and nothing else's signature."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from relay.rules import probe
from relay.rules.payload import Format
from relay.rules.probe import HOLDS_FOR, Probe, Signed
from relay.rules.scheme import Scheme

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ONE = Probe(id="req_" + "0a" * 12, at=NOW)
SECRET = b"secret"

SCHEMES = [
    Scheme(),
    Scheme(header="X-Other", encoding="hex"),
    Scheme(encoding="base64"),
    Scheme(signs="timestamp.body", timestamp_header="X-Time"),
    Scheme(signs="body-without-field"),
    Scheme(signs="sorted-json"),
    Scheme(header=None, signs="body-without-field"),
    Scheme(header=None, field="sig", signs="sorted-json"),
]


def made(scheme: Scheme = SCHEMES[0], format: Format = "json") -> Signed:
    return probe.made(ONE, scheme=scheme, secret=SECRET, format=format)


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_a_probe_is_signed_as_the_endpoint_wants_it_and_is_no_event(scheme: Scheme) -> None:
    sent = made(scheme)

    assert probe.read(sent.body, format="json") == ONE
    assert scheme.verify(sent.headers.get, sent.body, [probe.key(SECRET)]).good
    assert not scheme.verify(sent.headers.get, sent.body, [SECRET]).good


def test_a_form_can_be_a_probe() -> None:
    sent = made(format="form")

    assert probe.read(sent.body, format="form") == ONE
    assert SCHEMES[0].verify(sent.headers.get, sent.body, [probe.key(SECRET)]).good


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"gofaxRelayProbe",
        json.dumps({"messageBody": f"gofaxRelayProbe req_{'0a' * 12}.1764000000"}).encode(),
        json.dumps({"metadata": {"gofaxRelayProbe": "x"}}).encode(),
        json.dumps({"gofaxRelayProbe": None}).encode(),
        json.dumps({"gofaxRelayProbe": "req_1.99999999999999"}).encode(),
    ],
)
def test_what_customers_write_is_no_probe(body: bytes) -> None:
    assert probe.read(body, format="json") is None


@pytest.mark.parametrize(
    ("age", "holds"),
    [(0, True), (300, True), (301, False), (-300, True), (-301, False)],
)
def test_a_probe_holds_for_minutes(age: int, holds: bool) -> None:
    assert timedelta(seconds=300) == HOLDS_FOR
    assert (ONE.fault(now=NOW + timedelta(seconds=age)) == "") is holds
