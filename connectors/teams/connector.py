"""Microsoft Teams: a card per event, through a Workflow or by a bot that keeps threads."""

from __future__ import annotations

from urllib.parse import urlsplit

from connectors.base import Connector, Disclosure, Event, Preview, Receipt
from connectors.http import Http
from connectors.teams.bot import Bot
from connectors.teams.options import TeamsOptions
from connectors.teams.workflow import Workflow
from connectors.templates import given_away

#: Seconds that a check may take.
CHECK = 20.0


class Teams(Connector[TeamsOptions]):
    """Posts a card per event into one channel; see docs/teams.md."""

    Options = TeamsOptions
    #: Microsoft's limit for the Flow bot on one connection. Cards above it are lost, although the
    #: trigger answers 202.
    default_rate = "25/5m"
    default_burst = 5
    default_concurrency = 4

    @classmethod
    def rate_for(cls, options: TeamsOptions) -> str:
        """Return Microsoft's limit for this kind of sender."""
        if options.mode == "bot":
            return "60/30s"
        return "300/5m" if options.posts_as == "user" else cls.default_rate

    def __init__(self, options: TeamsOptions, *, http: Http) -> None:
        super().__init__(options, http=http)
        self._poster: Workflow | Bot = (Bot if options.mode == "bot" else Workflow)(options, http)

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        with self.http.within(deadline):
            return self._poster.post(event, thread=thread, repeat=repeat)

    @classmethod
    def discloses(cls, options: TeamsOptions) -> Disclosure:
        url = options.url.get_secret_value() if options.url else options.service_url
        host = urlsplit(url).hostname or ""
        what = given_away(options.title, options.text, *options.facts.values())
        return Disclosure(to=(host,), what=what)

    def preview(self, event: Event, *, key: str) -> list[Preview]:
        return [Preview(kind="card", content=self._poster.message(event))]

    def check(self) -> str:
        with self.http.within(CHECK):
            return self._poster.check()

    def close(self) -> None:
        self._poster.close()
