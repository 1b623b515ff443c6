"""The conformance suite of the connector ``hubspot``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from connectors.base import Refused, Transient
from connectors.hubspot import HubSpot
from connectors.sandbox.hubspot import StandIn as Account
from connectors.suites import page, served
from connectors.testing import ConnectorSuite, Effect, StandIn


class TestHubSpot(ConnectorSuite):
    """An account with timelines."""

    connector = HubSpot
    # A contact may disappear while its entry is made; then a later attempt finds another.
    verdicts = {404: (Refused, Transient)}

    def options(self, url: str) -> Mapping[str, Any]:
        return {"base_url": url, "access_token": "pat-of-the-suite"}

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        with served("hubspot", Account, more=_contacts) as it:
            yield it

    def docs(self) -> str:
        return page("hubspot")


def _contacts(account: Account) -> list[Effect]:
    return [Effect("contact", timeline.phone) for timeline in account.page()]
