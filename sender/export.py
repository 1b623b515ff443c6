"""Exports: turns a line of ``gofax-relay events --json`` back into what GoFax sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from sender.event import STATUS, Event
from sender.payload import Payload, parse_form, parse_json

#: The fields that mark an exported event: no payload of GoFax's has them.
MARKS = frozenset({"message_id", "type", "received_at", "deliveries"})


def restored(payload: Payload) -> Payload:
    """Return the payload that an exported event came with; any other comes back as it is.

    An export holds what the relay understood, so the bytes are ours: the same fields with the same
    meaning. Raises :class:`PayloadError`.
    """
    if payload.message_id is not None or payload.event_type is not None:
        return payload
    fields = json.loads(payload.body, parse_int=_number)
    if not _is_exported(fields):
        return payload
    if fields["type"] == STATUS:
        return parse_form(_form(fields), source=payload.source)
    given = fields.get("payload")
    raw = json.dumps(given, ensure_ascii=False) if isinstance(given, dict) and given else None
    return parse_json(raw.encode() if raw else _event(fields).encode(), source=payload.source)


def _is_exported(fields: dict[str, Any]) -> bool:
    return (
        fields.keys() >= MARKS
        and all(isinstance(fields[name], str) for name in ("type", "received_at"))
        and isinstance(fields["message_id"], str | None)
        and isinstance(fields["deliveries"], list)
    )


def _event(fields: dict[str, Any]) -> Event:
    known: dict[str, Any] = {
        "type": fields["type"],
        "direction": fields.get("direction"),
        "sender": fields.get("from"),
        "recipient": fields.get("to"),
        "body": fields.get("body"),
        "occurred_at": _moment(fields.get("occurred_at")) or _moment(fields["received_at"]),
    }
    known |= {"message_id": fields["message_id"]} if fields["message_id"] else {}
    return Event(**{name: value for name, value in known.items() if value or name == "body"})


def _form(fields: dict[str, Any]) -> bytes:
    given = fields.get("payload")
    if isinstance(given, dict) and given:
        return urlencode({name: str(value) for name, value in given.items()}).encode("ascii")
    said = {
        "Recipient": (fields.get("to") or "").removeprefix("+"),
        "ID": fields["message_id"] or "",
        "Message": fields.get("body") or "",
    }
    return urlencode(said).encode("ascii")


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def _number(digits: str) -> int | str:
    # Python refuses to read more than 4,300 digits.
    return int(digits) if len(digits) <= 1000 else digits
