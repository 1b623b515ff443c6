"""What is a probe: a request of our own that tries the way to an endpoint? Pure.

Its signature is made with a key that is derived from the endpoint's secret and signs nothing else.
So no probe passes for an event, whatever becomes of it on its way, and no event for a probe.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlencode

from relay.rules import scheme as schemes
from relay.rules.payload import Format
from relay.rules.scheme import Scheme

#: The field of a body that says that it is a probe.
FIELD = "gofaxRelayProbe"
#: How long a probe holds: whoever catches one can do nothing with it, and soon not even that.
HOLDS_FOR = timedelta(minutes=5)

_NAME, _MARK = b"gofax-relay probe", FIELD.encode()
_TOKEN = re.compile(r"(req_[0-9a-f]{24})\.(\d{9,11})")
#: What proxies change if they change bodies: other scripts, quotes, signs of HTML.
_TEXT = 'Grüße, «probe» & "quotes" <b>✓</b>'
_CONTENT_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What a probe says about itself."""

    #: The id that its request gets.
    id: str
    at: datetime

    def fault(self, *, now: datetime) -> str:
        """Return why it no longer holds; nothing if it does."""
        age = now - self.at
        if abs(age) > HOLDS_FOR:
            limit = f"{HOLDS_FOR.total_seconds():.0f} s"
            return f"a probe of {age.total_seconds():.0f} s ago, and they hold for {limit}"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """A probe as it is posted."""

    headers: Mapping[str, str]
    body: bytes


def key(secret: bytes) -> bytes:
    """Return what signs probes for an endpoint with this *secret*."""
    return hmac.digest(secret, _NAME, "sha256")


def made(probe: Probe, *, scheme: Scheme, secret: bytes, format: Format) -> Signed:
    """Return *probe*, signed as *scheme* wants it."""
    token = f"{probe.id}.{probe.at.timestamp():.0f}"
    headers = {"Content-Type": _CONTENT_TYPES[format]}
    if scheme.timestamp_header:
        headers[scheme.timestamp_header] = f"{probe.at.timestamp():.0f}"
    if format == "form":
        body = urlencode({FIELD: token, "Message": _TEXT}).encode()
    else:
        fields = {FIELD: token, "messageBody": _TEXT, **_with_place(scheme)}
        body = json.dumps(fields, ensure_ascii=False).encode()

    content = next(iter(scheme.contents(headers.get, body)), body)
    digest = hmac.digest(key(secret), content, "sha256")
    base64_wanted = scheme.encoding == "base64"
    signature = base64.b64encode(digest).decode() if base64_wanted else digest.hex()
    if scheme.header:
        return Signed(headers={**headers, scheme.header: signature}, body=body)
    return Signed(headers=headers, body=body.replace(_PLACE.encode(), signature.encode()))


def read(raw: bytes, *, format: Format) -> Probe | None:
    """Return the probe that *raw* claims to be; None if it claims nothing."""
    if _MARK not in raw:
        return None
    if format == "form":
        fields: Mapping[str, object] = dict(parse_qsl(raw.decode("utf-8", "replace")))
    else:
        fields = schemes.members(raw) or {}
    token = _TOKEN.fullmatch(str(fields.get(FIELD, "")))
    if token is None:
        return None
    return Probe(id=token[1], at=datetime.fromtimestamp(int(token[2]), UTC))


#: Where a signature in the body will stand.
_PLACE = "-" * 64


def _with_place(scheme: Scheme) -> dict[str, str]:
    """Return the field for the signature, where the body has one."""
    has_field = scheme.header is None or scheme.signs == "body-without-field"
    return {scheme.field: _PLACE} if has_field else {}
