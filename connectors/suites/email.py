"""The conformance suite of the connector ``email``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import EmailMessage
from functools import lru_cache
from typing import Any

from connectors.email.connector import Email
from connectors.suites import page
from connectors.suites.mailbox import Mailbox
from connectors.testing import BROKEN, ConnectorSuite, Effect, StandIn


class TestEmail(ConnectorSuite):
    """A mailbox behind an SMTP server on this machine, without TLS."""

    connector = Email
    over_http = False
    templates = {"subject": {"subject": BROKEN}, "body": {"body": BROKEN}}

    def options(self, url: str) -> Mapping[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": int(url),
            "security": "none",
            "username": "relay",
            "password": "password-of-the-suite",
            "from": "SMS <sms@example.com>",
            "to": ["desk@example.com"],
        }

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        login = ("relay", "password-of-the-suite")
        with Mailbox(login=login) as mailbox:
            yield StandIn(url=str(mailbox.port), effects=lambda: _effects(mailbox))

    def docs(self) -> str:
        return page("email")


def _effects(mailbox: Mailbox) -> list[Effect]:
    return [_effect(each) for each in mailbox.messages]


@lru_cache(maxsize=4096)
def _effect(message: EmailMessage) -> Effect:
    return Effect("message", f"{message['Subject']}\n{message.get_content()}")
