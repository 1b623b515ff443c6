"""The Adaptive Card of an event: safe against strangers' texts, and small enough for Teams.

Every client of Teams shows version 1.4. Strangers' texts stand in TextRuns, which have no
Markdown, or are escaped: they can make no link, mention or heading.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, GetCoreSchemaHandler, field_validator
from pydantic_core import CoreSchema

from connectors import plain
from connectors.base import Event, Options, Refused
from connectors.templates import Template, render, variables

Json = dict[str, Any]
#: ``envelope`` is what the templates of Workflows loop over; some flows want the bare card.
Shape = Literal["envelope", "card"]

#: Most bytes of a message by :func:`size`. Microsoft documents 28 KB, of a text that it does not
#: show; a larger card is lost inside the flow.
LIMIT = 20_000
#: People whom Teams lets one message mention.
MOST_MENTIONS = 20
#: Longest title, value in a fact, or id; no phone number is longer.
LONGEST_VALUE = 120
#: Joins without a visible gap: markup behind it loses its meaning and keeps its look.
WORD_JOINER = "\u2060"
#: Text between these has a direction of its own and affects no other.
ISOLATE, END_OF_ISOLATE = "\u2068", "\u2069"

#: Text that is shown as it is, which nearly all values are: ASCII that opens no markup.
_ORDINARY = re.compile(r"[\t\n -;=-z|}~]*")
_ACCENTS = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
_UNSENDABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MEANINGFUL = re.compile(r"(<(?=/?\s*at\b)|\{(?=\{\s*(?:date|time)\b))", re.IGNORECASE)
#: More accents on one letter than any language writes paint over the lines around.
_STACKED = re.compile(f"([{_ACCENTS}]{{4}})[{_ACCENTS}]+")
_DIRECTED = re.compile("[\u0590-\u08ff\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]")
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_NAME = re.compile(r"[^<>\x00-\x1f]{1,100}")
_PLAIN = re.compile(r"\+?[^\W_]+(?:(?:, |[ :-])[^\W_]+)*")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


class CardTemplate(Template):
    """A template of a card; it also knows whether the card answers in a thread."""

    extra = ("in_thread",)


class Facts(dict[str, CardTemplate]):
    """Lines of a card's table by name; its own type, so that a JSON Schema can show a default."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return handler(dict[str, CardTemplate])

    def __str__(self) -> str:
        return json.dumps({name: template.source for name, template in self.items()})


class Person(Options):
    """A person to mention."""

    id: str = Field(min_length=1, description="Sign-in name (UPN) or Entra object id.")
    name: str = Field(description="The name that the card shows.")

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("must be one line of 1 to 100 characters without < and >")
        return name


class CardOptions(Options):
    """Options for the cards of a destination."""

    title: CardTemplate = Field(
        default=CardTemplate("{{ title }}"), description="Template of the first line."
    )
    text: CardTemplate = Field(
        default=CardTemplate("{{ text }}"), description="Template of what stands below it."
    )
    facts: Facts = Field(
        default=Facts(
            {
                "From": CardTemplate("{{ sender if not in_thread }}"),
                "To": CardTemplate("{{ recipient if not in_thread }}"),
                "Time": CardTemplate("{{ time | date }}"),
                "Sentiment": CardTemplate("{{ sentiment }}"),
            }
        ),
        description="Lines of the table: a name and a template each; what comes out empty is "
        "left out. `in_thread` is true where the card answers in a thread.",
    )
    mentions: list[Person] = Field(
        default=[],
        max_length=MOST_MENTIONS,
        description="People whom each card mentions, at most 20: `id` and `name` of each.",
    )

    @field_validator("mentions")
    @classmethod
    def _distinct(cls, people: list[Person]) -> list[Person]:
        if len({person.name for person in people}) < len(people):
            raise ValueError("two people have the same name; Teams tells them apart by it")
        return people


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """The content of a card, ready to assemble."""

    title: str
    words: str
    facts: Mapping[str, str]
    small_print: str
    people: Sequence[Person]
    url: str | None


def message(
    event: Event,
    *,
    options: CardOptions,
    shape: Shape = "envelope",
    repeat: bool = False,
    in_thread: bool = False,
    beside: Mapping[str, Any] | None = None,
) -> Json:
    """Build the body of a request to a Workflow for *event*; *beside* stands next to the card.

    The text is shortened if the whole would be too large. Raises :class:`Refused`.
    """
    parts = _parts(event, options, repeat=repeat, in_thread=in_thread)

    def wrapped(card: Json) -> Json:
        return card if shape == "card" else _envelope(card) | dict(beside or {})

    return _fitted(parts, wrapped, event=event)


def activity(event: Event, *, options: CardOptions, repeat: bool, in_thread: bool) -> Json:
    """Build the message that a bot posts for *event*. Raises :class:`Refused`."""
    parts = _parts(event, options, repeat=repeat, in_thread=in_thread)
    # Notifications show the summary instead of "sent a card".
    return _fitted(parts, lambda card: _envelope(card) | {"summary": parts.title}, event=event)


def encode(payload: Json) -> bytes:
    """Return the JSON that goes over the wire."""
    return plain.encode(payload)


def size(payload: Json) -> int:
    """Measure *payload* as a text within JSON, in ASCII: the longest way to write it.

    Flows hand a card on as a text, and its quotes and backslashes grow by that.
    """
    return len(json.dumps(encode(payload).decode()))


def _parts(event: Event, options: CardOptions, *, repeat: bool, in_thread: bool) -> _Parts:
    values = variables(event)

    def filled(field: str, template: CardTemplate, **how: Any) -> str:
        return render(template, event, values, field=field, in_thread=in_thread, **how)

    facts = {
        name: filled(f"facts.{name}", template, escape=_harmless).strip()
        for name, template in options.facts.items()
    }
    return _Parts(
        title=_brief(filled("title", options.title)),
        words=_clean(filled("text", options.text)),
        facts={name: value for name, value in facts.items() if value},
        small_print=_small_print(event, repeat=repeat),
        people=options.mentions,
        url=event.url,
    )


def _fitted(parts: _Parts, wrapped: Callable[[Json], Json], *, event: Event) -> Json:
    """Keep as much of the text as the limit allows."""

    def build(kept: int) -> Json:
        return wrapped(_card(parts, words=_shortened(parts.words, kept)))

    whole = len(parts.words)
    card = build(whole)
    if _fits(card):
        return card
    kept = bisect_right(range(whole), LIMIT, key=lambda kept: size(build(kept))) - 1
    if kept < 0:
        said = "too much for the 28 KB of Teams, even without the text"
        raise Refused(f"facts: event {event.id}: {said}")
    return build(kept)


def _fits(card: Json) -> bool:
    # In :func:`size` a byte counts three times at the most; nearly all cards are far from that.
    return len(encode(card)) < LIMIT // 3 or size(card) <= LIMIT


def _envelope(card: Json) -> Json:
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return {"type": "message", "attachments": [attachment]}


def _card(parts: _Parts, *, words: str) -> Json:
    body = [_rich(parts.title, size="Medium", weight="Bolder"), _rich(_isolated(words))]
    if parts.facts:
        facts = [{"title": name, "value": value} for name, value in parts.facts.items()]
        body.append({"type": "FactSet", "facts": facts})
    if parts.people:
        called = " ".join(f"<at>{person.name}</at>" for person in parts.people)
        body.append({"type": "TextBlock", "text": called, "wrap": True})
    body.append(_rich(parts.small_print, size="Small", isSubtle=True))
    return {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
        **_actions(parts.url),
        **_entities(parts.people),
    }


def _rich(words: str, **look: Any) -> Json:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": words, **look}]}


def _actions(url: str | None) -> Json:
    if not url:
        return {}
    return {"actions": [{"type": "Action.OpenUrl", "title": "Open in gofax-relay", "url": url}]}


def _entities(people: Sequence[Person]) -> Json:
    if not people:
        return {}
    entities = [
        {
            "type": "mention",
            "text": f"<at>{person.name}</at>",
            "mentioned": {"id": person.id, "name": person.name},
        }
        for person in people
    ]
    return {"msteams": {"entities": entities}}


def _small_print(event: Event, *, repeat: bool) -> str:
    named = f"Message {event.message_id}" if event.message_id else f"Event {event.id}"
    doubt = " · may be a repeat: an earlier attempt was not answered" if repeat else ""
    return _brief(named) + doubt


def _clean(words: str) -> str:
    """Drop characters that JSON or a card cannot show, and make markup inert."""
    if _ORDINARY.fullmatch(words):
        return words
    words = words.replace("\r\n", "\n").replace("\r", "\n")
    words = _UNSENDABLE.sub("", words).encode("utf-8", "replace").decode()
    return _MEANINGFUL.sub(rf"\1{WORD_JOINER}", _STACKED.sub(r"\1", words))


def _isolated(words: str) -> str:
    """Isolate lines that run from right to left or override directions."""
    if not _DIRECTED.search(words):
        return words
    lines = (
        f"{ISOLATE}{line}{END_OF_ISOLATE}" if _DIRECTED.search(line) else line
        for line in words.split("\n")
    )
    return "\n".join(lines)


def _brief(words: str) -> str:
    line = " ".join(_DIRECTIONS.sub("", _clean(words)).split())
    return line if len(line) <= LONGEST_VALUE else f"{line[:LONGEST_VALUE]}…"


def _harmless(words: str) -> str:
    """Shorten and escape a value for a fact, because Teams reads Markdown there."""
    line = _brief(words)
    return line if _PLAIN.fullmatch(line) else _PUNCTUATION.sub(r"\\\1", line)


def _shortened(words: str, kept: int) -> str:
    if kept >= len(words):
        return words
    return f"{words[:kept]}… shortened, {len(words):,} characters in all"
