"""How does a sender sign: where does the signature stand, what does it cover, since when?

GoFax documents HMAC-SHA256 and a header, and shows a field ``signature`` in the body as well
(help page "SMS Webhooks", November 2026); what exactly is signed, it does not say. So an endpoint
can say it, in the words of this module.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from relay.rules import payload, signature
from relay.rules.signature import Encoding, Verification

Signs = Literal["body", "timestamp.body", "body-without-field", "sorted-json"]
SecretEncoding = Literal["text", "hex", "base64"]

#: Gives the value of a header by its name; None: there is none.
Header = Callable[[str], str | None]

#: The field that GoFax's example of a payload has.
FIELD = "signature"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """Where the signature is, and what it is of."""

    #: None: it stands in *field* of the JSON body.
    header: str | None = "X-GoFax-Signature"
    #: The field that has the signature, or is left out of what a header signs.
    field: str = FIELD
    encoding: Encoding = "auto"
    signs: Signs = "body"
    timestamp_header: str | None = None

    @property
    def place(self) -> str:
        """Say where the signature stands."""
        return f"{self.header} header" if self.header else f"field {self.field} in the body"

    def claimed(self, header: Header, body: bytes) -> str | None:
        """Return the signature as the request gives it."""
        if self.header:
            return header(self.header)
        value = (members(body) or {}).get(self.field)
        return value if isinstance(value, str) else None

    def contents(self, header: Header, body: bytes) -> Sequence[bytes]:
        """Return what may have been signed; several where JSON can be written in several ways."""
        if self.signs == "body":
            return (body,)
        if self.signs == "timestamp.body":
            stamp = header(self.timestamp_header or "")
            return (stamp.encode("latin-1", "replace") + b"." + body,) if stamp else ()
        if self.signs == "body-without-field":
            return tuple(without(body, self.field))
        return tuple(sorted_json(body, leave_out=None if self.header else self.field))

    def verify(self, header: Header, body: bytes, keys: Sequence[bytes]) -> Verification:
        """Check the signature of a request with every key, in constant time."""
        if self.signs == "body" and self.header:
            return signature.verify(body, header(self.header), keys, encoding=self.encoding)
        claimed = self.claimed(header, body)
        if not claimed:
            return Verification(good=False, reason=f"no {self.place}")
        contents = self.contents(header, body)
        if not contents:
            lacks = f"no {self.timestamp_header} header" if self._has_time else "not a JSON object"
            return Verification(good=False, reason=f"{lacks}: it would be signed, too")
        tried = [
            signature.verify(content, claimed, keys, encoding=self.encoding)
            for content in contents
        ]
        return next((each for each in tried if each.good), tried[0])

    def age(self, header: Header, *, now: datetime) -> timedelta | None:
        """Return how long before *now* a request was signed; None if it does not say."""
        text = header(self.timestamp_header or "") or ""
        at = unix(text) or payload.moment(text)
        return now - at if at else None

    @property
    def _has_time(self) -> bool:
        return self.signs == "timestamp.body"


def key(secret: str, encoding: SecretEncoding) -> bytes:
    """Return the bytes that a secret stands for. Raises ValueError if it is not in *encoding*."""
    if encoding == "text":
        return secret.encode()
    try:
        if encoding == "hex":
            return bytes.fromhex(secret)
        return base64.b64decode(
            secret.translate(_STANDARD) + "=" * (-len(secret) % 4), validate=True
        )
    except (ValueError, binascii.Error):
        raise ValueError(f"is not {encoding}") from None


def unix(text: str) -> datetime | None:
    """Return the time that seconds or milliseconds since 1970 say; None: they say none."""
    if not (text.isascii() and text.isdigit() and 9 <= len(text) <= 13):
        return None
    seconds = int(text) / (1000 if len(text) > 11 else 1)
    return datetime.fromtimestamp(seconds, UTC)


def members(body: bytes) -> dict[str, Any] | None:
    """Return the fields of a JSON object; None: it is none, or none that Python can read."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def without(body: bytes, field: str) -> Iterator[bytes]:
    """Yield *body* without *field*: as it was written, then as JSON libraries write it."""
    found = members(body)
    if found is None or field not in found:
        return
    text = body.decode("utf-8-sig", "surrogateescape")
    start, end = _span(text, field)
    yield (text[:start] + text[end:]).encode("utf-8", "surrogateescape")
    yield from _written({name: value for name, value in found.items() if name != field})


def sorted_json(body: bytes, *, leave_out: str | None) -> Iterator[bytes]:
    """Yield the object of *body* with its fields in order, as JSON libraries write it."""
    found = members(body)
    if found is not None:
        kept = {name: value for name, value in found.items() if name != leave_out}
        yield from _written(kept, sort_keys=True)


def _written(value: Any, *, sort_keys: bool = False) -> Iterator[bytes]:
    for separators in ((",", ":"), (", ", ": ")):
        for ascii_only in (False, True):
            text = json.dumps(
                value, sort_keys=sort_keys, separators=separators, ensure_ascii=ascii_only
            )
            yield text.encode("utf-8", "surrogatepass")


def _span(text: str, field: str) -> tuple[int, int]:
    """Return from where to where *field* and its comma stand in the JSON object *text*.

    Of a name that is there twice the last counts, as it does for every reader in Python.
    """
    decoder = json.JSONDecoder()
    members = []
    at = _blank(text, text.index("{") + 1)
    while text[at] != "}":
        start = at
        name, at = decoder.raw_decode(text, at)
        at = _blank(text, _blank(text, at) + 1)  # past the colon
        _, at = decoder.raw_decode(text, at)
        members.append((name, start, at))
        at = _blank(text, at)
        if text[at] == ",":
            at = _blank(text, at + 1)
    last = max(index for index, (name, *_) in enumerate(members) if name == field)
    _, start, end = members[last]
    if last + 1 < len(members):
        return start, members[last + 1][1]
    return (members[last - 1][2] if last else start), end


def _blank(text: str, at: int) -> int:
    """Return where the blanks from *at* on end."""
    while text[at] in " \t\r\n":
        at += 1
    return at


_STANDARD = str.maketrans("-_", "+/")
