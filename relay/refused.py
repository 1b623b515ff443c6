"""Notes refused requests after they were answered, and never at the cost of accepted ones.

In a flood, store and log get samples of them, and counts of the others. Those that carry a
signature may be genuine: they wait while the store is away, in bounded memory.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

import structlog

from relay.every import Every
from relay.rules import addresses
from relay.store import StoreUnavailable
from relay.store.values import Request

log = structlog.get_logger()

#: How many refused requests one write keeps; in a flood the rest is only counted.
KEPT_PER_WRITE = 100
#: Seconds between two writes: what bounds the work that a flood can cause.
PAUSE = 0.25
#: Seconds between two tries while the store is away, and bytes of those that wait for it.
AGAIN, SIGNED_ROOM = 1.0, 16 << 20
#: Log lines of a second for one address and status, and for all.
LOGGED_EACH, LOGGED_TOGETHER = 5, 100
#: Addresses that the count of the others names.
NAMED = 10


class Refusals:
    """Gathers refused requests and hands samples of them to *keep* from a thread of its own."""

    def __init__(self, keep: Callable[[Sequence[Request]], None]) -> None:
        self._keep = keep
        self._waiting: deque[Request] = deque(maxlen=KEPT_PER_WRITE)
        self._signed = Signed()
        #: By status: reasons repeat what strangers write.
        self._dropped: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._sample = Sample()
        self._loop = Every("refusals", math.inf, self._write_and_rest)

    def note(self, request: Request) -> None:
        """Have *request* written soon; in a flood perhaps not at all, only counted."""
        with self._lock:
            if request.signed:
                self._dropped.update(each.status for each in self._signed.add(request))
            elif len(self._waiting) == KEPT_PER_WRITE:
                self._dropped[request.status] += 1
            else:
                self._waiting.append(request)
        self._loop.wake()

    def is_logged(self, request: Request) -> bool:
        """Return whether *request* gets a log line of its own; a flood is counted."""
        with self._lock:
            taken = self._sample.takes(request.remote or "", request.status, time.monotonic())
        if not taken:
            self._loop.wake()
        return taken

    def close(self) -> None:
        """Write what is waiting, then stop."""
        self._loop.close()
        self._write()
        self._report(math.inf)

    def _write_and_rest(self) -> None:
        is_away = not self._write()
        self._loop.pause(AGAIN if is_away else PAUSE)
        if self._report(time.monotonic()) or is_away:
            self._loop.wake()

    def _report(self, now: float) -> bool:
        """Log the count of what was not logged, once a second; return whether more is to come."""
        with self._lock:
            left_out = self._sample.left_out(now)
            is_more = self._sample.is_more
        if left_out:
            statuses: Counter[str] = Counter()
            addresses: Counter[str] = Counter()
            for (address, status), count in left_out.items():
                statuses[str(status)] += count
                addresses[address] += count
            log.warning(
                "requests.not_logged",
                count=left_out.total(),
                statuses=dict(statuses),
                addresses=dict(addresses.most_common(NAMED)),
            )
        return is_more

    def _write(self) -> bool:
        """Write what waits; return False if signed ones have to wait on."""
        with self._lock:
            signed = self._signed.take()
            requests = [*signed, *self._waiting]
            self._waiting.clear()
            dropped, self._dropped = self._dropped, Counter()
        if dropped:
            statuses = {str(status): count for status, count in dropped.items()}
            log.warning("requests.not_kept", count=dropped.total(), statuses=statuses)
        if not requests:
            return True
        try:
            self._keep(requests)
        except StoreUnavailable as error:
            with self._lock:
                lost = [request for each in signed for request in self._signed.add(each)]
            count = len(requests) - len(signed) + len(lost)
            if count:
                log.warning("requests.not_kept", count=count, error=str(error))
            return not signed
        return True


class Signed:
    """Refused requests that carry a signature, by address, until they are written."""

    def __init__(self, *, room: int = SIGNED_ROOM) -> None:
        self._room = room
        self._held: dict[str, deque[Request]] = {}
        self._sizes: Counter[str] = Counter()

    def add(self, request: Request) -> list[Request]:
        """Hold *request*; return what had to go for it: the oldest of who has most."""
        who = addresses.holder(request.remote or "")
        self._held.setdefault(who, deque()).append(request)
        self._sizes[who] += _size(request)
        gone = []
        while self._sizes.total() > self._room:
            [(largest, _)] = self._sizes.most_common(1)
            gone.append(self._held[largest].popleft())
            self._sizes[largest] -= _size(gone[-1])
        return gone

    def take(self) -> list[Request]:
        """Return all that are held, in the order in which they came, and hold them no more."""
        taken = sorted(itertools.chain(*self._held.values()), key=lambda request: request.at)
        self._held.clear()
        self._sizes.clear()
        return taken


def _size(request: Request) -> int:
    """Return about how many bytes *request* takes."""
    named = sum(len(name) + len(value) for name, value in request.headers.items())
    return 500 + named + len(request.body or b"")


class Sample:
    """Decides which refusals get a log line: the first of each second, address and status."""

    def __init__(self) -> None:
        self._second = -1
        self._taken: Counter[tuple[str, int]] = Counter()
        self._left_out: Counter[tuple[str, int]] = Counter()

    @property
    def is_more(self) -> bool:
        """Whether something is left out that was not asked for yet."""
        return bool(self._left_out)

    def takes(self, address: str, status: int, now: float) -> bool:
        """Return whether a refusal at *now* gets a line."""
        if int(now) != self._second:
            self._second = int(now)
            self._taken.clear()
        who = (address, status)
        if self._taken[who] < LOGGED_EACH and self._taken.total() < LOGGED_TOGETHER:
            self._taken[who] += 1
            return True
        # As many addresses as there may be lines; the others share a count.
        known = who in self._left_out or len(self._left_out) < LOGGED_TOGETHER
        self._left_out[who if known else ("others", status)] += 1
        return False

    def left_out(self, now: float) -> Counter[tuple[str, int]]:
        """Return what got no line, once the second is over."""
        if now < self._second + 1:
            return Counter()
        found, self._left_out = self._left_out, Counter()
        return found
