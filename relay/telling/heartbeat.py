"""The dead man's switch: somebody else's service that misses our calls, and says so."""

from __future__ import annotations

from connectors.base import DeliveryError
from connectors.http import Http
from relay.config.model import Config

#: Seconds that a call may take.
DEADLINE = 10.0


def call(config: Config) -> str:
    """Call the heartbeat's URL; return why that failed, without the URL, or nothing."""
    if config.heartbeat is None:
        return ""
    http = Http(allow=config.outbound.allow)
    try:
        with http.within(DEADLINE), http.session(pool_size=1) as session:
            answer = session.get(config.heartbeat.get_secret_value())
    except DeliveryError as error:
        return str(error)
    return "" if answer.ok else f"answered {answer.status_code}"
