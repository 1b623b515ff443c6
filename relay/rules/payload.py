"""What do these bytes say? Reads JSON and form data as tolerantly as is safe.

Both formats are described on GoFax's help pages "SMS Webhooks" and "Using Webhooks" (November
2026). Payloads "may evolve", so nothing here requires more than a JSON object.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal
from urllib.parse import parse_qsl

from connectors.base import Event
from relay.rules.sentiment import Judge, Sentiment
from relay.rules.text import Keyword, e164, folded, keyword_of

Format = Literal["json", "form"]
DedupeField = Literal["messageId", "eventType", "direction", "from", "to"]

#: The type of a signed JSON object that Python cannot read, or that is nested too deeply.
UNREADABLE = "UNREADABLE"
#: Levels of objects and lists that are read. How many Python itself can read depends on its
#: version and the thread; what was read once has to be readable wherever the event goes.
DEEPEST = 500
STATUS = "SMS_STATUS"
#: Types of events that are documented or assumed; others are taken all the same.
EVENT_TYPES = ("SMS_REPLY", "SMS_RECEIVED", STATUS)

_OUTBOUND = ("outbound", "outgoing", "out", "sent", "send", "status")
#: Directions that are documented or assumed.
DIRECTIONS = ("reply", "inbound", *_OUTBOUND)
#: Charsets that senders state. Python knows more codecs, some of which take very long.
_CHARSET = re.compile(
    r"iso-?8859-?\d{1,2}|latin-?\d|(?:windows-|cp)125\d|us-ascii|utf-(?:16|32)(?:le|be)?"
    r"|shift_jis|gb(?:2312|k|18030)|big5|euc-(?:jp|kr)|koi8-[ru]",
    re.IGNORECASE,
)
_DROPPED_CONTROLS = {ord(c): None for c in map(chr, range(32)) if c not in "\t\n\r"}


class Unreadable(ValueError):
    """The bytes are not what the endpoint's format says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """The content of a request: cleaned text, ready to be stored, routed and delivered."""

    format: Format = "json"
    message_id: str | None = None
    type: str
    direction: str | None = None
    sender: str | None = None
    recipient: str | None = None
    body: str | None = None
    occurred_at: datetime | None = None
    account_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def understood(self) -> bool:
        return self.type != UNREADABLE

    @property
    def outbound(self) -> bool:
        """Return whether we wrote to the customer, who then is the recipient."""
        return self.type == STATUS or folded(self.direction or "") in _OUTBOUND

    @property
    def customer(self) -> str | None:
        return self.recipient if self.outbound else self.sender

    @property
    def ours(self) -> str | None:
        return self.sender if self.outbound else self.recipient

    @property
    def keyword(self) -> Keyword | None:
        return keyword_of(self.body) if self.body else None

    def _sentiment(self, judge: Judge | None) -> Sentiment | None:
        """Judge a customer's text; a keyword is a command, not an opinion."""
        if judge is None or not self.body or self.outbound or self.keyword:
            return None
        return judge(self.body)

    def event(
        self, *, id: str, endpoint: str, received_at: datetime, judge: Judge | None = None
    ) -> Event:
        """Return the event that routes and connectors see; *judge* rates its text."""
        customer, ours = self.customer, self.ours
        return Event(
            id=id,
            endpoint=endpoint,
            message_id=self.message_id,
            type=self.type,
            direction=self.direction,
            customer=customer,
            ours=ours,
            sender=self.sender,
            recipient=self.recipient,
            body=self.body,
            keyword=self.keyword,
            occurred_at=self.occurred_at,
            received_at=received_at,
            account_id=self.account_id,
            metadata=self.metadata,
            payload=self.fields,
            conversation=f"{customer or ''}~{ours or ''}",
            sentiment=self._sentiment(judge),
        )


def read(raw: bytes, *, format: Format, query: str = "", charset: str | None = None) -> Payload:
    """Read a request's body; *query* is the query string, if its fields count too.

    Raises :class:`Unreadable` if the body is not a JSON object, or has no form field.
    """
    if format == "form":
        return read_form(raw, query=query, charset=charset)
    return read_json(raw, charset=charset)


def contents(
    raw: bytes, *, format: Format, query: str = "", charset: str | None = None
) -> Mapping[str, Any]:
    """Return the fields of a body as they came; :func:`read` has read it before."""
    if format == "form":
        return dict(_form_pairs(raw, query=query, charset=charset))
    return _json_object(raw, charset=charset) or {}


def metadata_of(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the ``metadata`` of a JSON webhook."""
    metadata = fields.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def read_json(raw: bytes, *, charset: str | None = None) -> Payload:
    """Read GoFax's native JSON webhook."""
    fields = _json_object(raw, charset=charset)
    if fields is None:
        return Payload(type=UNREADABLE)
    metadata = metadata_of(fields)
    return Payload(
        message_id=_identifier(fields.get("messageId")),
        type=_text(fields.get("eventType")) or "UNKNOWN",
        direction=_text(fields.get("direction")),
        sender=number(fields.get("from")),
        recipient=number(fields.get("to")),
        body=_text(fields.get("messageBody")),
        occurred_at=moment(fields.get("eventTimestamp")),
        account_id=_identifier(metadata.get("accountId")),
        metadata=metadata,
        fields=fields,
    )


def read_form(raw: bytes, *, query: str = "", charset: str | None = None) -> Payload:
    """Read a legacy status notification; its keys may have any case, in the body or the URL."""
    pairs = _form_pairs(raw, query=query, charset=charset)
    if not pairs:
        raise Unreadable("no form fields")
    known = {name.lower(): value for name, value in pairs}
    return Payload(
        message_id=_identifier(known.get("id")),
        format="form",
        type=STATUS,
        recipient=number(known.get("recipient")),
        body=_text(known.get("message")),
        fields=dict(pairs),
    )


def key(
    payload: Payload, raw: bytes, *, endpoint: str, dedupe_by: Sequence[DedupeField], query: str
) -> bytes:
    """Return the 32 bytes by which a resend of this event is recognised."""
    if payload.message_id is None:
        return _digest(endpoint, "raw", raw.hex(), query)
    if payload.format == "form":
        # One ID can have several recipients, and several reports.
        known = {name.lower(): _text(value) or "" for name, value in payload.fields.items()}
        said = known.get("success", ""), known.get("message", "")
        return _digest(endpoint, STATUS, payload.message_id, payload.recipient or "", *said)
    values = {
        "messageId": payload.message_id,
        "eventType": payload.type,
        "direction": payload.direction,
        "from": payload.sender,
        "to": payload.recipient,
    }
    return _digest(endpoint, *(f"{name}={values[name] or ''}" for name in dedupe_by))


def meaning(payload: Payload) -> bytes:
    """Return what an event and its duplicate must have in common, except the text."""
    parts = payload.type, payload.direction, payload.sender, payload.recipient
    return json.dumps([(part or "").lower() for part in parts]).encode()


def number(value: object) -> str | None:
    """Write a phone number as E.164; anything else (a sender's name) stays as it came.

    >>> number("61412345678"), number("0412 345 678"), number("Test Sender")
    ('+61412345678', '+61412345678', 'Test Sender')
    """
    name = _identifier(value)
    return name and (e164(name) or name)


def moment(value: object, *, zone: tzinfo = UTC) -> datetime | None:
    """Read an ISO 8601 time of any precision and offset; without one it is in *zone*."""
    if not isinstance(value, str):
        return None
    try:
        read = datetime.fromisoformat(value.strip())
        return (read.replace(tzinfo=zone) if read.tzinfo is None else read).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def clean(text: str) -> str:
    """Return *text* without what databases and vendors refuse: NUL, lone surrogates."""
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_DROPPED_CONTROLS).encode("utf-8", "replace").decode()


def _json_object(raw: bytes, *, charset: str | None) -> dict[str, Any] | None:
    """Parse a JSON object; None if Python cannot hold it, or it is nested too deeply."""
    text = _decoded(raw, charset, standard=json.detect_encoding(raw))
    try:
        parsed = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError:
        if text.lstrip().startswith("{"):
            return None
        raise Unreadable("not a JSON object") from None
    if not isinstance(parsed, dict):
        raise Unreadable(f"a JSON {type(parsed).__name__}, not an object")
    # Counting is quick, and an object with few brackets cannot be deep.
    if text.count("{") + text.count("[") > DEEPEST and _is_deep(parsed):
        return None
    return parsed


def _is_deep(value: Any) -> bool:
    """Return whether *value* has more than :data:`DEEPEST` levels, without recursion."""
    level = [value]
    for _ in range(DEEPEST):
        within = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for values in within for each in values if isinstance(each, (dict, list))]
        if not level:
            return False
    return True


def _integer(digits: str) -> int | str:
    # Python refuses integers of more than 4,300 digits; no field of ours is that long.
    return int(digits) if len(digits) <= 1000 else digits


#: Not strict: texts may hold control characters.
_DECODER = json.JSONDecoder(parse_int=_integer, strict=False)


def _form_pairs(raw: bytes, *, query: str, charset: str | None) -> list[tuple[str, str]]:
    text = raw.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    return [
        pair for part in (query, text) if "=" in part for pair in _pairs(part, charset=charset)
    ]


def _pairs(part: str, *, charset: str | None) -> list[tuple[str, str]]:
    pairs = parse_qsl(part, keep_blank_values=True, encoding="utf-8", errors="surrogateescape")
    return [(_unescaped(name, charset), _unescaped(value, charset)) for name, value in pairs]


def _unescaped(text: str, charset: str | None) -> str:
    if text.isascii():
        return text
    return _decoded(text.encode("utf-8", "surrogateescape"), charset, standard="utf-8")


def _decoded(raw: bytes, charset: str | None, *, standard: str) -> str:
    """Decode *raw*: the standard's encoding if it is that, otherwise the *charset* it states."""
    try:
        return raw.decode(standard)
    except UnicodeDecodeError:
        pass
    if charset is not None and _CHARSET.fullmatch(charset):
        try:
            return raw.decode(charset)
        except (LookupError, UnicodeDecodeError):
            pass
    return raw.decode(standard, "replace")


def _text(value: object) -> str | None:
    return (clean(value) or None) if isinstance(value, str) else None


def _identifier(value: object) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    text = _text(value)
    return (text.strip() or None) if text else None


def _digest(*parts: str) -> bytes:
    """Hash *parts* so that no two different lists give the same bytes to hash."""
    return hashlib.sha256(json.dumps(parts).encode()).digest()
