"""The conformance suite of the connector ``zendesk``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from connectors.base import Transient
from connectors.sandbox.zendesk import StandIn as Account
from connectors.suites import page, served
from connectors.testing import BROKEN, ConnectorSuite, Effect, StandIn
from connectors.zendesk.connector import Zendesk


class TestZendesk(ConnectorSuite):
    """An account with tickets."""

    connector = Zendesk
    # Zendesk says 409 of writes that met each other.
    verdicts = {409: Transient}
    token_paths = ("/oauth/",)
    templates = {
        "subject": {"subject": BROKEN},
        "comment": {"comment": BROKEN},
        "custom_fields.7": {"custom_fields": {7: BROKEN}},
    }

    def options(self, url: str) -> Mapping[str, Any]:
        sign_in = {"client_id": "relay", "client_secret": "secret-of-the-suite"}
        return {"subdomain": "acme", "base_url": url, **sign_in}

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        with served("zendesk", Account, more=_users) as it:
            yield it

    def docs(self) -> str:
        return page("zendesk")


def _users(account: Account) -> list[Effect]:
    return [Effect("user", str(user["name"])) for user in account.users()]
