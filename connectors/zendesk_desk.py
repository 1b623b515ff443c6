"""The few things that we ask of Zendesk through zenpy, and what an event says there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import requests
from zenpy import Zenpy
from zenpy.lib.api_objects import Comment, Ticket, User
from zenpy.lib.exception import APIException, ZenpyException
from zenpy.lib.generator import BaseResultGenerator

from connectors import text
from connectors.base import Ambiguous, DeliveryError, Event, Receipt, Refused, Transient
from connectors.http import Http
from connectors.zendesk_session import PRINTABLE, Credentials, Gone, ZendeskSession

if TYPE_CHECKING:
    from connectors.zendesk import ZendeskOptions

#: Bytes of SMS text in one comment; Zendesk takes 64 KiB with everything around it.
MAX_TEXT = 60_000
#: Zendesk's own mark on a ticket that was merged into another one.
MERGED = "closed_by_merge"


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What one event says to Zendesk: the same words and ids at every attempt."""

    key: str
    #: Stands in the text and in the metadata; by it a later attempt finds an earlier one.
    mark: str
    name: str
    #: The customer's number, if it is one.
    phone: str | None
    person_id: str
    conversation_id: str
    subject: str
    body: str
    metadata: dict[str, Any]


def compose(event: Event, *, key: str) -> Message:
    """Word *event* for Zendesk. Raises Refused if it names no customer."""
    if not event.customer:
        raise Refused("the event names no customer, and a ticket needs a requester")
    digest = sha256(key.encode("utf-8", "replace")).hexdigest()
    mark = f"gofax-{digest[:12]}"
    said = _cut(_clean(text.spoken(event)))
    return Message(
        key=key if PRINTABLE.fullmatch(key) and len(key) <= 255 else digest,
        mark=mark,
        name=_clean(event.customer)[:255],
        phone=event.customer if re.fullmatch(r"\+[0-9]{5,15}", event.customer) else None,
        person_id=f"sms-{_token(event.customer)}",
        conversation_id=f"sms-{_token(event.customer)}-{_token(event.ours or 'unknown')}",
        subject=_clean(text.title(event))[:150],
        body=f"{_clean(text.parties(event))[:200]}\n\n{said}\n\n(ref {mark})",
        metadata={"custom": {"gofax_ref": mark, "gofax_event_id": event.id}},
    )


def _token(party: str) -> str:
    """Name a number or a sender's name so that it fits a URL as it is: zenpy encodes nothing."""
    if re.fullmatch(r"\+?[0-9]{1,20}", party):
        return party.removeprefix("+")
    if len(party) > 40:
        return sha256(party.encode("utf-8", "replace")).hexdigest()[:32]
    return re.sub(r"[^A-Za-z0-9]", lambda found: _escape(found[0]), party)


def _escape(character: str) -> str:
    return "".join(f"_{each:02x}" for each in character.encode("utf-8", "replace"))


def _clean(said: str) -> str:
    """Replace what is no text (NUL, halves of surrogate pairs)."""
    return said.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _cut(said: str) -> str:
    if len(said.encode()) <= MAX_TEXT:
        return said
    return said.encode()[:MAX_TEXT].decode(errors="ignore") + "… (cut: too long for Zendesk)"


class Desk:
    """The few things we ask of Zendesk, for one thread at a time."""

    def __init__(self, options: ZendeskOptions, http: Http, credentials: Credentials) -> None:
        self._options = options
        self.session = ZendeskSession(http, address=options.address, credentials=credentials)
        self._zenpy = Zenpy(subdomain=options.subdomain, session=self.session, disable_cache=True)

    def close(self) -> None:
        self.session.close()

    def me(self) -> User:
        with _answers(Transient):
            return _expect(self._zenpy.users.me(), User)

    def ticket(self, thread: str, message: Message) -> Ticket | None:
        """Read the ticket that a receipt named; None if it is gone or not this conversation's."""
        if not re.fullmatch(r"[1-9][0-9]{0,17}", thread):
            return None
        try:
            with _answers(Transient):
                ticket = _expect(self._zenpy.tickets(id=int(thread)), Ticket)
        except Gone:
            return None
        return ticket if _belongs(ticket, message) else None

    def tickets(self, message: Message) -> Sequence[Ticket]:
        """List the tickets of the conversation, newest first."""
        with _answers(Transient):
            found = _expect_all(self._zenpy.tickets(external_id=message.conversation_id), Ticket)
            ours = [each for each in found if _belongs(each, message)]
            return sorted(ours, key=lambda ticket: int(ticket.id), reverse=True)

    def written(self, ticket: Ticket, message: Message, *, repeat: bool) -> Receipt | None:
        """Say where *message* is in *ticket*, if an earlier attempt wrote it.

        A creation whose answer was lost shows in the description, which every read brings along;
        only *repeat* is reason to read the comments too.
        """
        if message.mark in str(ticket.description):
            return self._receipt(ticket)
        if not repeat:
            return None
        with _answers(Transient):
            for comment in _expect_all(self._zenpy.tickets.comments(int(ticket.id)), Comment):
                if _bears(comment, message.mark):
                    return self._receipt(ticket, f" comment {comment.id}")
        return None

    def comment(self, ticket: Ticket, message: Message) -> Receipt:
        """Add *message* to *ticket*. Raises Closed or Gone if that came in between."""
        change = Ticket(
            id=ticket.id,
            comment=self._comment(message, author=ticket.requester_id),
            metadata=message.metadata,
        )
        if self._options.tags:
            change.additional_tags = self._options.tags
        # A new ticket stays new: nobody has taken it yet.
        if ticket.status != "new":
            change.status = "open"
        with _answers(Ambiguous):
            return self._made(self._zenpy.tickets.update(change), expected=ticket.id)

    def create(self, message: Message, *, after: Sequence[Ticket]) -> Receipt:
        """Make a ticket, as a follow-up of the first closed one of those that came before."""
        with _answers(Transient):
            source = next(filter(_can_be_followed, after), None)
            person = self._person(message)
        ticket = Ticket(
            subject=message.subject,
            external_id=message.conversation_id,
            requester_id=person,
            comment=self._comment(message, author=person),
            metadata=message.metadata,
            group_id=self._options.group_id,
            priority=self._options.priority,
        )
        if source is not None:
            ticket.via_followup_source_id = source.id
        # Without tags of its own a follow-up inherits those of its source.
        elif self._options.tags:
            ticket.tags = self._options.tags
        with self.session.keyed(message.key), _answers(Ambiguous):
            return self._made(self._zenpy.tickets.create(ticket))

    def _comment(self, message: Message, *, author: int) -> Comment:
        return Comment(body=message.body, public=self._options.public, author_id=author)

    def _made(self, answer: object, *, expected: int | None = None) -> Receipt:
        ticket = _expect(getattr(answer, "ticket", answer), Ticket)
        if expected not in (None, ticket.id):
            raise ValueError("an answer about another ticket")
        return self._receipt(ticket, _comment_in(getattr(answer, "audit", None)))

    def _receipt(self, ticket: Ticket, detail: str = "") -> Receipt:
        return Receipt(
            reference=f"ticket {ticket.id}{detail}",
            url=f"{self._options.address}/agent/tickets/{ticket.id}",
            thread=str(ticket.id),
        )

    def _person(self, message: Message) -> int:
        """Return the id of the customer's profile, and make it if there is none."""
        return (
            self._known_person(message)
            or self._staffs_person(message)
            or self._new_person(message)
        )

    def _known_person(self, message: Message) -> int | None:
        """Find the profile of an earlier delivery; saving it again would undo a renaming."""
        try:
            found = _expect_all(self._zenpy.users(external_ids=[message.person_id]), User)
            return next((int(user.id) for user in found), None)
        except Gone:
            return None

    def _staffs_person(self, message: Message) -> int | None:
        """Find the one profile that people made for this number; several are nobody."""
        if message.phone is None:
            return None
        found = {
            int(user.id)
            for user in _expect_all(self._zenpy.users.search(query=message.phone), User)
            if user.role == "end-user"
            and re.sub(r"[^+0-9]", "", user.phone or "") == message.phone
        }
        return found.pop() if len(found) == 1 else None

    def _new_person(self, message: Message) -> int:
        fields = {"external_id": message.person_id, "skip_verify_email": True}
        person = User(name=message.name, **fields)
        if message.phone is None:
            return self._save(person)
        try:
            return self._save(User(name=message.name, phone=message.phone, **fields))
        except Refused as error:
            # The number may be another profile's direct line; the message matters more.
            if error.status != 422:
                raise
            return self._save(person)

    def _save(self, person: User) -> int:
        return int(_expect(self._zenpy.users.create_or_update(person), User).id)


def _belongs(ticket: Ticket, message: Message) -> bool:
    """Ids start anew in a fresh account, where the same one is a stranger's ticket."""
    return (
        str(ticket.external_id).casefold() == message.conversation_id.casefold()
        and ticket.status != "deleted"
    )


def _can_be_followed(ticket: Ticket) -> bool:
    return ticket.status == "closed" and MERGED not in (ticket.tags or [])


def _comment_in(audit: object) -> str:
    """Name the comment that an audit tells of; without one the ticket says enough."""
    events = getattr(audit, "events", None)
    told = [each for each in events if isinstance(each, dict)] if isinstance(events, list) else []
    ids = [each["id"] for each in told if each.get("type") == "Comment" and "id" in each]
    return f" comment {ids[0]}" if ids else ""


def _bears(comment: Comment, mark: str) -> bool:
    custom = getattr(comment.metadata, "custom", None) or {}
    return mark in (comment.body or "") or custom.get("gofax_ref") == mark


def _expect(found: object, kind: type) -> Any:
    """Return *found* if it is a *kind* that has an id; zenpy returns whatever came."""
    number = getattr(found, "id", "")
    anonymous = kind is User and number is None
    if not isinstance(found, kind) or not (anonymous or type(number) is int):
        raise ValueError(f"no {kind.__name__}")
    return found


def _expect_all(found: object, kind: type) -> Iterator[Any]:
    """Yield every *kind* of a list, page after page."""
    if not isinstance(found, BaseResultGenerator):
        raise ValueError("no list")
    yield from (_expect(each, kind) for each in found)


@contextmanager
def _answers(doubt: type[DeliveryError]) -> Iterator[None]:
    """Raise *doubt* for a 2xx that is no answer of Zendesk; zenpy trips over it in many ways."""
    try:
        yield
    except (
        APIException,
        ZenpyException,
        requests.RequestException,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise doubt(f"not an answer of Zendesk ({type(error).__name__})") from error
