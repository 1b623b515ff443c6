"""A proxy between connectors and stand-ins that does to calls what a plan says."""

from __future__ import annotations

import http.client
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from plan import Fault

#: Longest time that a call is held which is never answered; callers give up long before.
HELD = 30.0
SLOW = 0.7
#: Closing resets the connection instead of ending it.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Counts the calls of each system and lets them meet its faults."""

    def __init__(self, upstream: str, faults: Mapping[str, Mapping[int, Fault]]) -> None:
        self.upstream = urlsplit(upstream).netloc
        self._faults = faults
        self._calls: Counter[str] = Counter()
        self._changed = threading.Condition()
        #: How often each fault was met.
        self.met: Counter[Fault] = Counter()
        #: Lets calls be answered that are held.
        self.release = threading.Event()
        #: Set when nothing is to be held any more.
        self.closing = threading.Event()

    def next_fault(self, system: str) -> Fault | None:
        """Count a call to *system* and say what happens to it."""
        with self._changed:
            self._calls[system] += 1
            self._changed.notify_all()
            fault = self._faults.get(system, {}).get(self._calls[system])
            if fault is not None:
                self.met[fault] += 1
            return fault

    def calls(self) -> int:
        with self._changed:
            return self._calls.total()

    def await_calls(self, number: int, *, timeout: float) -> bool:
        """Wait until all systems together have seen *number* calls."""
        with self._changed:
            return self._changed.wait_for(lambda: self._calls.total() >= number, timeout)


@contextmanager
def running(proxy: Proxy, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve *proxy* at *host*, an address of ours, and give its URL."""
    server = _Server(proxy, host)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="proxy")
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        proxy.closing.set()
        proxy.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Callers keep connections, so threads end with the callers, who are stopped after us.
    block_on_close = False

    def __init__(self, proxy: Proxy, host: str) -> None:
        super().__init__((host, 0), _Handler)
        self.proxy = proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: callers that die in the middle of a call are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave together, however they are written.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def _meet(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            # Killed while it sent this. A system acts on nothing that it has half of.
            self.close_connection = True
            return
        fault = self.server.proxy.next_fault(self.path.split("/")[1].partition("?")[0])
        match fault:
            case Fault.RESET:
                self._reset()
            case Fault.ERROR:
                self._answer(500, {"Content-Type": "application/json"}, b'{"error": "not now"}')
            case Fault.THROTTLE:
                self._answer(429, {"Retry-After": "1"}, b"")
            case _:
                self._act(body, fault)

    def _act(self, body: bytes, fault: Fault | None) -> None:
        status, headers, answer = self._forward(body)
        match fault:
            case Fault.HANG_AFTER_ACTING:
                self._hold()
                self._reset()
            case Fault.RESET_AFTER_ACTING:
                self._reset()
            case Fault.ERROR_AFTER_ACTING:
                self._answer(500, {}, b"")
            case Fault.CUT_AFTER_ACTING:
                self._answer(status, headers, answer, missing=20)
            case Fault.HELD:
                self.server.proxy.release.wait(HELD)
                self._answer(status, headers, answer)
            case Fault.SLOW:
                self.server.proxy.closing.wait(SLOW)
                self._answer(status, headers, answer)
            case _:
                self._answer(status, headers, answer)

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection(self.server.proxy.upstream, timeout=HELD)
        try:
            upstream.request(self.command, self.path, body=body, headers=dict(self.headers))
            response = upstream.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            upstream.close()

    def _answer(
        self, status: int, headers: Mapping[str, str], body: bytes, *, missing: int = 0
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if missing:
            self.close_connection = True

    def _hold(self) -> None:
        """Wait until the caller has gone."""
        for _ in range(int(HELD / 0.1)):
            readable, _, _ = select.select([self.connection], [], [], 0.1)
            if readable or self.server.proxy.closing.is_set():
                return

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close_connection = True
        self.connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _meet

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""
