"""What we ask of Zendesk's tickets, through zenpy."""

from __future__ import annotations

import re
from collections.abc import Sequence

from zenpy import Zenpy
from zenpy.lib.api_objects import Comment, Ticket, User

from connectors.base import Receipt, Refused, Transient
from connectors.http import Http
from connectors.oauth import AccessToken
from connectors.zendesk.answers import Unread, decoding, expect, expect_all
from connectors.zendesk.limits import UpdateLimits
from connectors.zendesk.message import Message
from connectors.zendesk.options import ZendeskOptions
from connectors.zendesk.people import People
from connectors.zendesk.session import Closed, Full, Gone, ZendeskSession

#: Zendesk's own tag of a ticket that was merged into another one.
MERGED = "closed_by_merge"
#: Zendesk takes 5,000 comments in a ticket, and its count of them is an approximate one.
NEARLY_FULL = 4900


class Client:
    """One client of Zendesk, for one thread at a time."""

    def __init__(
        self,
        options: ZendeskOptions,
        http: Http,
        *,
        sign_in: AccessToken | str,
        limits: UpdateLimits,
    ) -> None:
        """*sign_in*: a token to renew, or an Authorization header that stays as it is."""
        self._options = options
        self._session = ZendeskSession(
            http, address=options.address, sign_in=sign_in, limits=limits
        )
        self._zenpy = Zenpy(subdomain=options.subdomain, session=self._session, disable_cache=True)
        self.people = People(self._zenpy, region=options.region)

    def close(self) -> None:
        """Release connections."""
        self._session.close()

    def me(self) -> User:
        """Return the user who is signed in."""
        with decoding(Transient):
            return expect(self._zenpy.users.me(), User)

    def ticket(self, thread: str, message: Message) -> Ticket | None:
        """Read the ticket that a receipt named; None if it is gone or not this conversation's."""
        if not re.fullmatch(r"[1-9][0-9]{0,17}", thread):
            return None
        try:
            with decoding(Transient):
                ticket: Ticket = expect(self._zenpy.tickets(id=int(thread)), Ticket)
                return ticket if _belongs(ticket, message) else None
        except Gone:
            return None

    def tickets(self, message: Message) -> list[Ticket]:
        """List the tickets of the conversation, newest first; archived ones are in no list."""
        with decoding(Transient):
            found = expect_all(self._zenpy.tickets(external_id=message.conversation_id), Ticket)
            ours = [each for each in found if _belongs(each, message)]
            return sorted(ours, key=lambda ticket: int(ticket.id), reverse=True)

    def find(self, message: Message, ticket: Ticket, *, in_comments: bool) -> Receipt | None:
        """Say where *message* is in *ticket*, if an earlier attempt wrote it.

        Every read of a ticket brings its description along, so a creation whose answer was lost
        is found at no cost; *in_comments* takes further requests.
        """
        if message.ref in str(ticket.description):
            return self._receipt(ticket)
        if not in_comments:
            return None
        with decoding(Transient):
            for comment in expect_all(self._zenpy.tickets.comments(int(ticket.id)), Comment):
                custom = getattr(comment.metadata, "custom", None) or {}
                if message.ref in (comment.body or "") or custom.get("gofax_ref") == message.ref:
                    return self._receipt(ticket, f" comment {comment.id}")
        return None

    def add_tags(self, ticket: Ticket, tags: Sequence[str]) -> None:
        """Add *tags* to those of *ticket*. Raises Gone, Closed or Changed if it has changed."""
        # zenpy's own add_tags cannot make the update safe. What is answered says nothing new.
        asked = {"tags": list(tags), "safe_update": True, "updated_stamp": ticket.updated_at}
        self._session.put(self._url(f"tickets/{ticket.id}/tags"), json=asked)

    def comment(self, message: Message, ticket: Ticket) -> Receipt:
        """Add *message* to *ticket* as it was read.

        Raises Gone, Closed, Full or Changed if it takes none now, and then nothing was written;
        and Unread, which leaves that open.
        """
        change = Ticket(
            id=ticket.id,
            comment=new_comment(message, self._options, author=ticket.requester_id),
            metadata=message.metadata,
        )
        # A new ticket stays new: nobody has taken it yet.
        if message.from_customer and ticket.status != "new":
            change.status = "open"
        if isinstance(ticket.updated_at, str):
            # If an agent has just changed the ticket, Zendesk refuses this update.
            change.safe_update, change.updated_stamp = True, ticket.updated_at
        try:
            with decoding(Unread):
                return self._made(self._zenpy.tickets.update(change), expected=ticket.id)
        except Closed:
            raise
        except Refused as error:
            if error.status == 422 and self._count_comments(ticket) >= NEARLY_FULL:
                raise Full(f"{error} (the ticket is full)", status=422) from error
            raise

    def create(self, message: Message, *, person: int, after: Ticket | None) -> Receipt:
        """Make a ticket of *person*, as a follow-up of *after*. Raises Unread, KeyTaken."""
        options = self._options
        ticket = new_ticket(message, options, person=person)
        if after is not None:
            ticket.via_followup_source_id = after.id
            # Without tags of its own it would inherit that its source was merged.
            inherited = {*(after.tags or []), *options.tags} - {MERGED}
            ticket.tags = sorted(inherited) or None
            if after.status != "closed":
                # Zendesk links follow-ups of closed tickets only.
                ticket.comment.body += f"\n(continues #{after.id})"
        with self._session.keyed(message.key), decoding(Unread):
            return self._made(self._zenpy.tickets.create(ticket))

    def _count_comments(self, ticket: Ticket) -> int:
        with decoding(Transient):
            answer = self._session.get(self._url(f"tickets/{ticket.id}/comments/count"))
            return int(answer.json()["count"]["value"])

    def _url(self, path: str) -> str:
        """Return where zenpy would ask for *path*."""
        return f"https://{self._options.subdomain}.zendesk.com/api/v2/{path}.json"

    def _made(self, answer: object, *, expected: int | None = None) -> Receipt:
        ticket = expect(getattr(answer, "ticket", answer), Ticket)
        if expected not in (None, ticket.id):
            raise ValueError("an answer about another ticket")
        return self._receipt(ticket, _comment_in(getattr(answer, "audit", None)))

    def _receipt(self, ticket: Ticket, detail: str = "") -> Receipt:
        return Receipt(
            reference=f"ticket {ticket.id}{detail}",
            url=f"{self._options.address}/agent/tickets/{ticket.id}",
            thread=str(ticket.id),
        )


def new_ticket(message: Message, options: ZendeskOptions, *, person: int | None) -> Ticket:
    """Make the ticket that *message* opens for *person*."""
    return Ticket(
        subject=message.subject,
        external_id=message.conversation_id,
        requester_id=person,
        comment=new_comment(message, options, author=person),
        metadata=message.metadata,
        group_id=options.group_id,
        assignee_id=options.assignee_id,
        priority=options.priority,
        status=options.status,
        brand_id=options.brand_id,
        ticket_form_id=options.ticket_form_id,
        custom_fields=message.custom_fields or None,
        tags=options.tags or None,
    )


def new_comment(message: Message, options: ZendeskOptions, *, author: int | None) -> Comment:
    """Make the comment of *message*, in the name of *author* if the customer wrote it."""
    if not message.from_customer:
        return Comment(body=message.body, public=False)
    return Comment(body=message.body, public=options.public, author_id=author)


def _belongs(ticket: Ticket, message: Message) -> bool:
    """Say whether *ticket* is the conversation's; in a fresh account its id is a stranger's."""
    if type(ticket.requester_id) is not int:
        raise ValueError("a ticket of nobody, in whose name nothing can be said")
    if not isinstance(ticket.tags, list | None):
        raise ValueError("tags that are no list")
    return (
        str(ticket.external_id).casefold() == message.conversation_id.casefold()
        and ticket.status != "deleted"
    )


def _comment_in(audit: object) -> str:
    """Name the comment that an audit tells of; without one the ticket says enough."""
    events = getattr(audit, "events", None)
    told = [each for each in events if isinstance(each, dict)] if isinstance(events, list) else []
    ids = [each["id"] for each in told if each.get("type") == "Comment" and "id" in each]
    return f" comment {ids[0]}" if ids else ""
