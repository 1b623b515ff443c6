"""Whose bodies are being read: no caller holds so many threads that others wait.

The server has no time limit for a body: one that arrives slowly holds its thread for as long as
its sender likes. Which bodies will is known too late, so they are counted while they are read.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

#: Threads that a caller may hold although few are left.
ALWAYS = 2


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
