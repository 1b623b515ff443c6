"""The effects of all stand-ins, in one ordered list for tests and people."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One visible effect of a delivery: a card, a ticket, a comment, a timeline entry."""

    #: Counts up over all systems: the order of arrival.
    number: int
    #: ``hubspot``, ``zendesk``, ``teams`` or ``webhook``.
    system: str
    #: ``communication``, ``ticket``, ``comment``, ``tag``, ``card``, ``reply`` or ``event``.
    kind: str
    #: The words that a person reads there.
    text: str
    #: The customer's number.
    conversation: str
    #: Id of the thing in its system.
    reference: str
    #: ISO 8601, UTC.
    received_at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A fault that a stand-in shows instead of its answer, or after acting."""

    #: HTTP status to answer with; None: leave the answer as it is.
    status: int | None = None
    headers: Mapping[str, str]
    body: str = ""
    #: Seconds to wait before the answer.
    wait: float = 0.0
    #: Act as asked before the fault, so that the caller cannot know.
    act: bool = False
    #: Only requests whose path contains this meet the fault.
    path: str = ""
    #: Only requests of this method do; empty: of any.
    method: str = ""

    def meets(self, method: str, path: str) -> bool:
        """Say whether the fault is for such a request."""
        return self.path in path and self.method in ("", method)


class Records:
    """The state that all stand-ins share; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: list[Record] = []
        self._faults: dict[str, list[Fault]] = {}
        self._ids = itertools.count(1001)

    def new_id(self) -> int:
        """Return an id that no stand-in has given out yet."""
        return next(self._ids)

    def add(
        self, *, system: str, kind: str, text: str, conversation: str, reference: str
    ) -> Record:
        """Append a record and return it."""
        with self._lock:
            record = Record(
                number=len(self._records) + 1,
                system=system,
                kind=kind,
                text=text,
                conversation=conversation,
                reference=reference,
                received_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            )
            self._records.append(record)
            return record

    def listing(self) -> list[dict[str, Any]]:
        """Return everything so far, oldest first, ready for JSON."""
        with self._lock:
            return [asdict(record) for record in self._records]

    def inject(self, system: str, fault: Fault, *, times: int = 1) -> None:
        """Put *fault* in the way of the next *times* matching requests to *system*."""
        with self._lock:
            self._faults.setdefault(system, []).extend([fault] * times)

    def next_fault(self, system: str, *, method: str, path: str) -> Fault | None:
        """Take the first fault that waits for a request of *method* to *path*."""
        with self._lock:
            waiting = self._faults.get(system, [])
            for index, fault in enumerate(waiting):
                if fault.meets(method, path):
                    return waiting.pop(index)
        return None

    def waiting_faults(self) -> list[dict[str, Any]]:
        """Return the faults that no request has met yet, ready for JSON."""
        with self._lock:
            waiting = self._faults.items()
            return [{"system": name, **asdict(each)} for name, them in waiting for each in them]

    def forget_faults(self) -> None:
        """Take back all faults that still wait."""
        with self._lock:
            self._faults.clear()
