"""A stand-in of the services for bots: Entra's token endpoint and the Bot Framework's connector.

Any client may sign in, except with the secret ``revoked``. The bot is in every channel, except in
one whose id contains ``removed`` (403) or ``deleted`` (404).
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Any, Literal

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ValidationError

from connectors.sandbox.teams_cards import AdaptiveCard, Board, Message
from connectors.sandbox.teams_limits import LARGEST, Limit, Meter

SCOPE = "https://api.botframework.com/.default"
TOKEN_LIFE = 3599
#: Limits of one bot's posts in one channel.
POSTS = (
    Limit(calls=7, seconds=1),
    Limit(calls=8, seconds=2),
    Limit(calls=60, seconds=30),
    Limit(calls=1800, seconds=3600),
)
#: Limits of one bot's questions about the members of one channel.
LOOKS = (Limit(calls=14, seconds=1), Limit(calls=120, seconds=30))


class Named(BaseModel):
    """A thing with an id."""

    id: str


class ChannelData(BaseModel):
    """A channel of Teams."""

    channel: Named


class NewConversation(BaseModel):
    """The request that starts a thread; Teams takes no other kind in a channel."""

    isGroup: Literal[True]
    tenantId: str
    channelData: ChannelData
    activity: dict[str, Any]


class Problem(Exception):
    """An error that the service answers."""

    def __init__(self, status: int, code: str, *, wait: int = 0) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.wait = wait

    def answer(self) -> Response:
        """Return it in the service's form."""
        made = jsonify({"error": {"code": self.code, "message": f"the stand-in says {self.code}"}})
        made.status_code = self.status
        if self.wait:
            made.headers["Retry-After"] = str(self.wait)
        return made


class Service:
    """Signs bots in and takes their posts; safe to use from many threads."""

    def __init__(self, board: Board, *, clock: Callable[[], float]) -> None:
        self._board = board
        self._clock = clock
        self._meter = Meter(clock)
        self._lock = threading.Lock()
        self._tokens: dict[str, float] = {}
        #: How many tokens were given out.
        self.granted = 0
        #: Whether the bot is in the team.
        self.is_member = True

    def add_to(self, routes: Blueprint) -> None:
        """Add the service's routes, relative to the addresses of service and sign-in."""
        routes.register_error_handler(Problem, Problem.answer)
        conversations = "/v3/conversations"
        routes.add_url_rule("/<tenant>/oauth2/v2.0/token", "grant", self._grant, methods=["POST"])
        routes.add_url_rule(conversations, "start", self._start, methods=["POST"])
        routes.add_url_rule(
            f"{conversations}/<conversation>/activities", "reply", self._reply, methods=["POST"]
        )
        routes.add_url_rule(f"{conversations}/<conversation>/pagedmembers", "look", self._look)

    def expire_tokens(self) -> None:
        """End the life of every token that was given out."""
        with self._lock:
            self._tokens.clear()

    def _grant(self, tenant: str) -> ResponseReturnValue:
        asked = request.form
        if asked.get("grant_type") != "client_credentials" or asked.get("scope") != SCOPE:
            return _refused_client(400, "invalid_request", "AADSTS900144: a parameter is missing")
        if asked.get("client_secret") in (None, "", "revoked"):
            return _refused_client(401, "invalid_client", "AADSTS7000215: Invalid client secret")
        token = f"sandbox-{secrets.token_urlsafe(16)}"
        with self._lock:
            self._tokens[token] = self._clock() + TOKEN_LIFE
            self.granted += 1
        return {
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFE,
            "ext_expires_in": TOKEN_LIFE,
            "access_token": token,
        }

    def _start(self) -> ResponseReturnValue:
        self._admit()
        try:
            asked = NewConversation.model_validate_json(request.get_data())
        except ValidationError:
            raise Problem(400, "BadSyntax") from None
        channel = asked.channelData.channel.id
        self._enter(channel, POSTS)
        root, _ = self._board.show(_card(asked.activity))
        return {"id": f"{channel};messageid={root}", "activityId": root}, 201

    def _reply(self, conversation: str) -> ResponseReturnValue:
        self._admit()
        channel, _, root = conversation.partition(";messageid=")
        self._enter(channel, POSTS)
        if not self._board.has_thread(root):
            raise Problem(404, "ActivityNotFoundInConversation")
        _, number = self._board.show(_card(request.get_json(silent=True)), thread=root)
        return {"id": number}, 201

    def _look(self, conversation: str) -> ResponseReturnValue:
        self._admit()
        self._enter(conversation, LOOKS)
        return {"members": [{"id": "29:somebody", "name": "Sandbox agent"}]}

    def _admit(self) -> None:
        """Refuse requests without a token, and too large ones."""
        given = request.authorization
        with self._lock:
            ends_at = self._tokens.get((given.token if given else None) or "", 0.0)
        if given is None or given.type != "bearer" or self._clock() >= ends_at:
            raise Problem(401, "Unauthorized")
        if len(request.get_data()) > LARGEST:
            raise Problem(413, "MessageSizeTooBig")

    def _enter(self, channel: str, limits: tuple[Limit, ...]) -> None:
        """Refuse bots that are not in *channel*, or post too often."""
        subject = f"{'look' if limits is LOOKS else 'post'} {channel}"
        if self._board.limited and (wait := self._meter.take(subject, limits)):
            raise Problem(429, "Throttled", wait=wait)
        if "deleted" in channel or not channel.startswith("19:"):
            raise Problem(404, "ConversationNotFound")
        if "removed" in channel or not self.is_member:
            raise Problem(403, "BotNotInConversationRoster")


def _card(activity: object) -> AdaptiveCard:
    try:
        return Message.model_validate(activity).attachments[0].content
    except ValidationError:
        raise Problem(400, "BadArgument") from None


def _refused_client(status: int, error: str, described: str) -> ResponseReturnValue:
    return {"error": error, "error_description": f"{described}. Trace ID: 0"}, status
