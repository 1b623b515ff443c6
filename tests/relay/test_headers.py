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


#: A JSON Web Token as RFC 7519 shows it, its signature of 32 bytes included.
JWT = (
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODB9"
    "." + base64.urlsafe_b64encode(DIGEST).decode().rstrip("=")
)


@pytest.mark.parametrize(
    "name",
    ["authorization", "cookie", "set-cookie", "proxy", "proxy-authorization", "x-api-key",
     "x-apikey", "x-access-key", "x-auth-token", "x-csrf-token", "client-secret", "x-password",
     "x-session-id", "x-amz-security-token", "x-credential", "x-onetime-token", "x-auth", "auth",
     "x-original-authorization", "x-forwarded-authorization", "x-authorization-time-limited",
     "ocp-apim-subscription-key", "x-functions-key", "x-goog-iap-jwt-assertion", "x-user-jwt",
     "x-jwt", "x-authentication", "x-signin-token", "x-assigned-token", "x-hashed-password",
     "x-time-session", "x-cookie-2", "x-application-key"],
)  # fmt: skip
def test_a_credential_is_not_kept(name: str) -> None:
    for value in ("v", "hunter2", "x" * 2000):
        assert headers.kept([(name, value), ("host", "a")], signature="x-s") == {"host": "a"}


@pytest.mark.parametrize(
    "name", ["x-auth", "x-signin-token", "x-onetime-token", "x-api-key", "x-design-token"]
)
def test_a_credential_that_is_as_long_as_a_signature_is_not_kept(name: str) -> None:
    assert headers.kept([(name, DIGEST.hex())], signature="x-s") == {}


@pytest.mark.parametrize(
    "value",
    ["Bearer abc", "bearer  abc", '"Bearer abc"', "BEARER abc", "Basic Z29mYXg6cHc=",
     "basic Z29mYXg6cHc", "Negotiate YII", JWT, f"JWT {JWT}", f'token="{JWT}"',
     f"a=1; id={JWT}; b=2", f"{JWT}.{'x' * 2000}", "x" * 3000 + f" {JWT}"],
)  # fmt: skip
def test_a_credential_is_not_kept_under_another_name(value: str) -> None:
    for name in ("x-odd", "x-request-time", "x-my-signature", "user-agent"):
        assert headers.kept([(name, value), ("host", "a")], signature="x-s") == {"host": "a"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user-agent", "Visual Basic 6"),
        ("user-agent", "Mozilla/5.0 (a; b) eyJ.x"),
        ("x-plan", "basic, monthly"),
        ("x-word", "bearer"),
        ("x-request-id", DIGEST.hex()),
        ("content-length", "7"),
        ("idempotency-key", "abc"),
        ("x-author", "me"),
        ("authority", "a.example"),
        # Signatures, and what is signed with the body, under names that sound like credentials.
        ("x-gofax-signature", "anything"),
        ("x-hub-signature-256", "sha256=" + DIGEST.hex()),
        ("x-signing-secret-hmac", DIGEST.hex()),
        ("x-token-digest", base64.b64encode(DIGEST).decode()),
        ("x-token-hash", hashlib.sha1(b"x").hexdigest()),
        ("x-auth-signature", f"t=1764331200,v1={DIGEST.hex()}"),
        ("x-session-sign", base64.b64encode(hashlib.sha512(b"x").digest()).decode()),
        ("x-authorization-signature", "v1," + base64.b64encode(DIGEST).decode()),
        ("x-auth-timestamp", "1764331200"),
        ("x-token-time", "2026-11-28T10:00:00.123+11:00"),
        # A detached signature (RFC 7515, F) has nothing in its middle.
        ("x-jws-signature", JWT.partition(".")[0] + ".." + JWT.rpartition(".")[2]),
    ],
)
def test_a_signature_and_what_is_no_credential_are_kept(name: str, value: str) -> None:
    assert headers.kept([(name, value)], signature="x-s") == {name: value}


@pytest.mark.parametrize("value", ["v", "Bearer abc", JWT])
@pytest.mark.parametrize("name", ["Authorization", "X-Auth-Token", "X-GoFax-Signature"])
def test_the_configured_header_is_kept_whatever_its_name_and_value(name: str, value: str) -> None:
    assert headers.kept([(name.lower(), value)], signature=name) == {name.lower(): value}


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
