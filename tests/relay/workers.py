"""Workers of either engine, quick enough for tests."""

from __future__ import annotations

from collections.abc import Callable

from relay.leases import Intervals
from relay.store.values import DeliveryView
from relay.worker import Worker

FindDelivery = Callable[..., DeliveryView]
NewWorker = Callable[..., Worker]

QUICK = Intervals(poll=0.002, gather=0.0, not_granted=0.0, store_away=0.005)


def step(worker: Worker) -> int:
    """Let *worker* do what is due, and wait for it."""
    worker.wake()
    claimed = worker.fill()
    assert worker.drain(20) == 0
    return claimed
