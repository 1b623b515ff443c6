"""A payload as it goes over the wire: its bytes, its kind, and the id inside."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from urllib.parse import unquote_plus

from sender.errors import SenderError
from sender.event import STATUS, new_message_id, written

Kind = Literal["json", "form"]

CONTENT_TYPES: dict[Kind, str] = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
}

# Numbers stay text: receivers have to bear integers of any length.
_JSON = json.JSONDecoder(parse_int=str, parse_float=str)
_SPACE = re.compile(r"[ \t\r\n]*")
_INTEGER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """The raw body of one event."""

    body: bytes
    kind: Kind = "json"
    #: The id inside, for people; None without a usable one.
    message_id: str | None
    #: The event type inside; None if it has none.
    event_type: str | None = None
    #: Where it was read, ``file`` or ``file:line``; empty if it was made here.
    source: str = ""


class PayloadError(SenderError):
    """The bytes are not a payload."""

    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(message)
        #: Line of the fault, from 1.
        self.line = line


def parse_json(body: bytes, *, source: str = "") -> Payload:
    """Read *body*, which must be a JSON object in UTF-8, and keep it byte for byte.

    Raises :class:`PayloadError`.
    """
    text = _decode(body)
    try:
        value = _JSON.decode(text)
    except json.JSONDecodeError as error:
        fault = f"not JSON: {error.msg.lower()} (column {error.colno})"
        raise PayloadError(fault, line=error.lineno) from error
    except RecursionError as error:
        raise PayloadError("nested too deeply to be read", line=1) from error
    if not isinstance(value, dict):
        raise PayloadError("not a JSON object: a payload looks like {…}", line=1)
    message_id = value["messageId"] if _id_span(text) else None
    named = value.get("eventType")
    event_type = named if isinstance(named, str) else None
    return Payload(body=body, message_id=message_id, event_type=event_type, source=source)


def parse_form(body: bytes, *, source: str = "") -> Payload:
    """Read *body*, which must be URL-encoded form data, and keep it byte for byte.

    Raises :class:`PayloadError`.
    """
    for number, line in enumerate(body.split(b"\n"), start=1):
        if number > 1 or not re.fullmatch(rb"[!-~]+", line):
            fault = "not form data: one line of URL-encoded ASCII, like ID=1&Success=True"
            raise PayloadError(fault, line=number)
    fields = [_form_field(each) for each in body.decode("ascii").split("&")]
    message_id = next((value for key, value in fields if key == "id" and value), None)
    return Payload(body=body, kind="form", message_id=message_id, event_type=STATUS, source=source)


def renewed(payload: Payload) -> Payload:
    """Return *payload* under a new id of the same type; nothing else in it changes.

    One without a usable id comes back as it is.
    """
    if payload.message_id is None:
        return payload
    return _renewed_form(payload) if payload.kind == "form" else _renewed_json(payload)


def retimed(payload: Payload, at: datetime) -> Payload:
    """Return *payload* with *at* as its ``eventTimestamp``; one that has none stays as it is."""
    if payload.kind == "form":
        return payload
    text = payload.body.decode()
    member = _last(text, "eventTimestamp")
    if member is None:
        return payload
    changed = f'{text[: member.start]}"{written(at)}"{text[member.end :]}'
    return replace(payload, body=changed.encode())


def without_body(payload: Payload) -> Payload:
    """Return *payload* without ``messageBody``, as with Include Message body off."""
    if payload.kind == "form":
        return payload
    text = payload.body.decode()
    while (member := _last(text, "messageBody")) is not None:
        before, after = text[: member.at].rstrip(" \t\r\n"), text[member.end :].lstrip(" \t\r\n")
        # One of the two commas around it goes too.
        if after.startswith(","):
            after = after[1:].lstrip(" \t\r\n")
            before = text[: member.at]
        else:
            before = before.removesuffix(",")
        text = before + after
    return replace(payload, body=text.encode())


def _renewed_json(payload: Payload) -> Payload:
    text = payload.body.decode()
    start, end = _id_span(text) or (0, 0)
    is_integer = _INTEGER.fullmatch(text, start, end)
    message_id = _new_integer() if is_integer else new_message_id()
    literal = message_id if is_integer else f'"{message_id}"'
    body = (text[:start] + literal + text[end:]).encode()
    return replace(payload, body=body, message_id=message_id)


def _renewed_form(payload: Payload) -> Payload:
    message_id = _new_integer()
    fields = payload.body.decode("ascii").split("&")
    for place, each in enumerate(fields):
        if _form_field(each)[0] == "id":
            fields[place] = f"{each.partition('=')[0]}={message_id}"
    return replace(payload, body="&".join(fields).encode(), message_id=message_id)


def _new_integer() -> str:
    """Make an id in the range that every JSON reader holds exactly."""
    return str(10**14 + secrets.randbelow(9 * 10**14))


def _decode(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise PayloadError(f"not UTF-8 (byte 0x{body[error.start]:02x})", line=line) from error
    if text.startswith("\ufeff"):
        raise PayloadError("starts with a byte order mark: save it without one", line=1)
    return text


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a member of a JSON object stands in the text."""

    key: str
    #: Where the key begins.
    at: int
    #: Where the value begins and ends.
    start: int
    end: int


def _members(text: str) -> Iterator[_Member]:
    """Find the members of the JSON object that *text* is."""
    at = _after_space(text, text.index("{") + 1)
    while text[at] != "}":
        key, end = _JSON.raw_decode(text, at)
        start = _after_space(text, _after_space(text, end) + 1)
        _, end = _JSON.raw_decode(text, start)
        yield _Member(key, at, start, end)
        at = _after_space(text, end)
        at = _after_space(text, at + 1) if text[at] == "," else at


def _last(text: str, key: str) -> _Member | None:
    """Find a member; of a repeated key the last one counts, as for nearly every reader."""
    return next((each for each in reversed(list(_members(text))) if each.key == key), None)


def _id_span(text: str) -> tuple[int, int] | None:
    """Find the value of ``messageId`` in a JSON object; None if it is no usable id."""
    found = _last(text, "messageId")
    if found is None or not _is_usable(text[found.start : found.end]):
        return None
    return found.start, found.end


def _is_usable(literal: str) -> bool:
    return literal.startswith('"') and literal != '""' or bool(_INTEGER.fullmatch(literal))


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _form_field(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return unquote_plus(key).casefold(), unquote_plus(value)
