"""A stand-in of a Teams Workflow: takes cards, shows them, and is as strict as the limits.

It wants the envelope of the Workflow templates; where the path contains ``bare`` it wants the bare
card, as some flows do.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, Field, ValidationError

from connectors.sandbox.records import Record, Records

#: Bytes of a message: what Teams documents as 28 KB.
LARGEST = 28 * 1024
PER_SECOND = 4

_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")


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
    """What stands in a card, of any kind; what is not shown here is not read."""

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


class Envelope(BaseModel):
    """What the templates of Workflows loop over."""

    type: Literal["message"]
    attachments: list[Attachment] = Field(min_length=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One piece of a card as a person sees it: words, or a table of facts."""

    text: str = ""
    strong: bool = False
    subtle: bool = False
    #: Title and value of each fact.
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One card in the channel, as the sandbox's page shows it."""

    record: Record
    blocks: tuple[Block, ...]
    #: Title and address of each button.
    links: tuple[tuple[str, str], ...]


class StandIn:
    """One channel of Teams behind its Workflow; safe to use from many threads."""

    def __init__(self, records: Records, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._clock = clock
        self._lock = threading.Lock()
        self._cards: list[Card] = []
        self._calls: deque[float] = deque(maxlen=PER_SECOND)

    def blueprint(self) -> Blueprint:
        """Build the routes: a flow may have any path, so every path takes cards."""
        routes = Blueprint("teams", __name__)
        routes.before_request(self._refuse)
        for rule in ("", "/", "/<path:rest>"):
            routes.add_url_rule(rule, "receive", self._receive, methods=["POST"])
        return routes

    def page(self) -> Sequence[Card]:
        """Return the channel's cards, newest first."""
        with self._lock:
            return tuple(reversed(self._cards))

    def _refuse(self) -> Response | None:
        if "Authorization" in request.headers:
            return _error(401, "DirectApiAuthorizationRequired")
        if self._is_too_fast():
            answer = _error(429, "TooManyRequests")
            answer.headers["Retry-After"] = "1"
            return answer
        if len(request.get_data()) > LARGEST:
            return _error(413, "RequestEntityTooLarge")
        return None

    def _is_too_fast(self) -> bool:
        with self._lock:
            now = self._clock()
            if len(self._calls) == PER_SECOND and now - self._calls[0] < 1:
                return True
            self._calls.append(now)
            return False

    def _receive(self, rest: str = "") -> ResponseReturnValue:
        try:
            cards = _cards(request.get_data(), bare="bare" in rest)
        except ValidationError:
            return _error(400, "TriggerInputSchemaMismatch")
        for card in cards:
            self._show(card)
        return "", 202

    def _show(self, card: AdaptiveCard) -> None:
        blocks = tuple(_block(element) for element in card.body)
        with self._lock:
            record = self._records.add(
                system="teams",
                kind="card",
                text="\n".join(_lines(blocks)),
                conversation=_customer(blocks),
                reference=f"card-{self._records.new_id()}",
            )
            self._cards.append(Card(record=record, blocks=blocks, links=_links(card)))


def _error(status: int, code: str) -> Response:
    answer = jsonify({"error": {"code": code}})
    answer.status_code = status
    return answer


def _cards(posted: bytes, *, bare: bool) -> list[AdaptiveCard]:
    if bare:
        return [AdaptiveCard.model_validate_json(posted)]
    return [each.content for each in Envelope.model_validate_json(posted).attachments]


def _block(element: Element) -> Block:
    """Read what a person would see of *element*; of kinds that are not drawn here, the name."""
    if element.facts:
        return Block(facts=tuple((fact.title, _plain(fact.value)) for fact in element.facts))
    words = element.text + "".join(run.text for run in element.inlines)
    look = element.inlines[0] if element.inlines else element
    return Block(
        text=words or f"({element.type})",
        strong=look.weight == "Bolder",
        subtle=look.isSubtle or not words,
    )


def _plain(markdown: str) -> str:
    """Undo Markdown's escapes, as Teams does in facts; its other marks stay as they are."""
    return _ESCAPED.sub(r"\1", markdown)


def _links(card: AdaptiveCard) -> tuple[tuple[str, str], ...]:
    return tuple(
        (action.title, action.url)
        for action in card.actions
        if action.type == "Action.OpenUrl" and action.url.startswith(("https://", "http://"))
    )


def _lines(blocks: Sequence[Block]) -> list[str]:
    return [
        line
        for block in blocks
        for line in ([f"{title}: {value}" for title, value in block.facts] or [block.text])
    ]


def _customer(blocks: Sequence[Block]) -> str:
    """Find the customer among the parties: the one whom the title names too."""
    facts = [fact for block in blocks for fact in block.facts]
    parties = [value for title, value in facts if title in ("From", "To")]
    named = [value for value in parties if value in blocks[0].text]
    return (named or parties or [""])[0]
