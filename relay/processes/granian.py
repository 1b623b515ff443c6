"""Granian's WSGI server in this process, at a socket that was there before and stays."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from granian._futures import _new_cbscheduler
from granian._granian import SocketHolder, WorkerSignal, WSGIWorker
from granian._loops import loops
from granian.constants import HTTPModes
from granian.http import HTTP1Settings
from granian.log import LogLevels, configure_logging
from granian.wsgi import _callback_wrapper

from relay.config.certificates import Identity
from relay.processes.drain import Drain
from relay.processes.listening import BACKLOG, Listener
from relay.processes.process import DRAIN, ENDING, RETIRE

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

#: Seconds and bytes that the head of a request may take.
LONGEST_HEAD, LARGEST_HEAD = 10, 16_384
#: Connections that a process holds at the most, if the system allows as many files.
CONNECTIONS = 8192
#: Seconds in which open connections may end by themselves, before Granian ends them: if the relay
#: stops, and if another process has taken over.
HURRY, RETIRED_WITHIN = 1.0, float(LONGEST_HEAD)
#: Threads that Granian itself has, for waiting and for files; seconds that ours live unused.
_WAITING, _READING, _UNUSED = 1, 512, 30


def serve(
    app: WSGIApplication,
    listener: Listener,
    *,
    threads: int,
    identity: Identity | None = None,
    ready: Callable[[], None] = lambda: None,
    retired: Callable[[], None] = lambda: None,
) -> None:
    """Answer with *app* in so many *threads*, until SIGTERM, SIGINT or SIGUSR1 has ended that.

    SIGTERM and SIGINT end it soon; SIGUSR1 ends it when every connection has been served, while
    another process accepts new ones. *ready* is called at the first answer, *retired* at SIGUSR1.
    """
    configure_logging(LogLevels.info, None, False)
    signalled, stopped = WorkerSignal(), threading.Event()
    signalled.add_cb(stopped.set)

    def stop() -> None:
        signalled.set()
        # Whatever hangs in a request: we end in time.
        stopped.wait(DRAIN)
        stopped.set()

    drain = Drain(app, listener, ready, stop)

    def retire(*_: Any) -> None:
        retired()
        drain.begin(RETIRED_WITHIN)

    for number in ENDING:
        signal.signal(number, lambda *_: drain.begin(HURRY))
    signal.signal(RETIRE, retire)
    loop = loops.get("auto")
    call = _callback_wrapper(drain, {})
    scheduler = _new_cbscheduler(loop, call, impl_asyncio=True)  # type: ignore[no-untyped-call]
    _worker(listener, threads, identity).serve_mtr(scheduler, loop, signalled)
    stopped.wait()


def _worker(listener: Listener, threads: int, identity: Identity | None) -> Any:
    # Shared by its descriptor: Granian would make a socket with SO_REUSEPORT for every process,
    # and when one of two such sockets is closed, the system resets what waits at it.
    holder: Any = SocketHolder  # its stub is wrong
    shared = holder(os.dup(listener.socket.fileno()), False, BACKLOG)
    # Granian itself would want files, which may be changed before its process starts.
    cert, key = (identity.cert, identity.key) if identity else (None, None)
    tls: Any = (identity is not None, cert, key, None, "tls1.2", None, [], False)
    worker: Any = WSGIWorker
    return worker(
        1,
        (None, shared),
        None,
        _WAITING,
        _READING,
        threads,
        _UNUSED,
        # Connections, silent ones included, which a thread is not needed for.
        max(CONNECTIONS, threads * 2),
        # HTTP/2 by prior knowledge lets requests without an end hold threads for good.
        HTTPModes.http1,
        HTTP1Settings(header_read_timeout=LONGEST_HEAD * 1000, max_buffer_size=LARGEST_HEAD),
        None,
        None,
        *tls,
        (None, None),
    )
