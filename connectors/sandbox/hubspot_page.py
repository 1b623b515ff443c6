"""The HubSpot stand-in's part of the sandbox's page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from connectors.sandbox.hubspot_objects import Object
from connectors.sandbox.hubspot_rules import STAGES

NUMBERS = ("sms_relay_phone", "hs_calculated_mobile_number", "hs_calculated_phone_number")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One communication on a timeline."""

    id: str
    at: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticket:
    """One ticket of a contact."""

    id: str
    subject: str
    stage: str
    closed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task about a contact."""

    id: str
    subject: str
    due: str
    done: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One message of an inbox thread."""

    at: str
    text: str
    incoming: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class InboxThread:
    """One thread of the conversations inbox."""

    id: str
    parties: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """One contact with its entries, newest last."""

    contact: str
    name: str
    phone: str
    opted_out: bool
    entries: tuple[Entry, ...]
    tickets: tuple[Ticket, ...]
    tasks: tuple[Task, ...]
    threads: tuple[InboxThread, ...]


def timeline(
    contact: Object,
    *,
    communications: list[Object],
    tickets: list[Object],
    tasks: list[Object],
    messages: Iterable[Mapping[str, Any]],
) -> Timeline:
    """Return what the page shows of *contact*."""
    entries = sorted(communications, key=lambda each: each.properties["hs_timestamp"])
    names = (contact.properties.get(name, "") for name in ("firstname", "lastname"))
    own = [each for each in messages if str(each["associateWithContactId"]) == contact.id]
    threads = dict.fromkeys(each["conversationsThreadId"] for each in own)
    return Timeline(
        contact=contact.id,
        name=" ".join(filter(None, names)),
        phone=number_of(contact),
        opted_out=contact.properties.get("sms_opted_out") == "true",
        entries=tuple(_entry(each) for each in entries),
        tickets=tuple(_ticket(each) for each in tickets),
        tasks=tuple(_task(each) for each in tasks),
        threads=tuple(_thread(each, own) for each in threads),
    )


def number_of(contact: Object) -> str:
    """Return a contact's number, or an empty text."""
    values = contact.properties
    return next((values[name] for name in NUMBERS if values.get(name)), "")


def plain(body: str) -> str:
    """Return HTML as people read it."""
    return html.unescape(re.sub("<[^<>]*>", "", body.replace("<br>", "\n")))


def _entry(communication: Object) -> Entry:
    values = communication.properties
    return Entry(
        id=communication.id,
        at=values["hs_timestamp"],
        text=plain(values.get("hs_communication_body", "")),
    )


def _ticket(ticket: Object) -> Ticket:
    stage, closed = STAGES[ticket.properties["hs_pipeline_stage"]]
    return Ticket(id=ticket.id, subject=ticket.properties["subject"], stage=stage, closed=closed)


def _task(task: Object) -> Task:
    values = task.properties
    return Task(
        id=task.id,
        subject=values.get("hs_task_subject", ""),
        due=values["hs_timestamp"],
        done=values["hs_task_status"] == "COMPLETED",
    )


def _thread(thread: str, messages: list[Mapping[str, Any]]) -> InboxThread:
    own = [each for each in messages if each["conversationsThreadId"] == thread]
    own.sort(key=lambda each: str(each["createdAt"]))
    identifiers = [party["deliveryIdentifier"]["value"] for party in own[0]["senders"]]
    identifiers += [party["deliveryIdentifier"]["value"] for party in own[0]["recipients"]]
    return InboxThread(
        id=thread,
        parties=" → ".join(identifiers),
        lines=tuple(
            Line(at=each["createdAt"], text=each["text"], incoming=each["direction"] == "INCOMING")
            for each in own
        ),
    )
