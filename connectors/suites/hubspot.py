"""The conformance suite of the connector ``hubspot``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from connectors.base import Refused, Transient, Unauthorized
from connectors.hubspot.connector import HubSpot
from connectors.sandbox.hubspot import StandIn as Account
from connectors.sandbox.hubspot_inbox import CHANNEL_ID, INBOX_ID
from connectors.sandbox.records import Records
from connectors.suites import page, served
from connectors.testing import BROKEN, ConnectorSuite, Effect, StandIn


class TestHubSpot(ConnectorSuite):
    """An account with timelines."""

    connector = HubSpot
    # A contact may disappear while its entry is made; then a later attempt finds another.
    verdicts: ClassVar[Mapping[int, Any]] = {404: (Refused, Transient)}
    templates: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "text": {"text": BROKEN},
        "contact.firstname": {"contact": {"firstname": BROKEN}},
        "contact.properties.company": {"contact": {"properties": {"company": BROKEN}}},
    }

    def options(self, url: str) -> Mapping[str, Any]:
        return {"base_url": url, "access_token": "pat-of-the-suite"}

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        with served("hubspot", Account, more=_contacts) as it:
            yield it

    def docs(self) -> str:
        return page("hubspot")


class TestHubSpotTickets(TestHubSpot):
    """An account where every conversation has a ticket, and every owner tasks."""

    templates: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "ticket.subject": {"ticket": {"subject": BROKEN}},
        "ticket.properties.category": {"ticket": {"properties": {"category": BROKEN}}},
        "task.subject": {"task": {"subject": BROKEN}},
        "task.properties.hs_task_priority": {"task": {"properties": {"hs_task_priority": BROKEN}}},
    }

    def options(self, url: str) -> Mapping[str, Any]:
        return {
            **super().options(url),
            "ticket": {"when_closed": "new"},
            "task": {},
            "opt_out_property": "sms_opted_out",
        }


class TestHubSpotInbox(TestHubSpot):
    """An account where the messages of an OAuth app come into the conversations inbox."""

    token_paths = ("/oauth/",)
    # A channel that is not there is a fault of the configuration.
    verdicts: ClassVar[Mapping[int, Any]] = {404: (Refused, Transient, Unauthorized)}
    templates: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def options(self, url: str) -> Mapping[str, Any]:
        return {
            "base_url": url,
            "client_id": "app-of-the-suite",
            "client_secret": "client-secret-of-the-suite",
            "refresh_token": "refresh-token-of-the-suite",
            "inbox": {"channel_id": CHANNEL_ID},
        }

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        with served("hubspot", _connected, more=_contacts) as it:
            yield it


def _connected(records: Records) -> Account:
    """Make an account whose inbox has the numbers of the suite's events."""
    account = Account(records)
    for number in ("+61700000000", "+61700000001"):
        identifier = {"type": "HS_PHONE_NUMBER", "value": number}
        asked = {"authorized": True, "inboxId": INBOX_ID, "name": number}
        account.inbox.connect(CHANNEL_ID, asked | {"deliveryIdentifier": identifier})
    return account


def _contacts(account: Account) -> list[Effect]:
    return [Effect("contact", timeline.phone) for timeline in account.page()]
