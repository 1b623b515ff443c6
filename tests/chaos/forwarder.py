"""A server's address on a network of ours, from which one that listens elsewhere is reached."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import suppress

#: Bytes that are passed on at once.
PIECE = 1 << 16


class Forwarder:
    """Passes connections to *host*:*port* on to *upstream*, until it is stopped; then again.

    From outside it looks as if that server were stopped.
    """

    def __init__(self, host: str, port: int, *, upstream: tuple[str, int]) -> None:
        self._address = host, port
        self._upstream = upstream
        self._server: _Server | None = None

    def start(self) -> None:
        server = self._server = _Server(self._address, self._upstream)
        threading.Thread(target=server.serve_forever, args=(0.05,), name="forwarder").start()

    def stop(self, mode: str = "immediate") -> None:
        """End every connection, whatever the *mode*."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()
        self._server = None


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], upstream: tuple[str, int]) -> None:
        super().__init__(address, _Handler)
        self.upstream = upstream
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False

    def add(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
            if self._closed:
                _end(connection)

    def remove(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def hang_up(self) -> None:
        with self._lock:
            self._closed = True
            for connection in self._open:
                _end(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: connections break here."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        here: socket.socket = self.request
        with socket.create_connection(self.server.upstream) as there:
            self.server.add(here)
            self.server.add(there)
            back = threading.Thread(target=_pass_on, args=(there, here), daemon=True)
            back.start()
            _pass_on(here, there)
            back.join()
            self.server.remove(here)
            self.server.remove(there)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes until one side ends it, and end both."""
    with suppress(OSError):
        while piece := source.recv(PIECE):
            target.sendall(piece)
    for each in (source, target):
        _end(each)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
