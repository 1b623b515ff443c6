"""Settings of the stand-in of Zendesk, and its limits on requests and updates."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable

from pydantic import BaseModel, ConfigDict, Field

from connectors.sandbox.zendesk_rules import Refusal

Clock = Callable[[], float]


class Settings(BaseModel):
    """How the account behaves; ``PUT /zendesk/sandbox/settings`` changes what it names."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    #: Seconds until the search index knows of a new or changed user.
    search_lag: float = Field(default=0, ge=0, le=3600)
    #: Requests of the whole account in a minute, 200 to 2,500 by plan; None: no limit.
    requests_per_minute: int | None = Field(default=None, ge=1)
    #: Updates of one ticket in ten minutes; Zendesk takes 30.
    updates_per_ticket: int | None = Field(default=None, ge=1)
    #: Updates of all tickets in a minute; Zendesk takes 100, and 20 in trials and sandboxes.
    updates_per_minute: int | None = Field(default=None, ge=1)
    #: Updates of one user in a minute; Zendesk takes 5.
    updates_per_user: int | None = Field(default=None, ge=1)
    #: Whether a 429 about updates says in a header which of their limits was reached.
    limit_headers: bool = True
    #: Seconds that access tokens live; None: as long as the caller asks for.
    token_life: float | None = Field(default=None, gt=0)
    #: What the OAuth client may ask for, as in ``tickets:read users:read``; None: anything.
    allowed_scopes: str | None = None
    #: Whether users can have tags (Admin Center, People).
    user_tags: bool = True


class Window:
    """Counts what happened to each subject in the last *seconds*."""

    def __init__(self, seconds: float, *, clock: Clock = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._times: defaultdict[Hashable, deque[float]] = defaultdict(deque)

    def count(self, subject: Hashable, *, limit: int | None) -> int | None:
        """Count one more and return None, or return the seconds to wait if *limit* is reached."""
        now, times = self._clock(), self._times[subject]
        while times and times[0] <= now - self._seconds:
            times.popleft()
        if limit is not None and len(times) >= limit:
            return max(1, math.ceil(times[0] + self._seconds - now))
        times.append(now)
        return None

    def used(self, subject: Hashable) -> int:
        """Return how many were counted in the last window."""
        return len(self._times[subject])


class Limits:
    """The limits of one account, by its *settings*."""

    def __init__(self, settings: Settings, *, clock: Clock = time.monotonic) -> None:
        self._settings = settings
        self._requests = Window(60, clock=clock)
        self._updates = Window(60, clock=clock)
        self._tickets = Window(600, clock=clock)
        self._users = Window(60, clock=clock)

    def count_request(self) -> None:
        wait = self._requests.count(None, limit=self._settings.requests_per_minute)
        if wait is not None:
            raise Refusal(
                429,
                "APIRateLimitExceeded",
                "Number of allowed API requests per minute exceeded",
                headers={"Retry-After": str(wait)},
            )

    def count_ticket_update(self, number: int) -> None:
        self._count(
            self._updates, None, self._settings.updates_per_minute, "tickets-update", "all tickets"
        )
        self._count(
            self._tickets,
            number,
            self._settings.updates_per_ticket,
            "tickets-update",
            "this ticket",
        )

    def count_user_update(self, number: int) -> None:
        self._count(
            self._users, number, self._settings.updates_per_user, "create-update-user", "this user"
        )

    def _count(
        self, window: Window, subject: Hashable, limit: int | None, name: str, what: str
    ) -> None:
        wait = window.count(subject, limit=limit)
        if wait is None:
            return
        headers = {"Retry-After": str(wait)}
        if self._settings.limit_headers:
            told = f"total={limit}; remaining=0; resets={wait}"
            headers[f"Zendesk-RateLimit-{name}"] = told
        raise Refusal(429, "TooManyRequests", f"Too many updates of {what}", headers=headers)

    def headers(self) -> dict[str, str]:
        """Return the headers of every answer about the account's limit on requests."""
        limit = self._settings.requests_per_minute
        if limit is None:
            return {}
        left = str(max(0, limit - self._requests.used(None)))
        return {
            "X-Rate-Limit": str(limit),
            "X-Rate-Limit-Remaining": left,
            "ratelimit-limit": str(limit),
            "ratelimit-remaining": left,
        }
