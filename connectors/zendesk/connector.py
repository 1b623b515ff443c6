"""Zendesk: one ticket for each conversation, in which every SMS is a comment of the customer."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar
from urllib.parse import urlsplit

from connectors.base import (
    Connector,
    Disclosure,
    Event,
    Preview,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.http import Http
from connectors.oauth import AccessToken
from connectors.templates import Template, given_away
from connectors.zendesk.client import Client
from connectors.zendesk.conversation import Conversation
from connectors.zendesk.limits import UpdateLimits
from connectors.zendesk.message import Message, compose
from connectors.zendesk.options import ZendeskOptions
from connectors.zendesk.previews import previews
from connectors.zendesk.session import described

__all__ = ["Zendesk", "ZendeskOptions"]

#: The scopes that we request for an access token, and its lifetime in seconds.
SCOPE = "tickets:read tickets:write users:read users:write"
TOKEN_LIFE = 7200


class Zendesk(Connector[ZendeskOptions]):
    """Keeps one open ticket for each conversation and writes each SMS into it."""

    Options = ZendeskOptions
    # Two requests for most deliveries, five for a new customer; the smallest plan gives 200 a
    # minute (100 of them updates) to all integrations together.
    default_rate: ClassVar[str | None] = "60/60s"
    looks_first = True

    def __init__(self, options: ZendeskOptions, *, http: Http) -> None:
        super().__init__(options, http=http)
        # zenpy logs whole requests, with what people wrote, at DEBUG.
        logging.getLogger("zenpy").setLevel(logging.WARNING)
        self._sign_in = _sign_in(options, http)
        self._limits = UpdateLimits()
        self._idle: deque[Client] = deque()

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        message = compose(event, key=key, options=self.options)
        with self._client(deadline) as client:
            # First, because it may be repeated: if the rest fails, there is nothing to undo.
            person = self._tag(client, message)
            written = None
            if not (message.opens_nothing and self.options.on_stop == "mark"):
                conversation = Conversation(client, message, options=self.options, repeat=repeat)
                written = conversation.write(thread)
            return written or self._tagged(person, thread=thread)

    @classmethod
    def discloses(cls, options: ZendeskOptions) -> Disclosure:
        filled = [each for each in options.custom_fields.values() if isinstance(each, Template)]
        # By the number end users are found, and the customer's wish is kept with them.
        also = ["customer's number", *(["keyword"] if options.opt_out_tag else [])]
        host = urlsplit(options.address).hostname or ""
        what = given_away(options.subject, options.comment, *filled, also=also)
        return Disclosure(to=(host,), what=what)

    def preview(self, event: Event, *, key: str) -> list[Preview]:
        return list(previews(compose(event, key=key, options=self.options), self.options))

    def check(self) -> str:
        try:
            with self._client(self.http.default_deadline) as client:
                user = client.me()
        except Throttled as error:
            raise Transient(str(error), status=error.status) from error
        except Refused as error:
            raise Unauthorized(str(error), status=error.status) from error
        if user.id is None or user.role == "end-user":
            raise Unauthorized(f"signed in as {user.name}, who is no agent: check the credentials")
        return f"signed in at {self.options.address} as {user.name} ({user.role})"

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
        if isinstance(self._sign_in, AccessToken):
            self._sign_in.close()

    @contextmanager
    def _client(self, deadline: float) -> Iterator[Client]:
        """Lend a client to one thread at a time: zenpy's objects are not safe to share."""
        try:
            client = self._idle.pop()
        except IndexError:
            client = Client(self.options, self.http, sign_in=self._sign_in, limits=self._limits)
        try:
            with self.http.within(deadline):
                yield client
        finally:
            self._idle.append(client)

    def _tag(self, client: Client, message: Message) -> int | None:
        """Tag or untag the customer's profile if the message is STOP or START; return its id."""
        tag = self.options.opt_out_tag
        if tag is None or message.opts_out is None:
            return None
        person = client.people.find(message)
        if person is None and message.opts_out and self.options.unknown_customer == "create":
            person = client.people.make(message)
        if person is not None:
            client.people.tag(person, tag=tag, present=message.opts_out)
        return person

    def _tagged(self, person: int | None, *, thread: str | None) -> Receipt:
        if person is None:
            said = "skipped: STOP, with no open ticket and nobody to tag"
            return Receipt(reference=said, thread=thread)
        return Receipt(
            reference=f"user {person} tagged {self.options.opt_out_tag}",
            url=f"{self.options.address}/agent/users/{person}",
            thread=thread,
        )


def _sign_in(options: ZendeskOptions, http: Http) -> AccessToken | str:
    """Return a token to renew, or an Authorization header that stays as it is."""
    if options.client_id and options.client_secret:
        grant = {
            "grant_type": "client_credentials",
            "client_id": options.client_id,
            "client_secret": options.client_secret,
            "scope": SCOPE,
            "expires_in": TOKEN_LIFE,
        }
        url = f"{options.address}/oauth/tokens"
        return AccessToken(url, grant, http=http, as_json=True, detail=described)
    if options.access_token:
        return f"Bearer {options.access_token.get_secret_value()}"
    assert options.email and options.api_token
    pair = f"{options.email}/token:{options.api_token.get_secret_value()}"
    return f"Basic {b64encode(pair.encode()).decode()}"
