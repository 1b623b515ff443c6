"""The process that delivers."""

from __future__ import annotations

import gc
import os
import signal
import threading
from functools import partial
from types import FrameType

import structlog

from relay import destinations, logs
from relay.config.model import Config
from relay.leases import Intervals
from relay.node import Heartbeat, Indexer, Pruner, TrafficCounter
from relay.processes.process import (
    DRAIN,
    END,
    ENDING,
    RETIRE,
    Ready,
    close_store,
    cluster,
    node_name,
    prefer_work_to_wake_ups,
    write_no_core_files,
)
from relay.store import Queue, connect
from relay.store.prune import Pruning
from relay.store.texts import Texts
from relay.store.traffic import Traffic
from relay.telling.counts import Counts
from relay.telling.metrics import Metrics
from relay.telling.watch import Watch
from relay.worker import Worker

log = structlog.get_logger()

#: Seconds between looks for due deliveries of a worker that others wake.
WOKEN_POLL = 0.25
#: Seconds that recording an attempt may take after its deadline.
GRACE = 2.0


def retired_within(config: Config) -> float:
    """Return how many seconds running attempts get when another worker has taken over."""
    deadlines = [each.deadline.total_seconds() for each in config.destinations.values()]
    return max([DRAIN, *(deadline + GRACE for deadline in deadlines)])


def _ready_to_retire(ready: Ready) -> None:
    """Let a Celery worker stop as at SIGTERM; when it starts, Celery takes our signal itself."""
    signal.signal(RETIRE, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    ready()


def run_worker(config: Config, counts: Counts, ready: Ready) -> None:
    """Deliver in this process until SIGTERM or SIGINT, or SIGUSR1, which leaves more time."""
    write_no_core_files()
    if config.engine.celery:
        metrics = Metrics(counts.page())
        code = cluster().work(config, partial(_ready_to_retire, ready), metrics)
        logs.flush()
        os._exit(code)
    prefer_work_to_wake_ups()
    database = connect(config.store, reserve=config.disk_reserve)
    node = node_name(database.file, "worker")
    metrics = Metrics(counts.page())
    queue = Queue(
        database, node=node, committed=metrics.committed("record"), paused=metrics.paused
    )
    # Who is woken need not look for work so often.
    intervals = Intervals() if database.file else Intervals(poll=WOKEN_POLL)
    built = destinations.build(config, metrics)
    worker = Worker(built, queue, clock=database.clock, intervals=intervals)
    listener = database.listen(worker.wake)

    patience = float(DRAIN)

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal patience
        if number == RETIRE:
            patience = retired_within(config)
        worker.stop()
        # Whatever hangs in a connector or in the store: we end in time.
        end = threading.Timer(patience + END - DRAIN, os._exit, (0,))
        end.daemon = True
        end.start()

    for number in (*ENDING, RETIRE):
        signal.signal(number, stop)
    pruner = Pruner(
        Pruning(database),
        retention=config.kept.default,
        by_type=config.kept.types,
        backups=config.backups.for_,
        horizon=config.dedupe_horizon,
        refused=config.requests.for_,
        clock=database.clock,
    )
    pruner.start()
    indexer = Indexer(Texts(database))
    indexer.start()
    traffic = TrafficCounter(Traffic(database))
    traffic.start()
    heartbeat = Heartbeat(database, name=node, role="worker", config=config)
    heartbeat.start()
    watch = Watch(config, database, node=node)
    watch.start()
    # What is there now stays: the collector need not look through it again and again.
    gc.freeze()
    log.info("worker.started", node=node, destinations=list(config.destinations))
    ready()
    worker.run()
    listener.close()
    watch.close()
    pruner.close()
    indexer.close()
    traffic.close()
    left = worker.drain(patience)
    queue.close()
    worker.close()
    heartbeat.close()
    close_store(database)
    log.info("worker.stopped", node=node, left_to_their_leases=left)
    # Threads that hang in a connector would hold the interpreter up at its end.
    logs.flush()
    os._exit(0)
