"""A stand-in of flows in Power Automate: the trigger answers 202, and the run may fail unseen.

A flow may have any path. Words in the path choose its behaviour:

``bare``       it wants the bare card
``threads``    it answers in threads, and names them when Teams has the card
``posted``     it answers when Teams has the card
``user``       it posts as a user instead of the Flow bot
``unlimited``  Microsoft's limits do not apply

All flows belong to one person and share that person's connection to Teams.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Response, jsonify, request
from flask.typing import ResponseReturnValue
from pydantic import ValidationError

from connectors.sandbox.teams_cards import AdaptiveCard, Board, Message
from connectors.sandbox.teams_limits import LARGEST, Limit, Meter

#: Calls that a trigger takes.
TRIGGER = (Limit(calls=4500, seconds=300),)
#: Limits of a connection to Teams: for all calls, and for posts as the Flow bot or as a user.
CONNECTION = Limit(calls=100, seconds=60)
POSTS: Mapping[str, tuple[Limit, ...]] = {
    "flow bot": (Limit(calls=25, seconds=300), CONNECTION),
    "user": (Limit(calls=300, seconds=300), CONNECTION),
}
#: Most people that one message may mention.
MENTIONS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedRun:
    """A run that the trigger accepted and Teams refused."""

    status: int
    code: str
    #: Seconds after which Teams would take it.
    wait: int = 0


class Flows:
    """The triggers and runs of all flows; safe to use from many threads."""

    def __init__(self, board: Board, *, clock: Callable[[], float]) -> None:
        self._board = board
        self._meter = Meter(clock)
        self._lock = threading.Lock()
        self._failed: list[FailedRun] = []

    @property
    def failed(self) -> list[FailedRun]:
        """The failed runs, which only the run history shows."""
        with self._lock:
            return [*self._failed]

    def receive(self, path: str) -> ResponseReturnValue:
        """Answer a call of the trigger at *path*."""
        if "Authorization" in request.headers:
            return _error(401, "DirectApiAuthorizationRequired")
        limited = self._board.limited and "unlimited" not in path
        if limited and (wait := self._meter.take("trigger", TRIGGER)):
            return _error(429, "TooManyRequests", wait=wait)
        try:
            cards, thread = _posted(path)
        except ValidationError:
            return _error(400, "TriggerInputSchemaMismatch")
        answers = "threads" in path or "posted" in path
        if failed := self._failure(request.get_json(force=True), path, limited=limited):
            with self._lock:
                self._failed.append(failed)
            return _error(failed.status, failed.code, wait=failed.wait) if answers else ("", 202)
        known = thread if thread and self._board.has_thread(thread) else None
        for card in cards:
            posted_in, _ = self._board.show(card, thread=known)
        return ({"thread": posted_in}, 200) if answers else ("", 202)

    def _failure(self, posted: Any, path: str, *, limited: bool) -> FailedRun | None:
        """Return why Teams refuses the cards *posted*; None if it takes them."""
        attachments = posted.get("attachments", [{"content": posted}])
        for card in (attachment["content"] for attachment in attachments):
            if len(card.get("msteams", {}).get("entities", [])) > MENTIONS:
                return FailedRun(status=400, code="BadRequest")
            if _size(card) > LARGEST:
                return FailedRun(status=413, code="RequestEntityTooLarge")
        poster = "user" if "user" in path else "flow bot"
        if limited and (wait := self._meter.take(poster, POSTS[poster])):
            return FailedRun(status=429, code="TooManyRequests", wait=wait)
        return None


def _posted(path: str) -> tuple[list[AdaptiveCard], str | None]:
    """Return the cards and the thread of a request. Raises ValidationError."""
    posted = request.get_data()
    if "bare" in path:
        return [AdaptiveCard.model_validate_json(posted)], None
    message = Message.model_validate_json(posted)
    thread = message.conversation.thread if "threads" in path else None
    return [attachment.content for attachment in message.attachments], thread


def _size(card: object) -> int:
    """Return the bytes of a card as a flow hands it on: a text, JSON inside JSON."""
    return len(json.dumps(json.dumps(card, ensure_ascii=False), ensure_ascii=False).encode())


def _error(status: int, code: str, *, wait: int = 0) -> Response:
    answer = jsonify({"error": {"code": code}})
    answer.status_code = status
    if wait:
        answer.headers["Retry-After"] = str(wait)
    return answer
