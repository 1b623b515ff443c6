"""The conformance suite of the connector ``webhook``."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from connectors.base import Unauthorized
from connectors.sandbox.webhook import StandIn as Receiver
from connectors.suites import page, served
from connectors.testing import BROKEN, ConnectorSuite, StandIn
from connectors.webhook import Webhook

KEY = bytes(range(32))


class TestWebhook(ConnectorSuite):
    """A receiver that checks signatures and takes each id once, as the standard asks."""

    connector = Webhook
    # The address names the receiver and nothing of the event.
    verdicts = {404: Unauthorized, 410: Unauthorized}
    takes_any_2xx = True
    templates = {"body": {"body": BROKEN}}
    exempt = {"C02": "a webhook has no call without effect that could be asked"}

    def options(self, url: str) -> Mapping[str, Any]:
        secret = f"whsec_{base64.b64encode(KEY).decode()}"
        return {
            "url": url,
            "secrets": [secret],
            "headers": {"Authorization": "Bearer of-the-suite"},
        }

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        with served("webhook", lambda records: Receiver(records, secret=KEY)) as it:
            yield it

    def docs(self) -> str:
        return page("webhook")
