"""The Adaptive Card of an event: safe against what strangers write, and small enough for Teams.

Version 1.4 is shown by every client of Teams. What others wrote stands in TextRuns, which know no
Markdown, or is escaped: a text can make no link, no mention and no heading.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from datetime import UTC, datetime
from typing import Any, Literal

from connectors import text
from connectors.base import Event

Json = dict[str, Any]
#: ``envelope`` is what the templates of Workflows loop over; some flows want the bare card.
Shape = Literal["envelope", "card"]

#: Bytes of JSON. Teams documents 28 KB, and not whether a KB is 1,000 or 1,024.
LIMIT = 28_000
#: Longest fact or title; what is longer is no phone number.
LONGEST_FACT = 120
#: Joins without a visible gap, so that what follows loses its meaning and keeps its look.
WORD_JOINER = "\u2060"

_UNSENDABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MEANINGFUL = re.compile(r"(<(?=/?\s*at\b)|\{(?=\{\s*(?:date|time)\b))", re.IGNORECASE)
_PLAIN = re.compile(r"\+?[A-Za-z0-9 ]+")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def message(event: Event, *, shape: Shape, repeat: bool) -> Json:
    """Build what is posted for *event*, its text shortened if the whole would be too large."""
    words = _clean(text.spoken(event))

    def build(kept: int) -> Json:
        card = _card(event, words=_shortened(words, kept), repeat=repeat)
        return card if shape == "card" else _envelope(card)

    def size(kept: int) -> int:
        return len(encode(build(kept)))

    if size(len(words)) <= LIMIT:
        return build(len(words))
    return build(max(0, bisect_right(range(len(words)), LIMIT, key=size) - 1))


def encode(payload: Json) -> bytes:
    """Return the JSON that goes over the wire."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def _envelope(card: Json) -> Json:
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return {"type": "message", "attachments": [attachment]}


def _card(event: Event, *, words: str, repeat: bool) -> Json:
    card: Json = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            _rich(_brief(text.title(event)), size="Medium", weight="Bolder"),
            _rich(words),
            {"type": "FactSet", "facts": _facts(event)},
            _rich(_small_print(event, repeat=repeat), size="Small", isSubtle=True),
        ],
    }
    if event.url:
        card["actions"] = [
            {"type": "Action.OpenUrl", "title": "Open in gofax-relay", "url": event.url}
        ]
    return card


def _rich(words: str, **look: Any) -> Json:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": words, **look}]}


def _facts(event: Event) -> list[Json]:
    numbers = {"From": event.sender, "To": event.recipient}
    facts = {title: _escaped(_brief(number)) for title, number in numbers.items() if number}
    facts["Time"] = _readable(event.occurred_at or event.received_at)
    return [{"title": title, "value": value} for title, value in facts.items()]


def _small_print(event: Event, *, repeat: bool) -> str:
    parts = [f"Message {event.message_id}" if event.message_id else f"Event {event.id}"]
    if repeat:
        parts.append("may be a repeat: an earlier attempt was not answered")
    return _brief(" · ".join(parts))


def _readable(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _clean(words: str) -> str:
    """Keep what JSON and a card can show, with meaning for people only."""
    words = words.replace("\r\n", "\n").replace("\r", "\n")
    words = (
        _UNSENDABLE.sub("", words).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )
    return _MEANINGFUL.sub(rf"\1{WORD_JOINER}", words)


def _brief(words: str) -> str:
    line = " ".join(_clean(words).split())
    return line if len(line) <= LONGEST_FACT else f"{line[:LONGEST_FACT]}…"


def _escaped(words: str) -> str:
    """Escape Markdown, which Teams applies to the values of facts."""
    return words if _PLAIN.fullmatch(words) else _PUNCTUATION.sub(r"\\\1", words)


def _shortened(words: str, kept: int) -> str:
    if kept >= len(words):
        return words
    return f"{words[:kept]}… shortened, {len(words):,} characters in all"
