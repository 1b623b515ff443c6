"""The process that delivers."""

from __future__ import annotations

import gc
import os
import signal
import threading
from types import FrameType

import structlog

from relay import destinations, logs
from relay.config.model import Config
from relay.leases import Intervals
from relay.node import Heartbeat, Pruner
from relay.processes.process import (
    DRAIN,
    END,
    ENDING,
    close_store,
    cluster,
    node_name,
    prefer_work_to_wake_ups,
    write_no_core_files,
)
from relay.store import Queue, connect
from relay.store.prune import Pruning
from relay.worker import Worker

log = structlog.get_logger()

#: Seconds between looks for due deliveries of a worker that others wake.
WOKEN_POLL = 0.25


def run_worker(config: Config) -> None:
    """Deliver in this process until SIGTERM, SIGINT or SIGHUP."""
    write_no_core_files()
    if config.engine.celery:
        code = cluster().work(config)
        logs.flush()
        os._exit(code)
    prefer_work_to_wake_ups()
    database = connect(config.store, reserve=config.disk_reserve)
    node = node_name(database, "worker")
    queue = Queue(database, node=node)
    # Who is woken need not look for work so often.
    intervals = Intervals() if database.file else Intervals(poll=WOKEN_POLL)
    worker = Worker(destinations.build(config), queue, clock=database.clock, intervals=intervals)
    listener = database.listen(worker.wake)

    def stop(number: int, frame: FrameType | None) -> None:
        worker.stop()
        # Whatever hangs in a connector or in the store: we end in time.
        end = threading.Timer(END, os._exit, (0,))
        end.daemon = True
        end.start()

    for number in ENDING:
        signal.signal(number, stop)
    pruner = Pruner(
        Pruning(database),
        retention=config.retention,
        horizon=config.dedupe_horizon,
        refused=config.requests.for_,
        clock=database.clock,
    )
    pruner.start()
    heartbeat = Heartbeat(database, name=node, role="worker")
    heartbeat.start()
    # What is there now stays: the collector need not look through it again and again.
    gc.freeze()
    log.info("worker.started", node=node, destinations=list(config.destinations))
    worker.run()
    listener.close()
    pruner.close()
    left = worker.drain(DRAIN)
    queue.close()
    worker.close()
    heartbeat.close()
    close_store(database)
    log.info("worker.stopped", node=node, left_to_their_leases=left)
    # Threads that hang in a connector would hold the interpreter up at its end.
    logs.flush()
    os._exit(0)
