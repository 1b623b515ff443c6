"""Zendesk: one ticket for each conversation, in which every SMS is a comment of the customer."""

from __future__ import annotations

import logging
import time
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from zenpy.lib.api_objects import Ticket

from connectors.base import (
    Connector,
    Event,
    Options,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.http import Http
from connectors.zendesk_desk import Desk, Message, compose
from connectors.zendesk_session import (
    PRINTABLE,
    Closed,
    Credentials,
    Gone,
    OAuthClient,
    Standing,
)

#: The ways to sign in, each by the options that it needs.
WAYS_IN = (("client_id", "client_secret"), ("access_token",), ("email", "api_token"))


class ZendeskOptions(Options):
    """What the YAML of a Zendesk destination may say."""

    subdomain: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$",
        description="The account's name: acme, if agents sign in at acme.zendesk.com.",
    )
    client_id: str | None = Field(
        default=None,
        description="Identifier of a confidential OAuth client; goes with client_secret.",
    )
    client_secret: SecretStr | None = Field(
        default=None, description="Secret of the OAuth client."
    )
    access_token: SecretStr | None = Field(
        default=None, description="An OAuth access token that you manage, instead of a client."
    )
    email: str | None = Field(
        default=None, description="E-mail address of the agent whom api_token stands for."
    )
    api_token: SecretStr | None = Field(
        default=None, description="API token. Zendesk ends API tokens on 2027-04-30."
    )
    base_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^@?#]+$",
        description="Where Zendesk answers; by default https://SUBDOMAIN.zendesk.com.",
    )
    tags: list[Annotated[str, Field(pattern=r"^[^\s,]+$")]] = Field(
        default=["sms", "gofax"],
        description="Tags of every ticket we make or add to; for triggers to leave out.",
    )
    public: bool = Field(
        default=True,
        description="true: comments that the customer may see; false: internal notes.",
    )
    group_id: int | None = Field(default=None, description="Group that gets new tickets.")
    priority: Literal["low", "normal", "high", "urgent"] | None = Field(
        default=None, description="Priority of new tickets."
    )

    @property
    def address(self) -> str:
        """Where everything is, without a slash at its end."""
        return (self.base_url or f"https://{self.subdomain}.zendesk.com").rstrip("/")

    @field_validator("client_secret", "access_token", "api_token")
    @classmethod
    def _is_usable(cls, secret: SecretStr | None) -> SecretStr | None:
        # A line break at the end is what reading a secret from a file leaves.
        if secret is None:
            return None
        trimmed = secret.get_secret_value().strip()
        if not PRINTABLE.fullmatch(trimmed):
            raise ValueError("is empty or holds characters that are in no secret of Zendesk")
        return SecretStr(trimmed)

    @model_validator(mode="after")
    def _has_one_way_in(self) -> Self:
        begun = [way for way in WAYS_IN if any(getattr(self, name) for name in way)]
        if len(begun) != 1 or not all(getattr(self, name) for name in begun[0]):
            raise ValueError(
                "give exactly one way to sign in: client_id and client_secret, "
                "or access_token, or email and api_token"
            )
        return self


class Zendesk(Connector[ZendeskOptions]):
    """Keeps one open ticket for each conversation and writes each SMS into it."""

    Options = ZendeskOptions
    # Two requests for most deliveries, five for a new customer; the smallest plan gives 200 a
    # minute (100 of them updates) to all integrations together.
    default_rate: ClassVar[str | None] = "60/60s"

    def __init__(self, options: ZendeskOptions, *, http: Http) -> None:
        super().__init__(options, http=http)
        # zenpy logs whole requests, with what people wrote, at DEBUG.
        logging.getLogger("zenpy").setLevel(logging.WARNING)
        self._credentials = _credentials(options, http)
        self._idle: deque[Desk] = deque()

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        message = compose(event, key=key)
        with self._desk(deadline) as desk:
            ticket = desk.ticket(thread, message) if thread else None
            if ticket is None:
                return self._find_or_create(desk, message, repeat=repeat)
            return self._continue(desk, message, ticket, repeat=repeat)

    def check(self) -> str:
        try:
            with self._desk(self.http.default_deadline) as desk:
                user = desk.me()
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
        self._credentials.close()

    @contextmanager
    def _desk(self, deadline: float) -> Iterator[Desk]:
        """Lend a client to one thread at a time: zenpy's objects are not safe to share."""
        try:
            desk = self._idle.pop()
        except IndexError:
            desk = Desk(self.options, self.http, self._credentials)
        desk.session.ends_at = time.monotonic() + deadline
        try:
            with self.http.within(deadline):
                yield desk
        finally:
            self._idle.append(desk)

    def _continue(self, desk: Desk, message: Message, ticket: Ticket, *, repeat: bool) -> Receipt:
        done = desk.written(ticket, message, repeat=repeat)
        if done is not None:
            return done
        if ticket.status == "closed":
            return self._find_or_create(desk, message, repeat=repeat, before=ticket)
        try:
            return desk.comment(ticket, message)
        except (Closed, Gone):
            return self._find_or_create(desk, message, repeat=repeat, before=ticket)

    def _find_or_create(
        self, desk: Desk, message: Message, *, repeat: bool, before: Ticket | None = None
    ) -> Receipt:
        tickets = desk.tickets(message)
        # A lost answer may have left the message in any of them; the newest come first.
        for ticket in tickets[:5]:
            done = desk.written(ticket, message, repeat=repeat)
            if done is not None:
                return done
        current = next((each for each in tickets if each.status != "closed"), None)
        if current is None:
            return desk.create(message, after=[*tickets, *([before] if before else [])])
        try:
            return desk.comment(current, message)
        except (Closed, Gone) as error:
            raise Transient(f"ticket {current.id} was closed just now", status=422) from error


def _credentials(options: ZendeskOptions, http: Http) -> Credentials:
    if options.client_id and options.client_secret:
        return OAuthClient(
            f"{options.address}/oauth/tokens",
            client_id=options.client_id,
            secret=options.client_secret,
            http=http,
        )
    if options.access_token:
        return Standing(f"Bearer {options.access_token.get_secret_value()}")
    assert options.email and options.api_token
    pair = f"{options.email}/token:{options.api_token.get_secret_value()}"
    return Standing(f"Basic {b64encode(pair.encode()).decode()}")
