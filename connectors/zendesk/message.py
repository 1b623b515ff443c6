"""An event in Zendesk's terms: texts and ids, the same at every attempt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from connectors.base import Event, Refused
from connectors.oauth import PRINTABLE
from connectors.plain import title
from connectors.templates import Template, render
from connectors.zendesk.options import FieldValue, ZendeskOptions

#: Bytes of text in one comment; Zendesk takes 64 KiB with everything around it.
MAX_TEXT = 60_000
MAX_SUBJECT = 150


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One event in Zendesk's terms."""

    key: str
    #: Our reference in text and metadata, by which a later attempt finds an earlier one.
    ref: str
    name: str
    #: The customer's number (E.164); None for a sender's name.
    phone: str | None
    person_id: str
    conversation_id: str
    subject: str
    body: str
    metadata: dict[str, Any]
    custom_fields: list[dict[str, Any]]
    #: Whether the customer wrote it; a status event only tells of the customer.
    from_customer: bool
    #: True for STOP, false for START, None for anything else.
    opts_out: bool | None
    #: Whether it opens and reopens no ticket, as STOP does.
    opens_nothing: bool


def compose(event: Event, *, key: str, options: ZendeskOptions) -> Message:
    """Put *event* into Zendesk's terms.

    Raises Refused if the event names no customer or a template fails.
    """
    if not event.customer:
        raise Refused("the event names no customer, and a ticket needs a requester")
    digest = sha256(key.encode("utf-8", "replace")).hexdigest()
    ref = f"gofax-{digest[:12]}"
    subject = " ".join(render(options.subject, event, field="subject", escape=inert).split())
    from_customer = event.type != "SMS_STATUS" and event.sender != event.ours
    public = options.public and from_customer
    # Values are cut one by one: a long one would exceed what a template may render.
    comment = render(options.comment, event, field="comment", escape=_fitted, public=public)
    wish = {"STOP": True, "START": False}.get(event.keyword or "") if from_customer else None
    return Message(
        key=key if PRINTABLE.fullmatch(key) and len(key) <= 255 else digest,
        ref=ref,
        name=inert(event.customer)[:255],
        phone=event.customer if re.fullmatch(r"\+[0-9]{5,15}", event.customer) else None,
        person_id=f"sms-{_token(event.customer)}",
        conversation_id=f"sms-{_token(event.customer)}-{_token(event.ours or 'unknown')}",
        subject=(subject or inert(title(event)))[:MAX_SUBJECT],
        body=f"{_cut(comment.strip())}\n\n(ref {ref})".lstrip(),
        metadata={"custom": {"gofax_ref": ref, "gofax_event_id": event.id}},
        custom_fields=[
            {"id": number, "value": _value(value, event, field=f"custom_fields.{number}")}
            for number, value in options.custom_fields.items()
        ],
        from_customer=from_customer,
        opts_out=wish,
        opens_nothing=wish is True and options.on_stop != "message",
    )


def inert(words: str) -> str:
    """Return *words* without placeholders such as {{ticket.id}}, which Zendesk would fill in."""
    sendable = words.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    return re.sub(r"\{(?=[{%])", "{\u2060", sendable)


def _fitted(words: str) -> str:
    return _cut(inert(words))


def _value(value: FieldValue, event: Event, *, field: str) -> object:
    if isinstance(value, Template):
        return render(value, event, field=field, escape=inert)
    return value


def _token(party: str) -> str:
    """Return *party* as an id that a URL takes as it is, because zenpy encodes nothing."""
    if re.fullmatch(r"\+?[0-9]{1,20}", party):
        return party.removeprefix("+")
    if len(party) > 40:
        return sha256(party.encode("utf-8", "replace")).hexdigest()[:32]
    return re.sub(r"[^A-Za-z0-9]", lambda found: _escape(found[0]), party)


def _escape(character: str) -> str:
    return "".join(f"_{each:02x}" for each in character.encode("utf-8", "replace"))


def _cut(said: str) -> str:
    if len(said.encode()) <= MAX_TEXT:
        return said
    return said.encode()[:MAX_TEXT].decode(errors="ignore") + "… (cut: too long for Zendesk)"
