"""The conformance suite of the connector ``teams``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from connectors.base import Unauthorized
from connectors.sandbox.teams import StandIn as Channel
from connectors.suites import page, served
from connectors.teams import Teams
from connectors.testing import ConnectorSuite, StandIn


class TestTeams(ConnectorSuite):
    """A Workflow in front of a channel."""

    connector = Teams
    # The address names the flow and nothing of the event.
    verdicts = {404: Unauthorized, 410: Unauthorized}
    exempt = {
        "C02": "a Workflow has no call without effect that could be asked",
        "C03": "a Workflow takes no key, and what it has posted cannot be read back",
        "C17": "a Workflow takes no key, and what it has posted cannot be read back",
    }

    def options(self, url: str) -> Mapping[str, Any]:
        return {"url": url}

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        # Its limit of 4/s is tried elsewhere: here a second passes with every request.
        seconds = itertools.count()
        with served("teams", lambda records: Channel(records, clock=lambda: next(seconds))) as it:
            yield it

    def docs(self) -> str:
        return page("teams")
