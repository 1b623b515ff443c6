"""A clock that is never put back, for leases, waits and the order of things."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def wall() -> datetime:
    """Return what the machine says that the time is."""
    return datetime.now(UTC)


class SteadyClock:
    """Follows the machine's clock forward, and goes on by itself while that was put back.

    A delivery that is due in a minute is due in a minute, also when the machine finds in between
    that it has been an hour ahead. Safe to use from many threads.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = wall,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._last = now()
        self._at = elapsed()

    def __call__(self) -> datetime:
        """Return the time: aware, UTC, never earlier than what was returned before."""
        with self._lock:
            moment = self._elapsed()
            going_on = self._last + timedelta(seconds=max(moment - self._at, 0.0))
            told = self._now()
            # Within a second it is the machine's clock that is steered, not put back.
            steered = abs(told - going_on) < timedelta(seconds=1) and told >= self._last
            self._last = told if steered else max(told, going_on)
            self._at = moment
            return self._last
