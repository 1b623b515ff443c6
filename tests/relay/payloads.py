"""What may stand in the place of GoFax's example, and how it is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

from gofax import EXAMPLE
from hypothesis import strategies as st

from relay.rules.payload import DedupeField, Format, Payload, key, read

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
