"""Our part of a Celery worker: it starts and stops with the worker."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

import structlog
from celery import bootsteps, signals
from celery.beat import EmbeddedService

from relay import destinations, logs, migrations
from relay.cluster import settings
from relay.cluster.hints import Hints
from relay.cluster.worker import HintedWorker
from relay.migrations import Unusable
from relay.node import Heartbeat, Indexer, Pruner, TrafficCounter, new_name
from relay.store import Database, Queue, StoreUnavailable
from relay.store.prune import Pruning
from relay.store.texts import Texts
from relay.store.traffic import Traffic
from relay.telling.metrics import Metrics
from relay.telling.watch import Watch

log = structlog.get_logger()

#: Seconds that running attempts get after SIGTERM, and after which the process ends in any case.
DRAIN, END = 8.0, 9.0

#: How the names begin that Celery knows our nodes by.
PREFIX = "relay"

_here: list[HintedWorker] = []


def here() -> HintedWorker:
    """Return the worker of this process."""
    return _here[0]


class Deliveries(bootsteps.StartStopStep):
    """Makes a Celery worker one of our nodes; stops before Celery's pool waits for its threads."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        signals.worker_shutting_down.connect(self._shutting_down)
        prefix, _, rest = worker.hostname.partition("@")
        self._name = rest if prefix == PREFIX else new_name()
        self._ends_at = float("inf")

    def start(self, worker: Any) -> None:
        config = settings.config_of_fleet()
        self._database = _opened()
        metrics = getattr(worker, "metrics", None) or Metrics()
        committed = metrics.committed("record")
        self._queue = Queue(
            self._database, node=self._name, committed=committed, paused=metrics.paused
        )
        concurrency = settings.concurrency_of(config)
        self._hints = Hints(worker.app, concurrency)
        self._worker = HintedWorker(
            destinations.build(config, metrics),
            self._queue,
            concurrency=concurrency,
            hint=self._hints.give,
            clock=self._database.clock,
        )
        _here[:] = [self._worker]
        self._pruner = Pruner(
            Pruning(self._database),
            retention=config.kept.default,
            by_type=config.kept.types,
            backups=config.backups.for_,
            horizon=config.dedupe_horizon,
            refused=config.requests.for_,
            clock=self._database.clock,
        )
        self._pruner.start()
        self._indexer = Indexer(Texts(self._database))
        self._indexer.start()
        self._traffic = TrafficCounter(Traffic(self._database))
        self._traffic.start()
        self._heartbeat = Heartbeat(self._database, name=self._name, role="worker", config=config)
        self._heartbeat.start()
        self._watch = Watch(config, self._database, node=self._name)
        self._watch.start()
        self._worker.start()
        log.info("worker.started", node=self._name, destinations=list(config.destinations))

    def stop(self, worker: Any) -> None:
        self._worker.stop()
        self._pruner.close()
        self._indexer.close()
        self._traffic.close()
        self._watch.close()
        seconds = min(DRAIN, self._ends_at - time.monotonic())
        left = self._worker.drain(seconds)
        self._queue.close()
        self._hints.close()
        self._worker.close()
        self._heartbeat.close()
        log.info("worker.stopped", node=self._name, left_to_their_leases=left)
        if self._worker.is_busy:
            # Threads that hang in a connector would keep the pool and the interpreter from ending.
            _end()

    def _shutting_down(self, **_: Any) -> None:
        """Stop claiming at once, and end in time even if the broker or a thread hangs."""
        self._ends_at = time.monotonic() + DRAIN
        if _here:
            self._worker.stop()
        timer = threading.Timer(END, _end)
        timer.daemon = True
        timer.start()


class EmbeddedBeat(bootsteps.StartStopStep):
    """A beat in a thread of the worker."""

    requires = (Deliveries,)

    def create(self, worker: Any) -> Any:
        scheduler = worker.app.conf.beat_scheduler
        return EmbeddedService(worker.app, thread=True, scheduler_cls=scheduler)

    def stop(self, worker: Any) -> None:
        # Not waited for: it may be waiting for the broker.
        self.obj.service.stop()


def name(sender: str, instance: Any, **_: Any) -> None:
    """Name a worker that has no name yet, so that any number can run on one machine."""
    if sender.startswith("celery@"):
        instance.hostname = f"{PREFIX}@{new_name()}"


def log_as_we_do(loglevel: int, **_: Any) -> None:
    """Write Celery's log lines like ours, but none about single messages."""
    if not structlog.is_configured():
        given = settings.config_of_fleet().logs
        logs.configure(level=given.threshold, as_text=given.as_text)
    logs.adopt("celery", "kombu", "amqp", "py.warnings", level=loglevel)


def _opened() -> Database:
    try:
        return migrations.opened(settings.config_of_fleet())
    except (Unusable, StoreUnavailable) as error:
        sys.exit(f"error: {error}")


def _end() -> None:
    logs.flush()
    os._exit(0)
