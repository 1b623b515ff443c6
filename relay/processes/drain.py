"""The end of a receiver: it accepts nothing more, and serves what it has accepted."""

from __future__ import annotations

import math
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.processes.listening import Listener

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

#: Seconds between looks at what is still connected.
LOOK = 0.05
#: Where this process finds its own descriptors.
DESCRIPTORS = Path("/dev/fd")


class Drain:
    """A WSGI application that says when it first answers, and can be drained.

    Granian stops accepting and closes what it has not read from in one step, also connections
    whose requests are just arriving. So its socket is made deaf first, and Granian is stopped
    when no connection is left.
    """

    def __init__(
        self,
        app: WSGIApplication,
        listener: Listener,
        ready: Callable[[], None],
        stop: Callable[[], None],
    ) -> None:
        """*stop* stops Granian."""
        self._app = app
        self._listener = listener
        self._ready = ready
        self._stop = stop
        self._has_answered = self._is_draining = False
        self._ends_at = math.inf

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if self._is_draining:
            start = _last(start)
        answer = self._app(environ, start)
        if not self._has_answered:
            self._has_answered = True
            self._ready()
        return answer

    def begin(self, within: float) -> None:
        """Accept nothing more; stop when no connection is left, or *within* seconds are over."""
        self._ends_at = min(self._ends_at, time.monotonic() + within)
        if not self._is_draining:
            self._is_draining = True
            port = self._listener.port
            deafen(self._listener.socket)
            threading.Thread(target=self._stop_when_empty, args=(port,), daemon=True).start()

    def _stop_when_empty(self, port: int) -> None:
        while time.monotonic() < self._ends_at and connections(port):
            time.sleep(LOOK)
        self._stop()


def _last(start: StartResponse) -> StartResponse:
    """Tell callers that keep a connection that it ends with this answer."""

    def begin(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[..., object]:
        return start(status, [*headers, ("Connection", "close")], *more)

    return begin


def deafen(listening: socket.socket) -> None:
    """Put a socket that nobody calls in the place of *listening*, in this process only.

    Granian goes on accepting there. What waits at the socket is for other processes.
    """
    deaf = socket.socket()
    deaf.setblocking(False)
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(1)
    mark = _mark(listening.fileno())
    for descriptor in _sockets():
        if _mark(descriptor) == mark:
            os.dup2(deaf.fileno(), descriptor, inheritable=False)


def connections(port: int) -> int:
    """Return how many connections to *port* this process holds."""
    return sum(_is_connected(descriptor, port) for descriptor in _sockets())


def _sockets() -> Iterator[int]:
    for descriptor in [int(path.name) for path in DESCRIPTORS.iterdir()]:
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                yield descriptor


def _mark(descriptor: int) -> tuple[int, int] | None:
    with suppress(OSError):
        status = os.fstat(descriptor)
        return status.st_dev, status.st_ino
    return None


def _is_connected(descriptor: int, port: int) -> bool:
    with suppress(OSError, ValueError), socket.socket(fileno=os.dup(descriptor)) as copy:
        if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.getsockname()[1] == port:
            copy.getpeername()
            return True
    return False
