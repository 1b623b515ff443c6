"""Zendesk: one ticket for each conversation, in which every SMS is a comment of the customer."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from zenpy.lib.api_objects import Ticket

from connectors.base import Connector, Event, Receipt, Refused, Throttled, Transient, Unauthorized
from connectors.http import Http
from connectors.oauth import AccessToken
from connectors.zendesk.client import Client
from connectors.zendesk.message import Message, compose
from connectors.zendesk.options import ZendeskOptions
from connectors.zendesk.session import (
    Changed,
    Closed,
    Gone,
    KeyTaken,
    described,
)

__all__ = ["Zendesk", "ZendeskOptions"]

#: What an access token is asked to be good for, and for how long (seconds).
SCOPE = "tickets:read tickets:write users:read users:write"
TOKEN_LIFE = 7200
#: How often a ticket is read anew because somebody else wrote to it first.
READINGS = 3
#: How many of a conversation's tickets are searched for what an earlier attempt wrote.
SEARCHED = 5


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
        self._sign_in = _sign_in(options, http)
        self._idle: deque[Client] = deque()

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        message = compose(event, key=key, options=self.options)
        with self._client(deadline) as client:
            # First, because it may be done twice: if the rest fails, nothing is to be undone.
            person = self._tag(client, message)
            if self._asks_for_silence(message) and self.options.on_stop == "mark":
                return self._tagged(person, thread=thread)
            written = self._write(client, message, thread=thread, repeat=repeat)
            return written or self._tagged(person, thread=thread)

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
            client = Client(self.options, self.http, self._sign_in)
        try:
            with self.http.within(deadline):
                yield client
        finally:
            self._idle.append(client)

    def _asks_for_silence(self, message: Message) -> bool:
        return message.opts_out is True and self.options.on_stop != "message"

    def _tag(self, client: Client, message: Message) -> int | None:
        """Note on the customer's profile what STOP or START says, and return whose it is."""
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
            return Receipt(
                reference="skipped: STOP, with no open ticket and nobody to mark", thread=thread
            )
        return Receipt(
            reference=f"user {person} tagged {self.options.opt_out_tag}",
            url=f"{self.options.address}/agent/users/{person}",
            thread=thread,
        )

    def _write(
        self, client: Client, message: Message, *, thread: str | None, repeat: bool
    ) -> Receipt | None:
        """Bring *message* into a ticket; None if it is a STOP and no ticket is open."""
        for _ in range(READINGS):
            try:
                return self._write_as_read(client, message, thread=thread, repeat=repeat)
            except _Overtaken as error:
                overtaken = error
        raise Transient(f"the ticket changes faster than it can be read: {overtaken}", status=409)

    def _write_as_read(
        self, client: Client, message: Message, *, thread: str | None, repeat: bool
    ) -> Receipt | None:
        known = client.ticket(thread, message) if thread else None
        if known is not None and self._takes(known, message) and not repeat:
            done = client.written(known, message, repeat=False)
            return done or _comment(client, known, message)
        tickets = client.tickets(message)
        if known is not None:
            # It may be archived, and then the list does not name it.
            tickets = [known, *(each for each in tickets if each.id != known.id)]
        done = _written(client, tickets, message, repeat=repeat)
        if done is not None:
            return done
        current = next((each for each in tickets if self._takes(each, message)), None)
        if current is not None:
            return _comment(client, current, message)
        if self._asks_for_silence(message):
            return None
        return self._create(client, message, after=tickets)

    def _takes(self, ticket: Ticket, message: Message) -> bool:
        """Say whether *message* goes into *ticket* rather than into a new one."""
        if ticket.status == "solved" and message.from_customer:
            return self.options.when_solved == "reopen" and not self._asks_for_silence(message)
        return bool(ticket.status != "closed")

    def _create(self, client: Client, message: Message, *, after: Sequence[Ticket]) -> Receipt:
        person = client.people.find(message)
        if person is None and self.options.unknown_customer == "skip":
            return Receipt(reference="skipped: no end user has the customer's number")
        try:
            return client.create(
                message, person=person or client.people.make(message), after=after
            )
        except KeyTaken as error:
            # An earlier attempt asked for this ticket in other words, before somebody changed
            # the options or the customer's profile.
            done = _written(client, client.tickets(message), message, repeat=False)
            if done is not None:
                return done
            raise Transient(
                "an earlier attempt asked for a ticket with other fields, and Zendesk remembers "
                f"it for two hours: {error}",
                status=error.status,
            ) from error


class _Overtaken(Exception):
    """Somebody else changed the ticket between our reading and our writing."""


def _comment(client: Client, ticket: Ticket, message: Message) -> Receipt:
    try:
        return client.comment(ticket, message)
    except (Closed, Gone, Changed) as error:
        raise _Overtaken(str(error)) from error


def _written(
    client: Client, tickets: Sequence[Ticket], message: Message, *, repeat: bool
) -> Receipt | None:
    """Say where in the first *tickets* an earlier attempt left *message*."""
    for ticket in tickets[:SEARCHED]:
        done = client.written(ticket, message, repeat=repeat)
        if done is not None:
            return done
    return None


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
