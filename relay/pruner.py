"""Prunes the store every hour, in steps between which others write."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from relay.store import StoreUnavailable
from relay.store.prune import Pruning, Removed

log = structlog.get_logger()

#: Seconds from the start to the first time, between two times, and between two steps.
FIRST, EVERY, REST = 60.0, 3600.0, 0.05


class Pruner:
    """A thread beside the deliveries. That several workers have one does no harm."""

    def __init__(
        self,
        upkeep: Pruning,
        *,
        retention: timedelta,
        horizon: timedelta | None,
        clock: Callable[[], datetime],
        first: float = FIRST,
    ) -> None:
        self._upkeep = upkeep
        self._retention = retention
        self._horizon = horizon
        self._clock = clock
        self._first = first
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prune", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop after the step that is under way."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._first
        while not self._stop.wait(pause):
            pause = EVERY
            try:
                self._prune()
            except StoreUnavailable as error:
                log.warning("store.unavailable", error=str(error))
            except Exception:
                # Of a database; what is old must go at the next try.
                log.exception("store.not_pruned")

    def _prune(self) -> None:
        now, total = self._clock(), Removed()
        keys_before = None if self._horizon is None else now - self._horizon
        for step in self._upkeep.prune(before=now - self._retention, keys_before=keys_before):
            total += step
            if self._stop.wait(REST):
                break
        if total != Removed():
            log.info("store.pruned", events=total.events, requests=total.requests, keys=total.keys)
