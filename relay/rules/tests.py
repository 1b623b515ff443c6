"""Is this event a test? Patterns on what the sender wrote; what they find is marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

from pydantic import BaseModel, ConfigDict, Field, model_validator

from connectors.base import Event
from relay.rules.payload import UNREADABLE
from relay.rules.routing import Pattern, compiled, finds
from relay.rules.text import plain

#: Characters of a text that a proposed pattern holds.
LONGEST = 80

_SYNTAX = re.compile(r"([\\.+*?()|\[\]{}^$])")
_PARTS = re.compile(r"[0-9A-Za-z]+|[^0-9A-Za-z]+")
_DIGITS = re.compile(r"[0-9]+")
#: Part of an id: hexadecimal digits; letters that are a word, and no such digits.
_HEXADECIMAL = re.compile(r"[0-9a-f]*[0-9][0-9a-f]*")
_WORD = re.compile(r"(?=.*[G-Zg-z])[A-Za-z]{3,20}")


class EventPattern(BaseModel):
    """Patterns of which all must be found in an event."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message_id: Pattern | None = Field(
        None, description="Regular expression found in the messageId"
    )
    text: Pattern | None = Field(None, description="Regular expression found in the text")

    @model_validator(mode="after")
    def _finds_something(self) -> EventPattern:
        if self.message_id is None and self.text is None:
            raise ValueError("empty: give a pattern for message_id, for text, or both")
        given = [each for each in (self.message_id, self.text) if each is not None]
        if all(compiled(each).search("") for each in given):
            raise ValueError("this is found in every event: none would be routed as usual")
        return self

    def finds(self, event: Event) -> bool:
        """Return whether *event* is one of these."""
        return all(
            saw is not None and finds(pattern, saw)
            for pattern, saw in (
                (self.message_id, event.message_id),
                # As the condition of a route searches it.
                (self.text, None if event.body is None else plain(event.body)),
            )
            if pattern is not None
        )


#: What ``gofax-sender test`` sends. A customer can write any text, but no messageId.
SENDER = EventPattern(message_id="^test-[0-9a-f]{24}$", text=None)


def is_test(event: Event, patterns: Sequence[EventPattern]) -> bool:
    """Return whether *event* is a test."""
    return event.type != UNREADABLE and any(each.finds(event) for each in patterns)


def proposed(event: Event) -> EventPattern | None:
    """Propose a pattern that finds *event* and others like it; None: nothing in it stands out."""
    message_id = _shape(event.message_id or "")
    text = _beginning(plain(event.body or "").strip())
    if message_id is None and text is None:
        return None
    found = EventPattern(message_id=message_id, text=text)
    return found if found.finds(event) else None


def _shape(message_id: str) -> str | None:
    """Return a pattern of ids like this one; None: without a word in it, any id may be like it."""
    parts = _PARTS.findall(message_id)
    if not (message_id.isprintable() and any(map(_WORD.fullmatch, parts))):
        return None
    return f"^{''.join(map(_part, parts))}$"


def _part(part: str) -> str:
    if _DIGITS.fullmatch(part):
        return "[0-9]+"
    if _HEXADECIMAL.fullmatch(part):
        return f"[0-9a-f]{{{len(part)}}}"
    return _escaped(part)


def _beginning(text: str) -> str | None:
    """Return a pattern of texts like this one: of its first line, in which numbers may differ."""
    # What cannot be printed ends a line, or cannot be copied.
    first = "".join(takewhile(str.isprintable, text[:LONGEST])).rstrip()
    if not first:
        return None
    end = "$" if first == text else ""
    return f"^{_DIGITS.sub('[0-9]+', _escaped(first))}{end}"


def _escaped(text: str) -> str:
    return _SYNTAX.sub(r"\\\1", text)
