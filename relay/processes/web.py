"""The process that serves HTTP, its children that receive, and the watch over those."""

from __future__ import annotations

import gc
import http.client
import multiprocessing
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.mp import MPServer

from relay import destinations
from relay.app import create_app
from relay.config.certificates import Identity
from relay.config.model import Config
from relay.every import Every
from relay.node import Heartbeat, leave
from relay.processes.drain import Drain
from relay.processes.listening import BACKLOG, Listener
from relay.processes.process import (
    DRAIN,
    RESTART_AFTER,
    RETIRE,
    Places,
    Ready,
    allow_connections,
    close_store,
    cluster,
    end_with,
    node_name,
    prefer_work_to_wake_ups,
    write_no_core_files,
)
from relay.refused import Refusals
from relay.store import Inbox, StoreUnavailable, connect
from relay.store.connect import file_of
from relay.telling.counts import Counts
from relay.telling.metrics import Metrics
from relay.telling.watch import OldSecrets, Watch

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

log = structlog.get_logger()

#: Seconds and bytes that the head of a request may take.
LONGEST_HEAD, LARGEST_HEAD = 10, 16_384
#: Connections that the receiver holds at the most, if the system allows as many files.
CONNECTIONS = 8192
#: Seconds in which open connections may end by themselves, before Granian ends them: if the relay
#: stops, and if another receiver has taken over.
HURRY, RETIRED_WITHIN = 1.0, float(LONGEST_HEAD)
#: Seconds between looks at the receiver, that an answer may take, after which its silence ends it
#: (so that ten are not over with one look more), and that it may take to start.
LOOK_AT_RECEIVER, LONGEST_ANSWER, SILENT_AFTER, LONGEST_START = 1.0, 2.0, 7.0, 30.0
#: How often a look asks for each receiver, if there are several.
ASKED = 3


def run_web(
    config: Config, listener: Listener, identity: Identity | None, counts: Counts, ready: Ready
) -> None:
    """Serve HTTP in this process and its children.

    SIGTERM and SIGINT end it soon; SIGUSR1 ends it when every connection has been served, while
    another receiver accepts new ones.
    """
    write_no_core_files()
    allow_connections()
    log.info("web.started", listen=listener.address)
    scheme = "https" if identity else "http"
    if identity is not None:
        until = identity.shown.ends_at.isoformat()
        log.info("tls.served", names=list(identity.shown.names), until=until)
    for each in config.endpoints:
        url = f"{scheme}://{listener.address}{each.path}"
        log.info("endpoint.served", url=url, guard=each.guard)
    file = file_of(config.store)
    nodes = [node_name(file, "web") for _ in range(config.server.workers)]
    # What is imported lives as long as we do: frozen before the fork, its memory stays shared.
    gc.freeze()
    server = GranianServer(
        listener,
        workers=config.server.workers,
        threads=config.server.threads,
        identity=identity,
    )
    # Its processes keep the list up to date, and are gone by then.
    server.on_shutdown(partial(_leave, config.store, nodes))
    watch = ReceiverWatch(
        listener,
        lambda: [_pid(worker) for worker in server.wrks],
        is_encrypted=bool(identity),
    )
    server.on_startup(watch.start)
    server.on_shutdown(watch.close)
    try:
        # Granian's default loader imports a module; ours builds the app from the config.
        me, places = os.getpid(), Places()
        load = partial(_load_app, config, listener, identity, counts, nodes, places, me, ready)
        server.serve(target_loader=load, wrap_loader=False)
    except SystemExit as error:
        if error.code:
            # Granian gives up, in its own log only, when its process dies again and again.
            log.error("web.ended", exit_code=error.code, reason="its process died repeatedly")
        raise


class GranianServer(MPServer):
    """Granian's server, at a socket that was there before it and stays when it ends."""

    def __init__(
        self,
        listener: Listener,
        *,
        workers: int = 1,
        threads: int,
        identity: Identity | None = None,
    ) -> None:
        super().__init__(
            "relay",
            workers=workers,
            address=listener.host,
            port=listener.port,
            interface=Interfaces.WSGI,
            # HTTP/2 by prior knowledge lets requests without an end hold threads for good.
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(
                header_read_timeout=LONGEST_HEAD * 1000, max_buffer_size=LARGEST_HEAD
            ),
            blocking_threads=threads,
            # Connections, silent ones included, which a thread is not needed for.
            backpressure=max(CONNECTIONS, threads * 2),
            backlog=BACKLOG,
            workers_kill_timeout=DRAIN,
            websockets=False,
            log_enabled=False,
            respawn_failed_workers=True,
            respawn_interval=RESTART_AFTER,
        )
        # Its processes have our socket and modules; Python 3.14 would start empty ones.
        multiprocessing.set_start_method("fork", force=True)
        self._listener = listener
        if identity is not None:
            # Granian itself would want files, which may be changed before its process starts.
            ours: Any = (True, identity.cert, identity.key, None, "tls1.2", None, [], False)
            self.ssl_ctx = ours

    def startup(self, *given: Any) -> None:
        super().startup(*given)  # type: ignore[no-untyped-call]
        signal.signal(RETIRE, self._retire)

    def signal_handler_interrupt(self, *_: Any, **__: Any) -> None:
        """Refuse new connections, and end when those that are open have been served."""
        self._listener.socket.close()
        self._shd = None
        self._end_within(HURRY)

    # A terminal that closes tells the supervisor, which decides.
    signal_handler_reload = None  # type: ignore[assignment]

    def _retire(self, *_: Any) -> None:
        self._end_within(RETIRED_WITHIN)

    def _end_within(self, seconds: float) -> None:
        """Let the receiver accept nothing more, and end it when it is empty or *seconds* are over.

        Granian alone would close connections which it has accepted and not read from.
        """
        for worker in self.wrks:
            worker.interrupt_by_parent = True
            if pid := _pid(worker):
                os.kill(pid, RETIRE)
        threading.Thread(target=self._end, args=(seconds,), daemon=True, name="end").start()

    def _end(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        for worker in self.wrks:
            worker.join(max(0.0, ends_at - time.monotonic()))  # type: ignore[no-untyped-call]
        super().signal_handler_interrupt()  # type: ignore[no-untyped-call]

    def _init_shared_socket(self) -> None:
        """Share our socket: Granian would make one with SO_REUSEPORT for every process.

        When one of two such sockets is closed, the system resets what waits at it.
        """
        self._ssp = self._sso = None
        # Its types are those of a socket that Granian makes, and the stub of the holder is wrong.
        self._sfd = os.dup(self._listener.socket.fileno())  # type: ignore[assignment]
        holder: Any = SocketHolder
        self._shd = holder(self._sfd, False, BACKLOG)


def _leave(store: str, nodes: Sequence[str]) -> None:
    # Not connected to before: what that writes to, a process that only watches need not have.
    file = file_of(store)
    if file is not None and not file.exists():
        return  # It was moved away, and to connect would make another.
    with suppress(StoreUnavailable):
        database = connect(store)
        for node in nodes:
            leave(database, node)
        close_store(database)


def _pid(worker: Any) -> int | None:
    return worker.inner.pid  # type: ignore[no-any-return]  # granian's process of this platform


def _load_app(
    config: Config,
    listener: Listener,
    identity: Identity | None,
    counts: Counts,
    nodes: Sequence[str],
    places: Places,
    parent: int,
    ready: Ready,
) -> WSGIApplication:
    """Build the application in one of Granian's processes."""
    end_with(parent)
    node = nodes[places.take()]
    prefer_work_to_wake_ups()
    database = connect(config.store, reserve=config.disk_reserve)
    tell = cluster().hints(config).give if config.engine.celery else None
    metrics = Metrics(counts.page())
    inbox = Inbox(
        database,
        tell=tell,
        keep=config.requests.keep,
        looking=destinations.looking(config),
        committed=metrics.committed("accept"),
    )
    refusals = Refusals(inbox.refuse)
    Heartbeat(database, name=node, role="web", config=config).start()
    old_secrets = OldSecrets()
    Watch(config, database, node=node, old_secrets=old_secrets, identity=identity).start()
    app = create_app(
        config,
        database=database,
        inbox=inbox,
        refusals=refusals,
        metrics=metrics,
        old_secrets=old_secrets,
    )
    drain = Drain(app, listener, ready)
    signal.signal(RETIRE, drain.begin)
    return drain


class ReceiverWatch:
    """Kills receivers that no longer answer, so that the server starts new ones.

    *processes* returns the ids of the processes that receive now. Who answers is chance, so the
    more there are, the oftener one look asks; that one of them is silent ends all.
    """

    def __init__(
        self,
        listener: Listener,
        processes: Callable[[], Sequence[int | None]],
        *,
        is_encrypted: bool = False,
    ) -> None:
        # At the end the socket is closed before the watch is.
        self._address = listener.address
        self._processes = processes
        self._is_encrypted = is_encrypted
        self._answered_at = time.monotonic()
        self._has_answered = False
        self._loop = Every("receiver watch", LOOK_AT_RECEIVER, self._look)

    def start(self) -> None:
        self._loop.start()

    def close(self) -> None:
        self._loop.close(0)

    def _look(self) -> None:
        processes = self._processes()
        asked = 1 if len(processes) < 2 else ASKED * len(processes)
        if all(answers(self._address, is_encrypted=self._is_encrypted) for _ in range(asked)):
            self._answered_at, self._has_answered = time.monotonic(), True
            return
        silent = time.monotonic() - self._answered_at
        if silent > (SILENT_AFTER if self._has_answered else LONGEST_START):
            for pid in processes:
                if pid is not None:
                    log.error("receiver.silent", pid=pid, seconds=round(silent))
                    os.kill(pid, signal.SIGKILL)
            self._answered_at, self._has_answered = time.monotonic(), False


def answers(address: str, *, is_encrypted: bool = False) -> bool:
    """Return whether a receiver answers at *address*."""
    connection: http.client.HTTPConnection
    if is_encrypted:
        # Our own port, by an address that is not in the certificate.
        anything = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anything.check_hostname = False
        anything.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(address, timeout=LONGEST_ANSWER, context=anything)
    else:
        connection = http.client.HTTPConnection(address, timeout=LONGEST_ANSWER)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
