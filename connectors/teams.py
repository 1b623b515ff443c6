"""Microsoft Teams: a card per event, posted to the webhook of a Workflow.

A Workflow answers 202 when it has queued a run, gives no id, and lets nothing be read back: what
became of the card stands in the flow's run history only.
"""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import pymsteams
import requests
from pydantic import Field, SecretStr, field_validator

from connectors import cards
from connectors.base import (
    Ambiguous,
    Connector,
    DeliveryError,
    Event,
    Options,
    Receipt,
    Unauthorized,
)
from connectors.http import Http, Session, error_for

#: Hosts whose addresses Microsoft has switched off, or said that it would.
RETIRED_HOSTS = {
    "office.com": "Office 365 connectors were switched off in May 2026",
    "logic.azure.com": "addresses of this form were announced to stop on 2025-11-30",
}
RUN_HISTORY = "the flow's run history in Power Automate may say more"
#: What a Workflow says when it was deleted or turned off; the status with it is 400.
SWITCHED_OFF = ("WorkflowTriggerIsNotEnabled", "WorkflowNotFound")
GONE = (404, 410)
WRITTEN_STATUS = re.compile(rb"HTTP error (\d{3})", re.IGNORECASE)


class TeamsOptions(Options):
    """What a destination of connector ``teams`` may say."""

    url: SecretStr = Field(
        description="The Workflow's webhook address, whole and unchanged: it is the credential."
    )
    shape: cards.Shape = Field(
        default="envelope",
        description="`envelope` for the templates of Workflows; `card` for flows that want "
        "the bare Adaptive Card.",
    )

    @field_validator("url")
    @classmethod
    def _usable(cls, url: SecretStr) -> SecretStr:
        if fault := _fault(url.get_secret_value()):
            raise ValueError(fault)
        return url


class Teams(Connector[TeamsOptions]):
    """Posts a card per event to one Workflow; see docs/teams.md."""

    Options = TeamsOptions
    #: What Teams documents; it answers 429 above.
    default_rate = "4/1s"
    default_concurrency = 4

    def __init__(self, options: TeamsOptions, *, http: Http) -> None:
        super().__init__(options, http=http)
        self._session = http.session()

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        post = _Post(self.options.url.get_secret_value(), session=self._session)
        post.payload = cards.message(event, shape=self.options.shape, repeat=repeat)

        with self.http.within(deadline):
            post.send()

        status = post.last_http_response.status_code
        return Receipt(reference=f"accepted ({status}), not confirmed")

    def check(self) -> str:
        host = urlsplit(self.options.url.get_secret_value()).hostname or ""
        asked = f"{host}: nothing was posted, for a Workflow has no harmless call"
        warnings = [
            f"warning: {why}; create a Workflow and use its address"
            for retired, why in RETIRED_HOSTS.items()
            if host == retired or host.endswith(f".{retired}")
        ]
        return "; ".join([asked, *warnings, "send a test event and look in Teams"])

    def close(self) -> None:
        self._session.close()


class _Post(pymsteams.connectorcard):  # type: ignore[misc]  # pymsteams has no annotations
    """A pymsteams card that goes out through the guarded session, byte for byte."""

    last_http_response: requests.Response

    def __init__(self, url: str, *, session: Session) -> None:
        super().__init__(url)
        self._session = session

    def send(self) -> bool:
        request = self._session.prepare_request(
            requests.Request(
                "POST",
                self.hookurl,
                data=cards.encode(self.payload),
                headers={"Content-Type": "application/json"},
            )
        )
        # Preparing normalises the address, but the address is signed.
        request.url = self.hookurl
        self.last_http_response = self._session.send(request)
        if error := _error(self.last_http_response):
            raise error
        return True

    def printme(self) -> None:
        """Print nothing: the original prints the address, which is the secret."""


def _fault(url: str) -> str | None:
    """Say what keeps *url* from being used, without repeating it."""
    if not re.fullmatch(r"[!-~]+", url):
        return "contains spaces, control characters or letters outside ASCII; copy it again"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        return "must be the http(s) address of a Workflow's webhook"
    if "@" in parts.netloc:
        return "must not contain a user name: Workflows refuse an Authorization header"
    return None


def _error(response: requests.Response) -> DeliveryError | None:
    """Read the answer as Teams means it; None if the card was accepted."""
    status, code = _status(response), _code(response)
    if status in GONE or code in SWITCHED_OFF:
        # The address names the flow and nothing of the event: it fails for every event alike,
        # so pausing keeps them all until a person has mended it.
        said = f"answered {status}: the flow is gone or switched off, or its address changed"
        return Unauthorized(said, status=status)
    detail = "; ".join(filter(None, [code, RUN_HISTORY if status == 400 else ""]))
    error = error_for(status, headers=response.headers, detail=detail, safe=True)
    if error is None and not _is_acceptance(response):
        said = f"answered {status} with something that no Workflow says; {RUN_HISTORY}"
        return Ambiguous(said, status=status)
    return error


def _status(response: requests.Response) -> int:
    """Return the status, or the one that old connectors wrote into the body of a 200."""
    if response.status_code >= 300:
        return response.status_code
    written = WRITTEN_STATUS.search(response.content)
    return int(written[1]) if written else response.status_code


def _is_acceptance(response: requests.Response) -> bool:
    body = response.content.strip()
    if body in (b"", b"1"):
        return True
    answer = _json_object(response)
    return answer is not None and "error" not in answer


def _code(response: requests.Response) -> str:
    """Name the vendor's error code, if any; the message beside it may quote the address."""
    answer = _json_object(response) or {}
    inner = answer.get("error")
    code = (inner if isinstance(inner, dict) else answer).get("code")
    return code if isinstance(code, str) and re.fullmatch(r"[A-Za-z0-9]{1,60}", code) else ""


def _json_object(response: requests.Response) -> dict[str, object] | None:
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
