"""Microsoft Teams: a card per event, through a Workflow or by a bot that keeps threads."""

from __future__ import annotations

from connectors.base import Connector, Event, Receipt
from connectors.http import Http
from connectors.teams.bot import Bot
from connectors.teams.options import TeamsOptions
from connectors.teams.workflow import Workflow

#: Seconds that a check may take.
CHECK = 20.0


class Teams(Connector[TeamsOptions]):
    """Posts a card per event into one channel; see docs/teams.md."""

    Options = TeamsOptions
    #: What Teams documents for Workflows; bots may post 60 in 30 seconds. It answers 429 above.
    default_rate = "4/1s"
    default_concurrency = 4

    def __init__(self, options: TeamsOptions, *, http: Http) -> None:
        super().__init__(options, http=http)
        self._poster: Workflow | Bot = (Bot if options.mode == "bot" else Workflow)(options, http)

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        with self.http.within(deadline):
            return self._poster.post(event, thread=thread, repeat=repeat)

    def check(self) -> str:
        with self.http.within(CHECK):
            return self._poster.check()

    def close(self) -> None:
        self._poster.close()
