"""Limits on callers: how often they may call, and how many of their bodies are read at once.

No caller holds so many threads that others wait. The server has no time limit for a body: one that
arrives slowly holds its thread for as long as its sender likes. Which bodies will is known too
late, so they are counted while they are read.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from relay.rules.units import RateLimit

#: Threads that a caller may hold although few are left.
ALWAYS = 2
#: Calls that are remembered at the same time, of all callers together.
REMEMBERED = 100_000


class TooMany(Exception):
    """The caller holds as many threads as it may."""


class Callers:
    """Counts the bodies that are being read, by caller."""

    def __init__(self, *, threads: int) -> None:
        self._threads = threads
        self._held: Counter[str] = Counter()
        self._guard = threading.Lock()

    @contextmanager
    def reading(self, caller: str) -> Iterator[None]:
        """Count one body of *caller* while it is read; raises :class:`TooMany` at once instead."""
        with self._guard:
            most = share(self._threads, held=self._held.total(), callers=len(self._held))
            if self._held[caller] >= most:
                raise TooMany(f"{caller}: reads {self._held[caller]} bodies already")
            self._held[caller] += 1
        try:
            yield
        finally:
            with self._guard:
                self._held[caller] -= 1
                if not self._held[caller]:
                    del self._held[caller]


def share(threads: int, *, held: int, callers: int) -> int:
    """Return how many of *threads* one caller may hold, while *callers* hold so many.

    Half of them are divided among all; the last quarter is for those that hold next to none.
    """
    if held >= threads * 3 // 4:
        return ALWAYS
    return max(ALWAYS, threads // 2 // max(callers, 1))


class Rates:
    """Moving windows over requests, in memory: a restart forgives.

    The memory is bounded: where more calls matter than fit, who called longest ago is forgiven.
    """

    def __init__(
        self, *, room: int = REMEMBERED, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._room = room
        self._clock = clock
        self._guard = threading.Lock()
        #: When each called, the earliest first; who called last is last.
        self._times: dict[str, list[float]] = {}
        self._held = 0

    def over(self, limit: RateLimit, who: str) -> int:
        """Count one request of *who*; return the seconds to wait if it is one too many."""
        period = limit.period.total_seconds()
        with self._guard:
            now = self._clock()
            times = self._times.pop(who, [])
            self._times[who] = times
            gone = bisect_right(times, now - period)
            del times[:gone]
            self._held -= gone
            if len(times) >= limit.count:
                return max(1, math.ceil(times[0] + period - now))
            times.append(now)
            self._held += 1
            self._forgive()
        return 0

    def _forgive(self) -> None:
        while self._held > self._room and len(self._times) > 1:
            longest_ago = next(iter(self._times))
            self._held -= len(self._times.pop(longest_ago))
