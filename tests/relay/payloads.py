"""The example of GoFax's help page, and what may stand in its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from hypothesis import strategies as st

from relay.rules.payload import DedupeField, Format, Payload, key, read

#: The example of GoFax's help page, as it stands there.
EXAMPLE: dict[str, Any] = {
    "eventType": "SMS_REPLY",
    "eventTimestamp": "2025-12-04T00:24:07.112733Z",
    "messageId": "abc123",
    "direction": "reply",
    "from": "+61400000000",
    "to": "+61700000000",
    "messageBody": "Thanks for your message",
    "metadata": {"accountId": "12345"},
    "signature": "HMAC_SHA256",
}
AT = datetime(2025, 12, 4, 0, 24, 7, 112733, tzinfo=UTC)
DROP = object()
#: Text as it may stand in a JSON string, lone surrogates and NUL included.
ANY_TEXT = st.text(st.characters(codec=None))
FIELDS = ("messageId", "eventType", "eventTimestamp", "direction", "from", "to", "messageBody")


def raw(**changes: object) -> bytes:
    """Write the example with *changes*; ``from_`` stands for ``from``."""
    fields = EXAMPLE | {name.rstrip("_"): value for name, value in changes.items()}
    return json.dumps({k: v for k, v in fields.items() if v is not DROP}).encode()


def said(**changes: object) -> Payload:
    return read(raw(**changes), format="json")


def form(query: str = "", **fields: str) -> Payload:
    return read(urlencode(fields).encode(), format="form", query=query)


def key_of(
    body: bytes,
    *,
    format: Format = "json",
    endpoint: str = "/hook",
    dedupe_by: Sequence[DedupeField] = ("messageId",),
    query: str = "",
) -> bytes:
    payload = read(body, format=format, query=query)
    return key(payload, body, endpoint=endpoint, dedupe_by=dedupe_by, query=query)
