"""A clock that never goes back, for leases, waits and order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def wall() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)


class SteadyClock:
    """Follows the machine's clock forward, and runs on by itself after that was set back.

    A delivery that is due in a minute stays due in a minute, even if the machine's clock turns out
    to be an hour fast and is corrected. Safe to use from many threads.
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
        """Return the time: aware, UTC, never earlier than the time returned before."""
        with self._lock:
            moment = self._elapsed()
            going_on = self._last + timedelta(seconds=max(moment - self._at, 0.0))
            told = self._now()
            # Less than a second is the machine's clock being steered, not set back.
            steered = abs(told - going_on) < timedelta(seconds=1) and told >= self._last
            self._last = told if steered else max(told, going_on)
            self._at = moment
            return self._last
