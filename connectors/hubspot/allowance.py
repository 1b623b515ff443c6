"""How many requests HubSpot still takes from us: counted one by one, as HubSpot counts them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from connectors.base import Throttled

#: Requests in ten seconds on Free and Starter, until an answer names the account's own limit.
REQUESTS, SECONDS = 100, 10.0
#: Searches in one second, of all apps of an account together.
SEARCHES = 5
#: Limits beyond these are no limits of HubSpot, and are not believed.
MOST_REQUESTS, MOST_SECONDS = 10_000, 60.0

#: Seconds between two looks while all that is allowed is under way.
UNDER_WAY = 0.05

_HEADER = "X-HubSpot-RateLimit-"


class Allowance:
    """The limits of one destination; safe to use from many threads."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._requests = _Window(REQUESTS, SECONDS)
        self._searches = _Window(SEARCHES, 1.0)

    @contextmanager
    def turn(self, *, search: bool, ends_at: float) -> Iterator[None]:
        """Wait until HubSpot takes another request, and count the one that is made inside.

        Searches have a limit of their own and do not count as requests. Raises
        :class:`Throttled` if the wait would last beyond the monotonic time *ends_at*.
        """
        window = self._searches if search else self._requests
        self._wait(window, "searches" if search else "requests", ends_at=ends_at)
        try:
            yield
        finally:
            with self._lock:
                window.end(self._clock())

    def _wait(self, window: _Window, what: str, *, ends_at: float) -> None:
        while True:
            with self._lock:
                now = self._clock()
                wait = window.wait(now)
                if wait <= 0:
                    window.begin()
                    return
            if now + wait >= ends_at:
                limit = f"{window.most} {what} in {window.seconds:g} s"
                raise Throttled(f"not sent: {limit}", retry_after=timedelta(seconds=wait))
            self._sleep(wait)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take over the account's limit, and count what other processes have sent.

        Searches come without these headers.
        """
        most, left = _number(headers, "Max"), _number(headers, "Remaining")
        seconds = (_number(headers, "Interval-Milliseconds") or SECONDS * 1000) / 1000
        if most is None or left is None or not 0 < most <= MOST_REQUESTS:
            return
        with self._lock:
            self._requests.most = most
            self._requests.seconds = min(max(seconds, 1.0), MOST_SECONDS)
            self._requests.fill_up(self._clock(), used=most - left)


class _Window:
    """Counts requests under way, and those that ended in the last seconds.

    HubSpot counts a request when it arrives, which is somewhere between our sending it and the
    answer: counted from the answer on, no window of HubSpot's can hold more than ours.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.most = most
        self.seconds = seconds
        self._under_way = 0
        self._ended: deque[float] = deque()

    def wait(self, now: float) -> float:
        """Return the seconds until there is room for one more, or until to ask again."""
        self._forget(now)
        excess = self._under_way + len(self._ended) - self.most
        if excess < 0:
            return 0.0
        if excess < len(self._ended):
            return self._ended[excess] + self.seconds - now
        return UNDER_WAY

    def begin(self) -> None:
        self._under_way += 1

    def end(self, now: float) -> None:
        self._under_way -= 1
        self._ended.append(now)

    def fill_up(self, now: float, *, used: int) -> None:
        """Count as much as is missing of *used*."""
        self._forget(now)
        missing = used - self._under_way - len(self._ended)
        self._ended.extend([now] * min(missing, self.most))

    def _forget(self, now: float) -> None:
        while self._ended and self._ended[0] <= now - self.seconds:
            self._ended.popleft()


def _number(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(_HEADER + name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
