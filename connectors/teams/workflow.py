"""A Workflow (Power Automate) that posts cards into a Teams channel.

The trigger answers 202 once a run is queued, without an id and with no way to read back: only the
flow's run history shows what became of the card. A custom flow may answer after it has posted, and
name the thread.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import pymsteams
import requests

from connectors.base import DeliveryError, Event, Receipt, Unauthorized
from connectors.http import Http, Session, error_for, json_object, with_body
from connectors.teams import cards
from connectors.teams.bot import error_code
from connectors.teams.options import TeamsOptions

#: Hosts that Microsoft has switched off, or announced to.
RETIRED_HOSTS = {
    "office.com": "Office 365 connectors were switched off in May 2026",
    "logic.azure.com": "addresses of this form were announced to stop on 2025-11-30",
}
#: Ends of hosts in Microsoft's clouds for the government of the USA.
GOVERNMENT = (".azure.us", ".microsoft.us", ".powerplatform.us")
RUN_HISTORY = "the flow's run history in Power Automate may say more"
#: Codes of a deleted or disabled Workflow; they come with status 400.
SWITCHED_OFF = ("WorkflowTriggerIsNotEnabled", "WorkflowNotFound")
GONE = (404, 410)
#: What old connectors wrote into the body of a 200; it counts because Microsoft documents it.
WRITTEN_STATUS = re.compile(rb"HTTP error ([345]\d\d)", re.IGNORECASE)
_THREAD = re.compile(r"[!-~]{1,500}")


class Workflow:
    """Posts to the webhook of one Workflow; safe to use from many threads."""

    def __init__(self, options: TeamsOptions, http: Http) -> None:
        assert options.url is not None
        self._options = options
        self._url = options.url.get_secret_value()
        self._session = http.session()

    def post(self, event: Event, *, thread: str | None, repeat: bool) -> Receipt:
        """Hand a card for *event* to the flow. Raises :class:`DeliveryError`."""
        options = self._options
        confirms = options.answers == "posted"
        # A flow that answers by itself may have posted before it failed.
        acts = confirms or options.send_conversation
        post = _Post(self._empty, session=self._session, acts_first=acts)
        post.payload = self.message(event, thread=thread, repeat=repeat)
        post.send()
        response = post.last_http_response
        status = response.status_code
        # A 202 is the trigger's own answer: the flow has not come to its end, or has no answer.
        posted = confirms and status != requests.codes.accepted
        return Receipt(
            reference=f"posted ({status})" if posted else f"accepted ({status}), not confirmed",
            thread=_thread(response) if options.send_conversation else None,
        )

    def message(
        self, event: Event, *, thread: str | None = None, repeat: bool = False
    ) -> dict[str, Any]:
        """Return what the flow is posted. Raises :class:`Refused`."""
        options = self._options
        if not options.send_conversation:
            return cards.message(event, options=options, shape=options.shape, repeat=repeat)
        conversation = {
            "id": event.conversation,
            "customer": event.customer,
            "ours": event.ours,
            "thread": thread,
        }
        return cards.message(
            event,
            options=options,
            repeat=repeat,
            in_thread=thread is not None,
            beside={"conversation": conversation},
        )

    @cached_property
    def _empty(self) -> requests.PreparedRequest:
        """The part of a request that is the same for all."""
        headers = {"Content-Type": "application/json"}
        request = self._session.prepare_request(
            requests.Request("POST", self._url, headers=headers)
        )
        # Preparing normalises the address, but the address is signed.
        request.url = self._url
        return request

    def check(self) -> str:
        """Check the address alone, because every call of a Workflow has an effect."""
        host = urlsplit(self._url).hostname or ""
        asked = f"{host}: nothing was posted, for a Workflow has no harmless call"
        warnings = [
            f"warning: {why}; create a Workflow and use its address"
            for retired, why in RETIRED_HOSTS.items()
            if host == retired or host.endswith(f".{retired}")
        ]
        if host.endswith(GOVERNMENT) and self._options.posts_as == "flow_bot":
            warnings.append(
                "warning: government clouds have no Flow bot; let the flow post as a user"
            )
        return "; ".join([asked, *warnings, "send a test event and look in Teams"])

    def close(self) -> None:
        self._session.close()


class _Post(pymsteams.connectorcard):  # type: ignore[misc]  # pymsteams has no annotations
    """A pymsteams card that goes out through the guarded session, byte for byte."""

    last_http_response: requests.Response

    def __init__(
        self, empty: requests.PreparedRequest, *, session: Session, acts_first: bool
    ) -> None:
        """*empty*: the request without its body."""
        super().__init__(empty.url)
        self._empty, self._session = empty, session
        self._acts_first = acts_first

    def send(self) -> bool:
        request = with_body(self._empty, cards.encode(self.payload))
        self.last_http_response = self._session.send(request)
        if error := _error(self.last_http_response, acts_first=self._acts_first):
            raise error
        return True

    def printme(self) -> None:
        """Print nothing: the original prints the address, which is the secret."""


def _thread(response: requests.Response) -> str | None:
    """Return the thread that the flow names in its answer."""
    named = (json_object(response) or {}).get("thread")
    return named if isinstance(named, str) and _THREAD.fullmatch(named) else None


def _error(response: requests.Response, *, acts_first: bool) -> DeliveryError | None:
    """Read the answer as Teams means it; None if the card is accepted."""
    status = _status(response)
    if status // 100 == 2:
        return None
    code = error_code(response)
    if status in GONE or (status >= 400 and code in SWITCHED_OFF):
        # The address names the flow and nothing of the event: it fails for every event alike,
        # so pausing keeps them all until a person has mended it.
        said = f"answered {status}: the flow is gone or switched off, or its address changed"
        return Unauthorized(said, status=status)
    detail = "; ".join(filter(None, [code, RUN_HISTORY if status == 400 else ""]))
    safe = status == 503 or (status // 100 == 5 and not acts_first)
    return error_for(status, headers=response.headers, detail=detail, safe=safe)


def _status(response: requests.Response) -> int:
    """Return the status, or the one that old connectors wrote into the body of a 200."""
    if response.status_code // 100 != 2:
        return response.status_code
    written = WRITTEN_STATUS.search(response.content)
    return int(written[1]) if written else response.status_code
