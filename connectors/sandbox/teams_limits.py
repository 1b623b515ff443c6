"""Microsoft's limits: so many calls in so many seconds."""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Most bytes of a message, documented as 28 KB.
LARGEST = 28 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """So many calls in so many seconds."""

    calls: int
    seconds: int


class Meter:
    """Counts calls by subject; refused calls do not count."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=5000))

    def take(self, subject: str, limits: Sequence[Limit]) -> int:
        """Count a call and return 0, or return the whole seconds to wait before it."""
        with self._lock:
            calls, now = self._calls[subject], self._clock()
            waits = [
                calls[-limit.calls] + limit.seconds - now
                for limit in limits
                if len(calls) >= limit.calls
            ]
            wait = max(waits, default=0.0)
            if wait > 0:
                return math.ceil(wait)
            calls.append(now)
            return 0
