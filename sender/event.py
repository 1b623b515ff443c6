"""An event as GoFax's native webhook sends it."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

#: The direction that belongs to an event type; any other type comes ``inbound``.
DIRECTIONS = {"SMS_REPLY": "reply", "SMS_RECEIVED": "inbound"}
#: What GoFax's example payload holds in ``signature``: a name, never a signature.
PLACEHOLDER = "HMAC_SHA256"
#: Our name for the legacy notification of a sent SMS, which is form data and names no type.
STATUS = "SMS_STATUS"
UNDELIVERED = "Message not delivered in allowable time frame"


def new_message_id() -> str:
    """Make a new opaque id."""
    return secrets.token_hex(12)


def written(moment: datetime) -> str:
    """Write a time as GoFax's example does: UTC, microseconds, ``Z``."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One SMS event; without arguments, the reply of GoFax's example under a new id."""

    #: ``SMS_REPLY``, ``SMS_RECEIVED``, or any other name.
    type: str = "SMS_REPLY"
    message_id: str | int = field(default_factory=new_message_id)
    #: None: the one that belongs to the type.
    direction: str | None = None
    #: ``from`` and ``to`` of the payload.
    sender: str = "+61400000000"
    recipient: str = "+61700000000"
    #: The text; None leaves ``messageBody`` out, as with Include Message body off.
    body: str | None = "Thanks for your message"
    #: An aware datetime.
    occurred_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    account_id: str = "12345"

    def __post_init__(self) -> None:
        if self.occurred_at.tzinfo is None:
            raise ValueError("occurred_at: no time zone: give an aware datetime")

    def payload(self) -> dict[str, Any]:
        """Return the fields in the order of GoFax's example."""
        fields: dict[str, Any] = {
            "eventType": self.type,
            "eventTimestamp": written(self.occurred_at),
            "messageId": self.message_id,
            "direction": self.direction or DIRECTIONS.get(self.type, "inbound"),
            "from": self.sender,
            "to": self.recipient,
            "messageBody": self.body,
            "metadata": {"accountId": self.account_id},
            "signature": PLACEHOLDER,
        }
        if self.body is None:
            del fields["messageBody"]
        return fields

    def encode(self) -> bytes:
        """Return the raw body: JSON in UTF-8."""
        text = json.dumps(self.payload(), ensure_ascii=False)
        # UTF-8 has no lone surrogates; JSON has, and spells them as this error handler does.
        return text.encode("utf-8", "backslashreplace")


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """A legacy notification of what became of a sent SMS."""

    message_id: str = field(default_factory=lambda: str(10**7 + secrets.randbelow(9 * 10**7)))
    #: The customer's number; forms write it without its plus.
    recipient: str = "+61400000000"
    success: bool = True
    #: None: GoFax's own text for a success or a failure.
    message: str | None = None

    def encode(self) -> bytes:
        """Return the raw body: URL-encoded form data."""
        text = "Message successfully delivered" if self.success else UNDELIVERED
        fields = {
            "Recipient": self.recipient.removeprefix("+"),
            "ID": self.message_id,
            "Success": str(self.success),
            "Message": text if self.message is None else self.message,
        }
        return urlencode(fields).encode("ascii")
