"""One guarded loop for everything that repeats: an error is logged, and the loop goes on."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable

import structlog

log = structlog.get_logger()

#: A loop that fails so many times in a row cannot go on by itself.
FAULTY_AFTER = 3
#: Seconds that one round may take, unless it calls :meth:`Every.pause` in between.
LONGEST_ROUND = 60.0
#: Seconds to wait after an error, in addition: a loop that fails must not take the processor.
AFTER_ERROR = 1.0

_running: weakref.WeakSet[Every] = weakref.WeakSet()
_guard = threading.Lock()
# Threads do not survive a fork: the child has none of these loops.
os.register_at_fork(after_in_child=_running.clear)


class Every:
    """Calls *act* in a thread of its own, every *seconds* and whenever it is woken.

    With ``math.inf`` it only acts when woken. *first* is the wait before the first round; by
    default it is as long as the others. Whatever *act* raises is logged, and *act* is called
    again; *away* names the errors which say that the store is away, and these are no fault.
    """

    def __init__(
        self,
        name: str,
        seconds: float,
        act: Callable[[], object],
        *,
        first: float | None = None,
        away: type[Exception] | tuple[type[Exception], ...] = (),
        is_vital: bool = True,
    ) -> None:
        self.name = name
        #: Whether the process cannot do its work without it.
        self.is_vital = is_vital
        self._seconds = seconds
        self._act = act
        self._first = seconds if first is None else first
        self._away = away
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        #: Rounds that failed one after the other, and the last error.
        self._failures = 0
        self._error = ""
        #: When the current round began, or last made progress; None between rounds.
        self._busy_since: float | None = None

    def start(self) -> None:
        """Begin; a loop that runs or was closed stays as it is."""
        with self._lock:
            if self._thread is not None or self._stop.is_set():
                return
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            with _guard:
                _running.add(self)
            self._thread.start()

    def wake(self) -> None:
        """Act soon, without waiting for the time to come; starts a loop that does not run yet."""
        if not self._wake.is_set():
            self._wake.set()
        if self._thread is None:
            self.start()

    def pause(self, seconds: float) -> bool:
        """Wait within a round; return whether the loop is to stop."""
        self._busy_since = time.monotonic()
        return self._stop.wait(seconds)

    def close(self, seconds: float | None = None) -> bool:
        """Stop after the current round, and return whether that ended within *seconds*."""
        with self._lock:
            self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(seconds)
        with _guard:
            _running.discard(self)
        return self._thread is None or not self._thread.is_alive()

    @property
    def fault(self) -> str | None:
        """Say why this loop cannot go on; None while it can."""
        if self._thread is None or self._stop.is_set():
            return None
        if not self._thread.is_alive():
            return f"{self.name}: its thread has ended"
        if self._failures >= FAULTY_AFTER:
            return f"{self.name}: failed {self._failures} times in a row ({self._error})"
        busy_since = self._busy_since
        if busy_since is not None and time.monotonic() - busy_since > LONGEST_ROUND:
            return f"{self.name}: stuck for {time.monotonic() - busy_since:.0f} s"
        return None

    def _run(self) -> None:
        pause = self._first
        while not self._stop.is_set():
            # Python cannot wait for infinity.
            self._wake.wait(pause if math.isfinite(pause) else None)
            self._wake.clear()
            if self._stop.is_set():
                return
            pause = self._seconds
            if not self._go_round():
                self._stop.wait(AFTER_ERROR)
                # What it was woken for may still be undone.
                pause = self._seconds if math.isfinite(self._seconds) else 0.0

    def _go_round(self) -> bool:
        self._busy_since = time.monotonic()
        try:
            self._act()
        except self._away as error:
            log.warning("store.unavailable", loop=self.name, error=str(error))
        except Exception as error:
            self._note(error)
            return False
        finally:
            self._busy_since = None
        self._failures = 0
        return True

    def _note(self, error: Exception) -> None:
        """Log *error*: with its stack, unless the round before failed in the same way."""
        name = type(error).__name__
        known = self._failures > 0 and name == self._error
        self._failures, self._error = self._failures + 1, name
        log.error(
            "loop.failed",
            loop=self.name,
            failures=self._failures,
            error=name,
            exc_info=None if known else error,
        )


def faulty() -> list[Every]:
    """Return the loops of this process that cannot go on, by name."""
    with _guard:
        found = [each for each in _running if each.fault]
    return sorted(found, key=lambda each: each.name)
