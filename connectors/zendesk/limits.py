"""Which limit of Zendesk's was reached: a ticket's, a profile's, or the account's?

Beside all requests of an account in a minute, Zendesk counts updates: 30 of one ticket in ten
minutes, 100 of all tickets in a minute, 5 of one profile in a minute, one of all profiles in a
second. The reference names a header for each pair, such as ``Zendesk-RateLimit-tickets-update:
total=100; remaining=0; resets=9`` (developer.zendesk.com, "Update Ticket", November 2026); which
limit of the pair it shows is not documented. Where no header helps, two tickets that are refused
within a minute mean the account's limit.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Literal

import requests

from connectors.http import retry_after

Scope = Literal["conversation", "destination"]

#: Seconds in which the account's limits are counted.
MINUTE = 60.0
#: Updates that one ticket or one profile takes, by the header that tells of them.
OWN_LIMITS = {"Zendesk-RateLimit-tickets-update": 30, "Zendesk-RateLimit-create-update-user": 5}

_TOLD = re.compile(r"\s*total=(\d+);\s*remaining=(\d+)")
_UPDATED = re.compile(r"/api/v2/((?:tickets|users)/\d+)")


class UpdateLimits:
    """Tells the limits of an account apart; one for all threads of a destination."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: Tickets and profiles that were refused in the last minute, and when.
        self._refused: dict[str, float] = {}

    def scope(self, response: requests.Response) -> Scope:
        """Say what has to wait after *response*, which is a 429."""
        headers = response.headers
        if "0" in (headers.get("X-Rate-Limit-Remaining"), headers.get("ratelimit-remaining")):
            return "destination"
        for name, own in OWN_LIMITS.items():
            told = _TOLD.match(headers.get(name, ""))
            if told is not None:
                total, remaining = map(int, told.groups())
                # With some of it left, it is the other limit of the pair that was reached.
                return "conversation" if (total == own) == (remaining == 0) else "destination"
        updated = _UPDATED.search(response.request.url or "")
        if response.request.method not in ("PUT", "DELETE") or updated is None:
            return "destination"
        wait = retry_after(headers)
        if wait is not None and wait.total_seconds() > MINUTE:
            return "conversation"
        return "destination" if self._is_in_company(updated[1]) else "conversation"

    def _is_in_company(self, resource: str) -> bool:
        """Note that *resource* was refused, and say whether another was in the last minute."""
        with self._lock:
            now = self._clock()
            self._refused = {
                each: at for each, at in self._refused.items() if now - at < MINUTE
            } | {resource: now}
            return len(self._refused) > 1
