"""JSON as the relay writes it: fast, with a way for what is no Unicode, and safe to print."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

#: What JSON need not escape, and terminals or line readers obey: DEL and C1 controls (U+0085 ends
#: a line), marks of direction, U+2028 and U+2029.
_OBEYED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
#: The same and what JSON escapes by itself: C0 controls and lone surrogates.
_NOT_PLAIN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def dumps(value: Any) -> str:
    """Write *value* as one line of JSON; what JSON does not know becomes its text."""
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:
        # Lone surrogates, and integers of more than 64 bits.
        return json.dumps(value, default=str)


def printable(value: Any) -> str:
    """Write *value* as one line of JSON in which no character is obeyed by who shows it."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", dumps(value))


def plain(text: str) -> str:
    """Return *text* as one line in which a blank stands for what a terminal would obey."""
    return _NOT_PLAIN.sub(" ", text)
