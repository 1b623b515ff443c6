"""What became of refused requests that a person let in, as JSON."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.intake import Examined
from relay.shapes.times import iso


class AdmittedJson(TypedDict):
    """What became of a refused request that was looked at again."""

    id: str
    time: str
    endpoint: str
    outcome: str
    reason: str
    event_id: str | None


def admitted_json(examined: Examined, *, became: str, event_id: str | None) -> AdmittedJson:
    """Return what became of a request as ``requests admit --json`` prints it."""
    request = examined.request
    return {
        "id": request.id,
        "time": iso(request.at),
        "endpoint": examined.endpoint,
        "outcome": became or "refused",
        "reason": examined.reason,
        "event_id": event_id,
    }
