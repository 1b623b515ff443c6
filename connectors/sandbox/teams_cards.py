"""Adaptive Cards as the stand-in of Teams reads and shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, Field

_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_MENTION = re.compile(r"<at>([^<]*)</at>")


class Run(BaseModel):
    """A piece of a line."""

    text: str
    weight: str = "Default"
    isSubtle: bool = False


class Fact(BaseModel):
    """A line of a FactSet."""

    title: str
    value: str


class Element(BaseModel):
    """An element of any kind; properties that are not shown here are not read."""

    type: str
    text: str = ""
    weight: str = "Default"
    isSubtle: bool = False
    inlines: list[Run] = []
    facts: list[Fact] = []


class Action(BaseModel):
    """A button."""

    type: str
    title: str = ""
    url: str = ""


class AdaptiveCard(BaseModel):
    """A card as it is posted."""

    type: Literal["AdaptiveCard"]
    version: str
    body: list[Element] = Field(min_length=1)
    actions: list[Action] = []


class Attachment(BaseModel):
    """A card with its kind."""

    contentType: Literal["application/vnd.microsoft.card.adaptive"]
    content: AdaptiveCard


class Conversation(BaseModel):
    """The conversation, as the relay tells it to a flow that keeps threads."""

    thread: str | None = None


class Message(BaseModel):
    """A message: the envelope of Workflows, and the activity of a bot."""

    type: Literal["message"]
    attachments: list[Attachment] = Field(min_length=1)
    conversation: Conversation = Conversation()


class Board(Protocol):
    """A place that shows cards."""

    limited: bool

    def has_thread(self, thread: str) -> bool: ...

    def show(self, card: AdaptiveCard, *, thread: str | None = None) -> tuple[str, str]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One piece of a card as a person sees it: words, or a table of facts."""

    text: str = ""
    strong: bool = False
    subtle: bool = False
    #: Title and value of each fact.
    facts: tuple[tuple[str, str], ...] = ()


def blocks(card: AdaptiveCard) -> tuple[Block, ...]:
    """Return a card as a person sees it; elements that are not drawn appear by name."""
    return tuple(_block(element) for element in card.body)


def links(card: AdaptiveCard) -> tuple[tuple[str, str], ...]:
    """Return title and address of each button."""
    return tuple(
        (action.title, action.url)
        for action in card.actions
        if action.type == "Action.OpenUrl" and action.url.startswith(("https://", "http://"))
    )


def written(shown: Sequence[Block]) -> str:
    """Return the words of a card, a line for each fact."""
    return "\n".join(
        line
        for block in shown
        for line in ([f"{title}: {value}" for title, value in block.facts] or [block.text])
    )


def customer(shown: Sequence[Block]) -> str:
    """Return the customer: the party that the title names too."""
    facts = [fact for block in shown for fact in block.facts]
    parties = [value for title, value in facts if title in ("From", "To")]
    named = [value for value in parties if value in shown[0].text]
    return (named or parties or [""])[0]


def _block(element: Element) -> Block:
    if element.facts:
        return Block(facts=tuple((fact.title, _plain(fact.value)) for fact in element.facts))
    words = _MENTION.sub(r"@\1", element.text) + "".join(run.text for run in element.inlines)
    look = element.inlines[0] if element.inlines else element
    return Block(
        text=words or f"({element.type})",
        strong=look.weight == "Bolder",
        subtle=look.isSubtle or not words,
    )


def _plain(markdown: str) -> str:
    """Undo Markdown's escapes, as Teams does in facts; its other marks stay as they are."""
    return _ESCAPED.sub(r"\1", markdown)
