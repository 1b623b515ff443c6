"""An HTTP gateway between a connector and its stand-in, which counts requests and spoils some."""

from __future__ import annotations

import http.client
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

#: Headers that concern one connection only (RFC 9110, 7.6.1).
OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade"}
#: Seconds that the gateway waits for the stand-in, and stays silent at most.
PATIENCE = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One request as it came to the gateway."""

    #: Counts from 1 for each gateway.
    number: int
    method: str
    #: Path and query.
    target: str
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        return f"request {self.number} ({self.method} {self.target.partition('?')[0]})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What happens to a request instead of being passed on and answered."""

    #: Pass the request on all the same: the stand-in acts, and the connector does not hear of it.
    acts: bool = False
    #: ``answer`` with the fields below, ``dribble`` that answer byte by byte, ``reset`` the
    #: connection, ``close`` it, or ``hang`` in silence.
    ends: Literal["answer", "dribble", "reset", "close", "hang"] = "answer"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: Called before the end, whatever it is.
    meanwhile: Callable[[], None] | None = None


#: Says what befalls a request; None: nothing does.
Plan = Callable[[Asked], Fault | None]


def lasting(fault: Fault, *, since: int = 1) -> Plan:
    """Let every request from number *since* on meet *fault*."""
    return lambda asked: fault if asked.number >= since else None


def once(fault: Fault, *, at: int) -> Plan:
    """Let request number *at* meet *fault*, and no other."""
    return lambda asked: fault if asked.number == at else None


class Gateway:
    """Passes requests on to a stand-in, except for those that *plan* spoils; a context manager."""

    def __init__(self, upstream: str, *, plan: Plan | None = None) -> None:
        """*upstream*: address of the stand-in, ``http://host:port/path``."""
        parts = urlsplit(upstream)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ValueError(f"{upstream}: the stand-in's address must be http://host:port/…")
        self._upstream = (parts.hostname, parts.port)
        self._path = parts.path
        self._plan = plan
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.gateway = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        #: Every request so far, in order of arrival.
        self.requests: list[Asked] = []

    @property
    def url(self) -> str:
        """The address to give the connector instead of the stand-in's."""
        return f"http://127.0.0.1:{self._server.server_port}{self._path}"

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return self._server.accepted

    def __enter__(self) -> Gateway:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def receive(self, handler: BaseHTTPRequestHandler) -> None:
        """Spoil one request, or pass it on and its answer back."""
        asked = Asked(
            number=next(self._numbers),
            method=handler.command,
            target=handler.path,
            headers=dict(handler.headers.items()),
            body=_body(handler),
        )
        self.requests.append(asked)
        fault = self._plan(asked) if self._plan else None
        if fault is None:
            _answer(handler, *self._pass_on(asked))
            return
        if fault.acts:
            self._pass_on(asked)
        if fault.meanwhile:
            fault.meanwhile()
        self._end(handler, fault)

    def _pass_on(self, asked: Asked) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self._upstream, timeout=PATIENCE)
        try:
            # Host goes on as it came, so that links in answers lead through the gateway too.
            connection.putrequest(
                asked.method, asked.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in asked.headers.items():
                if name.lower() not in OF_ONE_CONNECTION | {"content-length"}:
                    connection.putheader(name, value.encode("latin-1"))
            connection.putheader("Content-Length", str(len(asked.body)))
            connection.endheaders(asked.body)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _end(self, handler: BaseHTTPRequestHandler, fault: Fault) -> None:
        if fault.ends == "answer":
            _answer(handler, fault.status, list(fault.headers.items()), fault.body)
            return
        handler.close_connection = True
        if fault.ends == "hang":
            self._stopping.wait(PATIENCE)
        if fault.ends == "dribble":
            self._dribble(handler, fault)
        if fault.ends == "reset":
            handler.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )

    def _dribble(self, handler: BaseHTTPRequestHandler, fault: Fault) -> None:
        head = f"HTTP/1.1 {fault.status} Slow\r\nContent-Length: {len(fault.body) + 1000}\r\n\r\n"
        for byte in itertools.chain(head.encode(), fault.body, itertools.repeat(32, 1000)):
            if self._stopping.wait(0.05):
                return
            handler.wfile.write(bytes([byte]))


class _Server(ThreadingHTTPServer):
    """Keeps its connections, so that it can end those that connectors forgot to close."""

    gateway: Gateway
    request_queue_size = 128
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.accepted = 0
        self._open: dict[socket.socket, threading.Thread] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        self.accepted += 1
        arguments = (request, client_address)
        thread = threading.Thread(target=self.process_request_thread, args=arguments)
        self._open[request] = thread
        thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what many checks are about."""

    def shutdown_request(self, request: Any) -> None:
        # Not ``shutdown``, which would send FIN where a fault wants RST.
        self._open.pop(request, None)
        self.close_request(request)

    def server_close(self) -> None:
        super().server_close()
        for request, thread in list(self._open.items()):
            with suppress(OSError):  # its thread was faster
                request.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._receive
        raise AttributeError(name)

    def _receive(self) -> None:
        self.server.gateway.receive(self)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    chunks = []
    while size := int(handler.rfile.readline().partition(b";")[0], 16):
        chunks.append(handler.rfile.read(size))
        handler.rfile.readline()
    while handler.rfile.readline().strip():
        pass  # trailers
    return b"".join(chunks)


def _answer(
    handler: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], body: bytes
) -> None:
    handler.send_response_only(status)
    for name, value in headers:
        if name.lower() not in OF_ONE_CONNECTION | {"content-length"}:
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD" and status not in (204, 304):
        handler.wfile.write(body)
