"""The processes of one ``serve``: web and worker, started together, watched, stopped together."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Any

import requests
import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server import Server

from relay import destinations, logs
from relay.app import create_app
from relay.config.model import Config
from relay.every import Every
from relay.leases import Intervals
from relay.node import Heartbeat, NodeSlot, Pruner, leave, new_name
from relay.refused import Refusals
from relay.store import Database, Inbox, Queue, StoreUnavailable, connect
from relay.store.nodes import Role
from relay.store.prune import Pruning
from relay.worker import Worker

log = structlog.get_logger()

#: Seconds that running attempts and requests get after SIGTERM.
DRAIN = 8
#: Seconds between looks for due deliveries of a worker that others wake.
WOKEN_POLL = 0.25
#: Seconds after which a waiting thread asks for the interpreter. Dozens of them wait under load,
#: each wakes up so often to ask, and with Python's 5 ms that cost more than the requests did;
#: no thread of the receiver computes for long.
SWITCH_INTERVAL = 0.05
#: Seconds after SIGTERM at which a worker ends whatever hangs, and at which a child is killed.
END, KILL_AFTER = 9.0, 9.5
#: Seconds that the store's log may then take, at least.
CLOSE = 0.4
#: Seconds between the death of a child and its next start.
RESTART_AFTER = 1.0

#: Signals that end a process, after what runs has ended.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Seconds and bytes that the head of a request may take.
LONGEST_HEAD, LARGEST_HEAD = 10, 16_384
#: Connections that the receiver holds at the most, if the system allows as many files.
CONNECTIONS = 8192
#: Seconds between looks at the receiver, after which its silence ends it, and that it may take
#: to start.
LOOK_AT_RECEIVER, SILENT_AFTER, LONGEST_START = 2.0, 8.0, 30.0

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


class PortTaken(Exception):
    """Somebody else listens where we should."""


def settle_port(config: Config) -> Config:
    """Return *config* with the port that will be listened on, chosen now if it was 0.

    Raises :class:`PortTaken` if the address cannot be had.
    """
    host, port = config.server.host, config.server.port
    try:
        # Names like localhost are resolved here: the server takes addresses only.
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            host, port = probe.getsockname()[:2]
    except OSError as error:
        raise PortTaken(f"server.listen: {host}:{port}: {error.strerror}") from error
    listen = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
    server = config.server.model_copy(update={"listen": listen})
    return config.model_copy(update={"server": server})


def run_web(config: Config) -> None:
    """Serve HTTP in this process and one child until SIGTERM, SIGINT or SIGHUP."""
    write_no_core_files()
    _allow_connections()
    log.info("web.started", listen=config.server.listen)
    # Not connected to before the fork.
    database = connect(config.store)
    node = _node_name(database, "web")
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
    _close(database)


def _close(database: Database) -> None:
    """Close the store, and leave no text in its write-ahead log."""
    try:
        if reason := database.truncate_log():
            log.info("store.log_kept", reason=reason)
    except StoreUnavailable as error:
        log.warning("store.unavailable", error=str(error))
    database.close()


def _pid(worker: Any) -> int | None:
    return worker.inner.pid  # type: ignore[no-any-return]  # granian's process of this platform


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
        now = time.monotonic()
        patience = SILENT_AFTER if self._has_answered else LONGEST_START
        if self._answers():
            self._answered_at, self._has_answered = time.monotonic(), True
        elif now - self._answered_at > patience:
            for pid in self._processes():
                if pid is not None:
                    log.error("receiver.silent", pid=pid, seconds=round(now - self._answered_at))
                    os.kill(pid, signal.SIGKILL)
            self._answered_at, self._has_answered = time.monotonic(), False

    def _answers(self) -> bool:
        try:
            # Past any proxy of the environment: this is our own port.
            with requests.Session() as session:
                session.trust_env = False
                return session.get(self._url, timeout=LOOK_AT_RECEIVER).status_code == 200
        except requests.RequestException:
            return False


def run_worker(config: Config) -> None:
    """Deliver in this process until SIGTERM, SIGINT or SIGHUP."""
    write_no_core_files()
    if config.engine.celery:
        code = _cluster().work(config)
        logs.flush()
        os._exit(code)
    _prefer_work_to_wake_ups()
    database = connect(config.store, reserve=config.disk_reserve)
    node = _node_name(database, "worker")
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
    _close(database)
    log.info("worker.stopped", node=node, left_to_their_leases=left)
    # Threads that hang in a connector would hold the interpreter up at its end.
    logs.flush()
    os._exit(0)


def serve(config: Config) -> int:
    """Run web and worker as two processes of this one; return the exit code."""
    write_no_core_files()
    # Not connected to before the fork, and not before the children have ended.
    database = connect(config.store)
    roles = {"web": partial(run_web, config), "worker": partial(run_worker, config)}
    supervisor = Supervisor(roles)
    code = supervisor.run()
    # One that was killed left the log as it was. Nothing holds up our own end, though.
    closing = threading.Thread(target=_close, args=(database,), daemon=True, name="close")
    closing.start()
    closing.join(max(CLOSE, supervisor.ends_at - time.monotonic()))
    return code


class Supervisor:
    """Keeps child processes running, by fork: they share the memory of what is imported."""

    def __init__(self, roles: Mapping[str, Callable[[], None]]) -> None:
        self._roles = roles
        self._children: dict[str, _Child] = {}
        self._stopping = False
        #: When a child that has not ended is killed.
        self.ends_at = 0.0

    def run(self) -> int:
        """Start the roles, restart what dies, and stop all on SIGTERM, SIGINT or SIGHUP."""
        for number in ENDING:
            signal.signal(number, self._stop)
        gc.freeze()
        for role in self._roles:
            self._start(role)
        while not self._stopping:
            wait([child.process.sentinel for child in self._children.values()], timeout=0.5)
            for role in self._dead():
                if self._stopping:
                    break
                if not self._restart(role):
                    self._stop_children()
                    return 1
        self._stop_children()
        return 0

    def _start(self, role: str) -> None:
        process = multiprocessing.get_context("fork").Process(
            target=_child, args=(self._roles[role], os.getpid()), name=role
        )
        process.start()
        self._children[role] = _Child(process, time.monotonic())

    def _dead(self) -> list[str]:
        return [role for role, child in self._children.items() if not child.process.is_alive()]

    def _restart(self, role: str) -> bool:
        """Start *role* again; False if it dies as soon as it starts, which no restart mends."""
        child = self._children[role]
        log.error("process.died", role=role, exit_code=child.process.exitcode)
        if time.monotonic() - child.started < RESTART_AFTER * 2 and child.process.exitcode == 1:
            return False
        time.sleep(RESTART_AFTER)
        self._start(role)
        return True

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _stop_children(self) -> None:
        for child in self._children.values():
            if child.process.is_alive():
                child.process.terminate()
        self.ends_at = time.monotonic() + KILL_AFTER
        for role, child in self._children.items():
            child.process.join(max(0.0, self.ends_at - time.monotonic()))
            if child.process.is_alive():
                log.warning("process.killed", role=role)
                child.process.kill()
                child.process.join()


@dataclass(frozen=True, slots=True)
class _Child:
    process: ForkProcess
    started: float


def _child(role: Callable[[], None], parent: int) -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    end_with(parent)
    role()


def end_with(parent: int) -> None:
    """Let this process die with *parent*, so that nothing holds the port after a kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    watch = threading.Thread(target=_watch, args=(parent,), daemon=True, name="parent")
    watch.start()


def write_no_core_files() -> None:
    """Keep secrets and texts in memory out of the files that a crash leaves."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


def _allow_connections() -> None:
    """Let this process open as many files as the system allows: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def _load_app(config: Config, node: str, parent: int) -> Any:
    """Build the application in Granian's worker process."""
    end_with(parent)
    # The parent is told as well, and lets requests end first.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _prefer_work_to_wake_ups()
    database = connect(config.store, reserve=config.disk_reserve)
    inbox = Inbox(database, tell=_cluster().hints(config).give if config.engine.celery else None)
    refusals = Refusals(inbox.refuse)
    Heartbeat(database, name=node, role="web").start()
    return create_app(config, database=database, inbox=inbox, refusals=refusals)


def _node_name(database: Database, role: Role) -> str:
    return NodeSlot(database.file, role).name if database.file else new_name()


def _cluster() -> Any:
    """Return the fleet's module, which needs an extra."""
    return import_module("relay.cluster")


def _prefer_work_to_wake_ups() -> None:
    """Let dozens of threads take turns without each waking up to find the interpreter taken."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    if hasattr(os, "SCHED_BATCH"):
        # A thread that is woken then waits its turn. Otherwise each caller of a commit, woken by
        # it, takes the processor only to find that the interpreter is not free.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def run_until_stopped(run: Callable[[], None], stop: Callable[[], None]) -> None:
    """Call *run*, and *stop* from another thread on SIGTERM or SIGINT, which ends *run*."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=stop).start())
    run()
