"""Answers that all viewers share: however many look, the store is asked once in a while."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

T = TypeVar("T")

#: Seconds for which an answer is good enough for a page that renews itself.
GOOD_FOR = 2.0
#: Answers that are kept; the one asked for longest ago goes first.
KEPT = 200


@dataclass(slots=True)
class _Answer:
    lock: threading.Lock = field(default_factory=threading.Lock)
    at: float = float("-inf")
    value: Any = None


class Shared:
    """Keeps answers by question for :data:`GOOD_FOR` seconds; one thread asks, others wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._answers: OrderedDict[Hashable, _Answer] = OrderedDict()

    def get(self, question: Hashable, ask: Callable[[], T], *, good_for: float = GOOD_FOR) -> T:
        """Return the answer to *question*, at most *good_for* seconds old."""
        with self._guard:
            answer = self._answers.setdefault(question, _Answer())
            self._answers.move_to_end(question)
            while len(self._answers) > KEPT:
                self._answers.popitem(last=False)
        with answer.lock:
            if self._clock() - answer.at >= good_for:
                answer.value = ask()
                answer.at = self._clock()
            return cast(T, answer.value)

    def forget(self) -> None:
        """Ask again next time: somebody has just changed something and wants to see it."""
        with self._guard:
            self._answers.clear()
