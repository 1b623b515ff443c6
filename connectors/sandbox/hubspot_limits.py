"""HubSpot's rate limits, and its answers above them."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from datetime import UTC, date, datetime, tzinfo

from connectors.sandbox.hubspot_rules import Problem
from connectors.sandbox.hubspot_settings import Settings


class TooMany(Problem):
    """A 429: it names the policy, and has an ``errorType`` instead of a ``category``."""

    def __init__(self, policy: str) -> None:
        message = f"You have reached your {policy.lower()} limit."
        super().__init__(429, "", message)
        del self.body["category"]
        self.body |= {"errorType": "RATE_LIMIT", "policyName": policy}
        self.body |= {"requestId": str(uuid.uuid4())}


class Limits:
    """Counts the requests of one account."""

    def __init__(
        self,
        settings: Settings,
        *,
        zone: tzinfo,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._zone = zone
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: deque[float] = deque()
        self._searches: deque[float] = deque()
        self._day: date | None = None
        self._today = 0

    def admit(self, *, search: bool) -> None:
        """Count a request, or raise :class:`TooMany`; searches have a limit of their own."""
        with self._lock:
            now, today = self._clock(), datetime.now(UTC).astimezone(self._zone).date()
            if today != self._day:
                self._day, self._today = today, 0
            daily = self.settings.daily
            if daily is not None and self._today >= daily:
                raise TooMany("DAILY")
            if search:
                _count(self._searches, now, 1.0, self.settings.searches_a_second, "SECONDLY")
            else:
                name = "TEN_SECONDLY_ROLLING"
                _count(self._calls, now, 10.0, self.settings.ten_secondly, name)
            self._today += 1

    def headers(self) -> dict[str, str]:
        """Return the rate headers of every answer, except those of searches."""
        said: dict[str, int] = {}
        with self._lock:
            most, daily = self.settings.ten_secondly, self.settings.daily
            if most is not None:
                said |= {"Max": most, "Remaining": max(0, most - len(self._calls))}
                said |= {"Interval-Milliseconds": 10_000}
            if daily is not None:
                said |= {"Daily": daily, "Daily-Remaining": max(0, daily - self._today)}
        return {f"X-HubSpot-RateLimit-{name}": str(value) for name, value in said.items()}


def _count(calls: deque[float], now: float, window: float, most: int | None, policy: str) -> None:
    while calls and calls[0] <= now - window:
        calls.popleft()
    if most is not None and len(calls) >= most:
        raise TooMany(policy)
    calls.append(now)
