"""The process that serves HTTP, its child that receives, and the watch over that."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import requests
import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server import Server

from relay.app import create_app
from relay.config.model import Config
from relay.every import Every
from relay.node import Heartbeat, leave
from relay.processes.process import (
    DRAIN,
    RESTART_AFTER,
    allow_connections,
    close_store,
    cluster,
    end_with,
    node_name,
    prefer_work_to_wake_ups,
    write_no_core_files,
)
from relay.refused import Refusals
from relay.store import Database, Inbox, connect

log = structlog.get_logger()

#: Seconds and bytes that the head of a request may take.
LONGEST_HEAD, LARGEST_HEAD = 10, 16_384
#: Connections that the receiver holds at the most, if the system allows as many files.
CONNECTIONS = 8192
#: Seconds between looks at the receiver, that an answer may take, after which its silence ends it
#: (so that ten are not over with one look more), and that it may take to start.
LOOK_AT_RECEIVER, LONGEST_ANSWER, SILENT_AFTER, LONGEST_START = 1.0, 2.0, 7.0, 30.0


def run_web(config: Config) -> None:
    """Serve HTTP in this process and one child until SIGTERM, SIGINT or SIGHUP."""
    write_no_core_files()
    allow_connections()
    log.info("web.started", listen=config.server.listen)
    for each in config.endpoints:
        url = f"http://{config.server.listen}{each.path}"
        log.info("endpoint.served", url=url, guard=each.guard)
    # Not connected to before the fork.
    database = connect(config.store)
    node = node_name(database, "web")
    # What is imported lives as long as we do: frozen before the fork, its memory stays shared.
    gc.freeze()
    server = Server(
        "relay",
        address=config.server.host,
        port=config.server.port,
        interface=Interfaces.WSGI,
        # HTTP/2 by prior knowledge lets requests without an end hold threads for good.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=LONGEST_HEAD * 1000, max_buffer_size=LARGEST_HEAD
        ),
        blocking_threads=config.server.threads,
        # Connections, silent ones included, which a thread is not needed for.
        backpressure=max(CONNECTIONS, config.server.threads * 2),
        backlog=1024,
        workers_kill_timeout=DRAIN,
        websockets=False,
        log_enabled=False,
        respawn_failed_workers=True,
        respawn_interval=RESTART_AFTER,
    )
    # There is no reload yet: a terminal that closes ends the receiver as SIGTERM does.
    server.signal_handler_reload = server.signal_handler_interrupt  # type: ignore[method-assign]
    # Its process keeps the list up to date, and is gone by then.
    server.on_shutdown(partial(_leave, database, node))
    watch = ReceiverWatch(config, lambda: [_pid(worker) for worker in server.wrks])
    server.on_startup(watch.start)
    server.on_shutdown(watch.close)
    try:
        # Granian's default loader imports a module; ours builds the app from the config.
        server.serve(
            target_loader=partial(_load_app, config, node, os.getpid()), wrap_loader=False
        )
    except SystemExit as error:
        if error.code:
            # Granian gives up, in its own log only, when its process dies again and again.
            log.error("web.ended", exit_code=error.code, reason="its process died repeatedly")
        raise


def _leave(database: Database, node: str) -> None:
    leave(database, node)
    close_store(database)


def _pid(worker: Any) -> int | None:
    return worker.inner.pid  # type: ignore[no-any-return]  # granian's process of this platform


def _load_app(config: Config, node: str, parent: int) -> Any:
    """Build the application in Granian's worker process."""
    end_with(parent)
    # The parent is told as well, and lets requests end first.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    prefer_work_to_wake_ups()
    database = connect(config.store, reserve=config.disk_reserve)
    tell = cluster().hints(config).give if config.engine.celery else None
    inbox = Inbox(database, tell=tell, keep=config.requests.keep)
    refusals = Refusals(inbox.refuse)
    Heartbeat(database, name=node, role="web").start()
    return create_app(config, database=database, inbox=inbox, refusals=refusals)


class ReceiverWatch:
    """Kills a receiver that no longer answers, so that the server starts a new one.

    *processes* returns the ids of the processes that receive now.
    """

    def __init__(self, config: Config, processes: Callable[[], Sequence[int | None]]) -> None:
        host = config.server.host
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{config.server.port}/livez"
        self._processes = processes
        self._answered_at = time.monotonic()
        self._has_answered = False
        self._loop = Every("receiver watch", LOOK_AT_RECEIVER, self._look)

    def start(self) -> None:
        self._loop.start()

    def close(self) -> None:
        self._loop.close(0)

    def _look(self) -> None:
        if self._answers():
            self._answered_at, self._has_answered = time.monotonic(), True
            return
        silent = time.monotonic() - self._answered_at
        if silent > (SILENT_AFTER if self._has_answered else LONGEST_START):
            for pid in self._processes():
                if pid is not None:
                    log.error("receiver.silent", pid=pid, seconds=round(silent))
                    os.kill(pid, signal.SIGKILL)
            self._answered_at, self._has_answered = time.monotonic(), False

    def _answers(self) -> bool:
        try:
            # Past any proxy of the environment: this is our own port.
            with requests.Session() as session:
                session.trust_env = False
                return session.get(self._url, timeout=LONGEST_ANSWER).status_code == 200
        except requests.RequestException:
            return False
