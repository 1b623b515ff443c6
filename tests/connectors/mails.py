"""Email connectors for a server on this machine, and what they are to deliver."""

from __future__ import annotations

from typing import Any

from connectors.base import Event, Receipt
from connectors.email.connector import Email, EmailOptions
from connectors.http import Http
from connectors.testing import sample_event

PASSWORD = "a pass-phrase, of some length"
KEY = "5" * 40
OAUTH = {"token_url": "https://example.com/token", "client_id": "relay", "client_secret": PASSWORD}
ADDRESSES = {"from": "SMS <sms@example.com>", "to": ["Desk <desk@example.com>"]}


def options(**given: Any) -> EmailOptions:
    plain = {"host": "127.0.0.1", "port": 25, "security": "none"}
    return EmailOptions.model_validate(plain | ADDRESSES | given)


def connector(port: int, *, allow: tuple[str, ...] = ("127.0.0.0/8",), **given: Any) -> Email:
    return Email(options(port=port, **given), http=Http(allow=allow))


def deliver(
    email: Email,
    event: Event | None = None,
    *,
    key: str = KEY,
    thread: str | None = None,
    repeat: bool = False,
    deadline: float = 10,
) -> Receipt:
    return email.deliver(
        event or sample_event(), key=key, thread=thread, repeat=repeat, deadline=deadline
    )
