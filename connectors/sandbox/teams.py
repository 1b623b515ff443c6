"""A stand-in of a channel in Teams, with a Workflow and the service for bots in front of it.

A Workflow may have any path, so every path takes cards. Where it contains ``bare``, the flow wants
the bare card, as some do; where it contains ``threads``, the flow answers in threads and names
them. The service for bots (``/v3/…``) and its tokens are in ``teams_service``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue
from pydantic import ValidationError

from connectors.sandbox.records import Record, Records
from connectors.sandbox.teams_cards import (
    AdaptiveCard,
    Block,
    Message,
    blocks,
    customer,
    links,
    written,
)
from connectors.sandbox.teams_limits import LARGEST, Limit, Meter
from connectors.sandbox.teams_service import Service

#: Requests that a Workflow takes.
WORKFLOW_LIMITS = (Limit(calls=4, seconds=1),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One card in the channel, as the sandbox's page shows it."""

    record: Record
    blocks: tuple[Block, ...]
    #: Title and address of each button.
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Thread:
    """A card that somebody posted, and the cards that answer it."""

    id: str
    cards: list[Card] = field(default_factory=list)


class StandIn:
    """One channel of Teams; safe to use from many threads."""

    def __init__(self, records: Records, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._lock = threading.RLock()
        self._threads: dict[str, Thread] = {}
        self._last_id = 0
        self._meter = Meter(clock)
        #: Whether requests above Microsoft's limits are answered 429.
        self.limited = True
        #: The service for bots, whose tokens and rosters a test may change.
        self.service = Service(self, clock=clock)

    def blueprint(self) -> Blueprint:
        """Build the routes: those of the service, and all others for Workflows."""
        routes = Blueprint("teams", __name__)
        self.service.add_to(routes)
        for rule in ("", "/", "/<path:rest>"):
            routes.add_url_rule(rule, "receive", self._receive, methods=["POST"])
        return routes

    def page(self) -> Sequence[Thread]:
        """Return the channel's threads, that with the newest card first."""
        with self._lock:
            found = [Thread(id=each.id, cards=[*each.cards]) for each in self._threads.values()]
        return sorted(found, key=lambda each: each.cards[-1].record.number, reverse=True)

    def delete_thread(self, thread: str) -> None:
        """Let a thread be gone, as somebody who deletes it does."""
        with self._lock:
            del self._threads[thread]

    def has_thread(self, thread: str) -> bool:
        """Say whether cards can be posted in *thread*."""
        with self._lock:
            return thread in self._threads

    def show(self, card: AdaptiveCard, *, thread: str | None = None) -> tuple[str, str]:
        """Post *card* in *thread* or as a new one; return the ids of thread and card."""
        shown = blocks(card)
        with self._lock:
            number = self._new_id()
            found = self._threads.setdefault(thread or number, Thread(id=thread or number))
            first = found.cards[0].record.conversation if found.cards else ""
            record = self._records.add(
                system="teams",
                kind="reply" if found.cards else "card",
                text=written(shown),
                conversation=first or customer(shown),
                reference=number,
            )
            found.cards.append(Card(record=record, blocks=shown, links=links(card)))
            return found.id, number

    def _new_id(self) -> str:
        """Return the time of day in milliseconds, as Teams numbers messages; never one twice."""
        self._last_id = max(self._last_id + 1, time.time_ns() // 1_000_000)
        return str(self._last_id)

    def _receive(self, rest: str = "") -> ResponseReturnValue:
        refusal = self._refusal()
        if refusal is not None:
            return refusal
        try:
            if "bare" in rest:
                self.show(AdaptiveCard.model_validate_json(request.get_data()))
                return "", 202
            message = Message.model_validate_json(request.get_data())
        except ValidationError:
            return _error(400, "TriggerInputSchemaMismatch")
        thread = self._known(message.conversation.thread) if "threads" in rest else None
        for attachment in message.attachments:
            posted_in, _ = self.show(attachment.content, thread=thread)
        return ({"thread": posted_in}, 200) if "threads" in rest else ("", 202)

    def _known(self, thread: str | None) -> str | None:
        return thread if thread is not None and self.has_thread(thread) else None

    def _refusal(self) -> Response | None:
        if "Authorization" in request.headers:
            return _error(401, "DirectApiAuthorizationRequired")
        if self.limited and (wait := self._meter.take("workflow", WORKFLOW_LIMITS)):
            answer = _error(429, "TooManyRequests")
            answer.headers["Retry-After"] = str(wait)
            return answer
        if len(request.get_data()) > LARGEST:
            return _error(413, "RequestEntityTooLarge")
        return None


def _error(status: int, code: str) -> Response:
    answer = jsonify({"error": {"code": code}})
    answer.status_code = status
    return answer
