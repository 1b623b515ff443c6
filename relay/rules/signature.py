"""Does this signature belong to these bytes?

GoFax documents HMAC-SHA256 and the header, but not the encoding of the value. So the usual forms
are accepted: hex or base64 (standard or URL-safe), alone or after ``sha256=``, ``v0=``, ``v1=`` or
``v1,``, and several of them separated by spaces or commas.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from itsdangerous import HMACAlgorithm

Encoding = Literal["auto", "hex", "base64"]

#: A longer header is not a list of signatures.
MAX_HEADER = 2048
#: Characters of a fingerprint: enough to tell secrets apart, too few to look one up by.
FINGERPRINT = 8
#: How long before its end a secret should no longer be in use.
ENDS_SOON = timedelta(days=7)


class _HmacSha256(HMACAlgorithm):
    """itsdangerous's algorithm in one call of OpenSSL, which takes a third of the time."""

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        return hmac.digest(key, value, "sha256")


_HMAC_SHA256 = _HmacSha256()
_PREFIX = r"(?:(?:sha256|v[01])=)?"
# 64 hex digits are also valid base64, but of 48 bytes: the length tells the two apart.
_HEX = re.compile(_PREFIX + r"([0-9a-fA-F]{64})")
_BASE64 = re.compile(_PREFIX + r"([A-Za-z0-9+/_-]{43})=?")
_SEPARATORS = re.compile(r"[ ,\t]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """Whether a request is genuine, and why."""

    good: bool
    #: For the request log; never told to the caller.
    reason: str
    #: Position of the secret that matched.
    secret: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningKey:
    """A secret with which a sender may sign, and until when."""

    key: bytes
    #: The last day, in UTC, on which it counts; None: for good.
    not_after: date | None = None

    @property
    def ends_at(self) -> datetime | None:
        if self.not_after is None:
            return None
        return datetime.combine(self.not_after, time.max, tzinfo=UTC)

    def holds(self, now: datetime) -> bool:
        """Return whether what it signs is still accepted."""
        return self.ends_at is None or now <= self.ends_at

    def ends_soon(self, now: datetime) -> bool:
        """Return whether a request that it signs should be a warning."""
        return self.ends_at is not None and self.ends_at - now <= ENDS_SOON


def fingerprint(secret: str) -> str:
    """Return a short digest, by which people tell secrets apart that nobody shows."""
    return hashlib.sha256(secret.encode()).hexdigest()[:FINGERPRINT]


def verify(
    body: bytes, header: str | None, secrets: Sequence[bytes], *, encoding: Encoding = "auto"
) -> Verification:
    """Check the signatures in *header* against *body* with every secret, in constant time."""
    if not header:
        return Verification(good=False, reason="no signature")
    claimed = list(digests(header, encoding=encoding))
    if not claimed:
        form = "hex or base64" if encoding == "auto" else encoding
        return Verification(
            good=False, reason=f"not a SHA-256 value in {form} ({len(header)} characters)"
        )
    for position, secret in enumerate(secrets):
        for digest in claimed:
            if _HMAC_SHA256.verify_signature(secret, body, digest):
                return Verification(
                    good=True, reason=f"matches secret {position + 1}", secret=position
                )
    one = len(secrets) == 1
    count = "does not match the secret" if one else f"matches none of {len(secrets)} secrets"
    return Verification(good=False, reason=count + _mistyped(body, claimed, secrets))


def stray_signs(secret: str) -> Iterator[tuple[str, str]]:
    """Yield what *secret* was probably meant to be, and what stands around it, in words."""
    stray: list[str] = []
    while step := next(_steps(secret), None):
        sign, secret = step
        stray.append(sign)
        yield secret, " and ".join(stray)


def digests(header: str, *, encoding: Encoding) -> Iterator[bytes]:
    """Yield the well-formed SHA-256 values that *header* holds, 32 bytes each."""
    if len(header) > MAX_HEADER:
        return
    for word in _SEPARATORS.split(header):
        if encoding != "base64" and (found := _HEX.fullmatch(word)):
            yield bytes.fromhex(found[1])
        elif encoding != "hex" and (found := _BASE64.fullmatch(word)):
            yield base64.urlsafe_b64decode(found[1].translate(_URL_SAFE) + "=")


def _mistyped(body: bytes, claimed: Sequence[bytes], secrets: Sequence[bytes]) -> str:
    """Say which secret would match without the signs around it; nothing if none would."""
    for position, secret in enumerate(secrets, 1):
        # Signs that are not text stay as they are.
        for meant, stray in stray_signs(secret.decode(errors="surrogateescape")):
            key = meant.encode(errors="surrogateescape")
            if any(_HMAC_SHA256.verify_signature(key, body, digest) for digest in claimed):
                return f"; secret {position} would match without the {stray}"
    return ""


def _steps(secret: str) -> Iterator[tuple[str, str]]:
    """Yield each sign that can be taken off *secret*, and what is left then."""
    shorter = {
        "byte order mark": secret.removeprefix("\ufeff"),
        "trailing newline": secret.rstrip("\r\n"),
        "trailing blank": secret.rstrip(),
        "leading blank": secret.lstrip(),
        "quotes": secret[1:-1] if secret[:1] + secret[-1:] in _QUOTES else secret,
    }
    yield from ((sign, left) for sign, left in shorter.items() if left and left != secret)


_QUOTES = ('""', "''", "``", "\u201c\u201d", "\u2018\u2019")
_URL_SAFE = str.maketrans("+/", "-_")
