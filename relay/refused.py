"""Notes refused requests after they were answered, and never at the cost of accepted ones."""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence

import structlog

from relay.every import Every
from relay.store import StoreUnavailable
from relay.store.values import Request

log = structlog.get_logger()

#: How many refused requests one write keeps; in a flood the rest is only counted.
KEPT_PER_WRITE = 100
#: Seconds between two writes: what bounds the work that a flood can cause.
PAUSE = 0.25


class Refusals:
    """Gathers refused requests and hands samples of them to *keep* from a thread of its own."""

    def __init__(self, keep: Callable[[Sequence[Request]], None]) -> None:
        self._keep = keep
        self._waiting: deque[Request] = deque(maxlen=KEPT_PER_WRITE)
        #: By status: reasons repeat what strangers write.
        self._dropped: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._loop = Every("refusals", math.inf, self._write_and_rest)

    def note(self, request: Request) -> None:
        """Have *request* written soon; in a flood perhaps not at all, only counted."""
        with self._lock:
            if len(self._waiting) == KEPT_PER_WRITE:
                self._dropped[request.status] += 1
            else:
                self._waiting.append(request)
        self._loop.wake()

    def close(self) -> None:
        """Write what is waiting, then stop."""
        self._loop.close()
        self._write()

    def _write_and_rest(self) -> None:
        self._write()
        self._loop.pause(PAUSE)

    def _write(self) -> None:
        with self._lock:
            requests = list(self._waiting)
            self._waiting.clear()
            dropped, self._dropped = self._dropped, Counter()
        if dropped:
            statuses = {str(status): count for status, count in dropped.items()}
            log.warning("requests.not_kept", count=dropped.total(), statuses=statuses)
        if not requests:
            return
        try:
            self._keep(requests)
        except StoreUnavailable as error:
            log.warning("requests.not_kept", count=len(requests), error=str(error))
