"""Both ways into Teams pass the conformance suite, but for what Teams does not offer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from teams_channel import bot_options, opened

from connectors.base import Unauthorized
from connectors.teams import Teams
from connectors.testing import BROKEN, ConnectorSuite, Effect, StandIn

DOCS = Path(__file__).parents[2] / "docs" / "teams.md"
NO_KEY = "Teams takes no idempotency key and lets nothing be read back: the doubt is recorded"


class TeamsSuite(ConnectorSuite):
    connector = Teams
    exempt = {
        "C03_same_key_twice_has_one_effect": NO_KEY,
        "C03_lost_answers_have_one_effect": NO_KEY,
        "C17": NO_KEY,
    }
    #: The addresses name a flow or a channel and nothing of the event, so all events fail alike.
    verdicts = {404: Unauthorized, 410: Unauthorized}
    templates = {
        "title": {"title": BROKEN},
        "text": {"text": BROKEN},
        "facts.Plan": {"facts": {"Plan": BROKEN}},
    }

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        with opened() as channel:
            # Fifty threads would wait for seconds; the limits have tests of their own.
            channel.stand_in.limited = False

            def effects() -> Iterable[Effect]:
                found = channel.records.listing()
                return [Effect(kind=each["kind"], text=each["text"]) for each in found]

            yield StandIn(url=channel.url, effects=effects)

    def docs(self) -> str:
        return DOCS.read_text(encoding="utf-8")


class TestWorkflow(TeamsSuite):
    exempt = TeamsSuite.exempt | {
        "C02_check_tells_authorization_from_permission": "a Workflow has no harmless call to ask",
        "C02_check_tells_unreachable": "a Workflow has no harmless call to ask",
    }

    def options(self, url: str) -> Mapping[str, Any]:
        return {"url": f"{url}/workflows/1f/invoke?sp=%2Ft&sig=signature-of-a-flow"}


class TestWorkflowWithThreads(TeamsSuite):
    exempt = TestWorkflow.exempt

    def options(self, url: str) -> Mapping[str, Any]:
        return {"url": f"{url}/threads?sig=signature-of-a-flow", "send_conversation": True}


class TestBot(TeamsSuite):
    token_paths = ("/oauth2/",)

    def options(self, url: str) -> Mapping[str, Any]:
        return bot_options(url)


# The base is no suite of its own.
del TeamsSuite
