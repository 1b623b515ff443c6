"""Kept headers: no credentials, bounded, and a signature under any name stays."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.rules import headers
from relay.rules.headers import LONGEST_TOGETHER, LONGEST_VALUE

DIGEST = hashlib.sha256(b"x").digest()


def kept(**named: str) -> dict[str, str]:
    pairs = ((name.replace("_", "-"), value) for name, value in named.items())
    return headers.kept(pairs, signature="X-GoFax-Signature")


@pytest.mark.parametrize(
    "name",
    ["authorization", "cookie", "set-cookie", "proxy", "proxy-authorization", "x-api-key",
     "x-apikey", "x-access-key", "x-auth-token", "x-csrf-token", "client-secret", "x-password",
     "x-session-id", "x-amz-security-token", "x-credential"],
)  # fmt: skip
def test_a_credential_is_not_kept(name: str) -> None:
    assert headers.kept([(name, "v"), ("host", "a")], signature="x-s") == {"host": "a"}


@pytest.mark.parametrize(
    "name",
    ["x-gofax-signature", "x-hub-signature-256", "x-signing-secret-hmac", "x-token-digest",
     "user-agent", "x-request-id", "content-length", "x-timestamp"],
)  # fmt: skip
def test_a_signature_and_what_is_no_credential_are_kept(name: str) -> None:
    assert headers.kept([(name, "v")], signature="X-GoFax-Signature") == {name: "v"}


def test_the_configured_header_is_kept_whatever_its_name() -> None:
    assert headers.kept([("authorization", "v")], signature="Authorization") == {
        "authorization": "v"
    }


def test_a_long_value_is_cut_and_cleaned() -> None:
    assert kept(x_long="a\x00" * 5000) == {"x-long": "a" * (LONGEST_VALUE // 2)} or kept(
        x_long="a" * 5000
    ) == {"x-long": "a" * LONGEST_VALUE}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-gofax-signature", "v"),
        ("x-my-hmac", "v"),
        ("x-content-digest", "v"),
        ("x-sent-timestamp", "1764331200"),
        ("x-odd", DIGEST.hex()),
        ("x-odd", "sha256=" + DIGEST.hex()),
        ("x-odd", base64.b64encode(DIGEST).decode()),
        ("x-odd", base64.urlsafe_b64encode(DIGEST).decode().rstrip("=")),
        ("x-odd", hashlib.sha1(b"x").hexdigest()),
        ("x-odd", base64.b64encode(hashlib.sha512(b"x").digest()).decode()),
    ],
)
def test_what_may_be_a_signature_stays_when_there_is_no_room_for_all(
    name: str, value: str
) -> None:
    many = [(f"x-filler-{number}", "f" * 900) for number in range(50)]

    found = headers.kept([*many, (name, value)], signature="X-GoFax-Signature")

    assert found[name] == value
    assert 5 < len(found) < 12


@given(
    pairs=st.lists(st.tuples(st.text(max_size=40), st.text(max_size=3000)), max_size=60),
    signature=st.sampled_from(["x-gofax-signature", "a"]),
)
def test_what_is_kept_is_bounded_whatever_comes(
    pairs: list[tuple[str, str]], signature: str
) -> None:
    found = headers.kept(pairs, signature=signature)

    assert sum(len(name) + len(value) for name, value in found.items()) <= LONGEST_TOGETHER
    assert all(len(value) <= LONGEST_VALUE for value in found.values())
