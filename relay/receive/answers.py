"""What a request is answered: its event is on disk, it was a probe, or it is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Response

from relay.callers import Rates
from relay.rules import addresses
from relay.rules.told import TOLD
from relay.rules.units import RateLimit


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The answer to a request that the store took: its event is on disk."""

    #: The standing of the event: accepted, duplicate, conflict or stale.
    outcome: str
    event_id: str
    message_id: str | None
    status: int = 200

    @property
    def logged(self) -> dict[str, str | None]:
        return {"event_id": self.event_id, "message_id": self.message_id}

    def response(self, *, close: bool) -> Response:
        return _json(200, {"status": self.outcome, "messageId": self.message_id})


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """The answer to a probe: an event could be written now, and none was."""

    request_id: str
    outcome: str = "probe"
    status: int = 200

    @property
    def logged(self) -> dict[str, str]:
        return {}

    def response(self, *, close: bool) -> Response:
        return _json(200, {"status": self.outcome, "request": self.request_id})


class Refusal(Exception):
    """The answer to a request that is not accepted; *reason* is for the request log alone."""

    outcome = "refused"

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        headers: Mapping[str, str] | None = None,
        is_early: bool = False,
    ) -> None:
        """*is_early*: who calls is refused, whatever it brings: nothing of that is looked at."""
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}
        self.is_early = is_early

    @property
    def logged(self) -> dict[str, str]:
        return {"reason": self.reason}

    def response(self, *, close: bool) -> Response:
        """Return it for the caller; *close*: the rest of the body is not worth waiting for."""
        answer = _json(self.status, {"error": TOLD[self.status]})
        answer.headers.update(self.headers)
        if close:
            answer.headers["Connection"] = "close"
        return answer


def too_often(
    rates: Rates, limit: RateLimit | None, remote: str, *, kind: str = ""
) -> Refusal | None:
    """Count a request of *remote*; return a refusal if it is one too many."""
    who = f"address {addresses.holder(remote)}"
    wait = rates.over(limit, kind + who) if limit else 0
    if not wait:
        return None
    retry = {"Retry-After": str(wait)}
    return Refusal(429, f"{who}: more than {limit}", headers=retry, is_early=True)


def _json(status: int, answer: dict[str, Any]) -> Response:
    return Response(json.dumps(answer) + "\n", status, content_type="application/json")
