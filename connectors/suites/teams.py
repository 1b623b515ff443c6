"""The conformance suites of the connector ``teams``: one for each way in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from connectors.base import Unauthorized
from connectors.sandbox.records import Records
from connectors.sandbox.teams import StandIn as Channel
from connectors.suites import page, served
from connectors.teams.connector import Teams
from connectors.testing import BROKEN, ConnectorSuite, StandIn

NO_KEY = "Teams takes no idempotency key and lets nothing be read back: the doubt is recorded"
NO_CALL = "a Workflow has no call without effect that could be asked"


class _Suite(ConnectorSuite):
    connector = Teams
    # Nothing can be read back, so the status decides.
    takes_any_2xx = True
    # Addresses name a flow or a channel and nothing of the event, so all events fail alike.
    verdicts = {404: Unauthorized, 410: Unauthorized}
    exempt = {
        "C03_same_key_twice_has_one_effect": NO_KEY,
        "C03_lost_answers_have_one_effect": NO_KEY,
        "C17": NO_KEY,
    }
    templates = {
        "title": {"title": BROKEN},
        "text": {"text": BROKEN},
        "facts.Plan": {"facts": {"Plan": BROKEN}},
    }

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        with served("teams", _unlimited) as stand_in:
            yield stand_in

    def docs(self) -> str:
        return page("teams")


class TestTeams:
    """A channel, reached in three ways."""

    class TestWorkflow(_Suite):
        exempt = _Suite.exempt | {"C02_check_tells": NO_CALL}

        def options(self, url: str) -> Mapping[str, Any]:
            return {"url": f"{url}/flow?sp=%2Ft&sig=signature-of-a-flow"}

    class TestWorkflowWithThreads(_Suite):
        exempt = _Suite.exempt | {"C02_check_tells": NO_CALL}

        def options(self, url: str) -> Mapping[str, Any]:
            return {"url": f"{url}/threads?sig=signature-of-a-flow", "send_conversation": True}

    class TestBot(_Suite):
        token_paths = ("/oauth2/",)

        def options(self, url: str) -> Mapping[str, Any]:
            return {
                "mode": "bot",
                "tenant_id": "3f3d1cea-0000-4000-8000-000000000001",
                "client_id": "3f3d1cea-0000-4000-8000-000000000002",
                "client_secret": "secret-of-the-suite",
                "channel": "19:frontdesk@thread.tacv2",
                "service_url": url,
                "login_url": url,
            }


def _unlimited(records: Records) -> Channel:
    """Return a channel without rate limits, which have tests of their own."""
    channel = Channel(records)
    channel.limited = False
    return channel
