"""What we ask of Zendesk's tickets, through zenpy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from zenpy import Zenpy
from zenpy.lib.api_objects import Comment, Ticket, User

from connectors.base import Ambiguous, Receipt, Transient
from connectors.http import Http
from connectors.oauth import AccessToken
from connectors.zendesk.answers import decoding, expect, expect_all
from connectors.zendesk.message import Message
from connectors.zendesk.options import ZendeskOptions
from connectors.zendesk.people import People
from connectors.zendesk.session import Gone, ZendeskSession

#: Zendesk's own mark on a ticket that was merged into another one.
MERGED = "closed_by_merge"


class Client:
    """One client of Zendesk, for one thread at a time."""

    def __init__(self, options: ZendeskOptions, http: Http, sign_in: AccessToken | str) -> None:
        self._options = options
        self.session = ZendeskSession(http, address=options.address, sign_in=sign_in)
        self._zenpy = Zenpy(subdomain=options.subdomain, session=self.session, disable_cache=True)
        self.people = People(self._zenpy, region=options.region)

    def close(self) -> None:
        self.session.close()

    def me(self) -> User:
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

    def tickets(self, message: Message) -> Sequence[Ticket]:
        """List the tickets of the conversation, newest first."""
        with decoding(Transient):
            found = expect_all(self._zenpy.tickets(external_id=message.conversation_id), Ticket)
            ours = [each for each in found if _belongs(each, message)]
            return sorted(ours, key=lambda ticket: int(ticket.id), reverse=True)

    def written(self, ticket: Ticket, message: Message, *, repeat: bool) -> Receipt | None:
        """Say where *message* is in *ticket*, if an earlier attempt wrote it.

        A creation whose answer was lost shows in the description, which every read brings along;
        only *repeat* is reason to read the comments too.
        """
        if message.ref in str(ticket.description):
            return self._receipt(ticket)
        if not repeat:
            return None
        with decoding(Transient):
            for comment in expect_all(self._zenpy.tickets.comments(int(ticket.id)), Comment):
                if _bears(comment, message.ref):
                    return self._receipt(ticket, f" comment {comment.id}")
        return None

    def comment(self, ticket: Ticket, message: Message) -> Receipt:
        """Add *message* to *ticket* as it was read.

        Raises Gone, Closed or Changed if that is no longer how it is; then nothing was written.
        """
        change = Ticket(
            id=ticket.id,
            comment=self._comment(message, author=ticket.requester_id),
            metadata=message.metadata,
        )
        if self._options.tags:
            change.additional_tags = self._options.tags
        # A new ticket stays new: nobody has taken it yet.
        if message.from_customer and ticket.status != "new":
            change.status = "open"
        if isinstance(ticket.updated_at, str):
            # What an agent does at this moment shall not be undone, nor go by unseen.
            change.safe_update, change.updated_stamp = True, ticket.updated_at
        with decoding(Ambiguous):
            return self._made(self._zenpy.tickets.update(change), expected=ticket.id)

    def create(self, message: Message, *, person: int, after: Iterable[Ticket]) -> Receipt:
        """Make a ticket of *person*, as a follow-up of the first that is closed of *after*."""
        options = self._options
        ticket = Ticket(
            subject=message.subject,
            external_id=message.conversation_id,
            requester_id=person,
            comment=self._comment(message, author=person),
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
        source = next((each for each in after if each.status == "closed"), None)
        if source is not None:
            ticket.via_followup_source_id = source.id
            ticket.tags = _inherited(source, options.tags)
        with self.session.keyed(message.key), decoding(Ambiguous):
            return self._made(self._zenpy.tickets.create(ticket))

    def _comment(self, message: Message, *, author: int) -> Comment:
        if not message.from_customer:
            return Comment(body=message.body, public=False)
        return Comment(body=message.body, public=self._options.public, author_id=author)

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


def _belongs(ticket: Ticket, message: Message) -> bool:
    """Ids start anew in a fresh account, where the same one is a stranger's ticket."""
    if type(ticket.requester_id) is not int:
        raise ValueError("a ticket of nobody, in whose name nothing can be said")
    return (
        str(ticket.external_id).casefold() == message.conversation_id.casefold()
        and ticket.status != "deleted"
    )


def _inherited(source: Ticket, tags: Sequence[str]) -> list[str] | None:
    """Return the tags of a follow-up: its source's, but not that it was merged.

    Without tags of its own it would inherit that, and be taken for merged too.
    """
    return sorted({*(source.tags or []), *tags} - {MERGED}) or None


def _comment_in(audit: object) -> str:
    """Name the comment that an audit tells of; without one the ticket says enough."""
    events = getattr(audit, "events", None)
    told = [each for each in events if isinstance(each, dict)] if isinstance(events, list) else []
    ids = [each["id"] for each in told if each.get("type") == "Comment" and "id" in each]
    return f" comment {ids[0]}" if ids else ""


def _bears(comment: Comment, ref: str) -> bool:
    custom = getattr(comment.metadata, "custom", None) or {}
    return ref in (comment.body or "") or custom.get("gofax_ref") == ref
