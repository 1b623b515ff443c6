"""An event in plain words for people, and as plain values for programs that take JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

import orjson

from connectors.base import Event

#: What JSON need not escape, but some programs obey: DEL and C1 controls (U+0085 ends a line),
#: marks of direction, U+2028 and U+2029, which end lines too.
_UNPRINTABLE = re.compile(
    rb"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]"
)

_FIELDS = tuple(field.name for field in fields(Event))

#: Stands in for the text when GoFax is set not to send it.
NO_BODY = "(no text: Include Message body is off for this webhook in GoFax)"


def spoken(event: Event) -> str:
    """Return the text of the SMS, or the reason why there is none."""
    if event.type == "SMS_STATUS":
        return event.body or "(no status text)"
    return event.body or NO_BODY


def title(event: Event) -> str:
    """Say in one line what happened and with whom."""
    customer = event.customer or "an unknown number"
    if event.type == "SMS_STATUS":
        return f"SMS status for {customer}"
    if event.type == "SMS_REPLY":
        return f"SMS reply from {customer}"
    if event.type == "SMS_RECEIVED":
        return f"SMS from {customer}"
    return f"{event.type or 'Event'}: {customer}"


def parties(event: Event) -> str:
    """Say who wrote to whom, as ``+61400000000 → +61700000000``."""
    return f"{event.sender or 'unknown'} → {event.recipient or 'unknown'}"


def named_values(event: Event) -> dict[str, Any]:
    """Return every field of *event* by its name, as it is."""
    return {name: getattr(event, name) for name in _FIELDS}


def values(event: Event) -> dict[str, Any]:
    """Return every field of *event* by its name, times as ISO 8601."""
    named = named_values(event)
    named |= {name: _writable(named[name]) for name in ("metadata", "payload")}
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in named.items()
    }


def encode(value: Any) -> bytes:
    """Write *value* as JSON in UTF-8, on one line for every program and harmless in a terminal."""
    try:
        written = orjson.dumps(value)
    except TypeError:
        written = _encode_slowly(value)
    if written.isascii() and b"\x7f" not in written:
        return written
    return _UNPRINTABLE.sub(_escaped, written)


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode())


def _encode_slowly(value: Any) -> bytes:
    """Write values that orjson refuses: half a surrogate pair, an integer above 64 bits."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")  # half a surrogate pair is no text


def _writable(value: Mapping[str, Any]) -> Any:
    """Drop values that JSON cannot express, and a structure too deep to write."""
    try:
        return orjson.loads(orjson.dumps(value))
    except TypeError:
        return _writable_slowly(value)


def _writable_slowly(value: Mapping[str, Any]) -> Any:
    try:
        return json.loads(json.dumps(value), parse_constant=lambda name: None)
    except RecursionError:
        return None
