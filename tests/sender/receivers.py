"""Receivers that scenarios are played to: a right one, and ones wrong in one way each."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRETS = ("the present secret", "the one before")
MAX_BODY = 1 << 16


@dataclass
class Endpoint:
    """A receiver with a list of effects, as GET /records shows them."""

    checks_signatures: bool = True
    knows_duplicates: bool = True
    #: Seconds of work before each answer, one event after the other.
    works_first: float = 0.0
    url: str = ""
    effects: list[dict[str, str]] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def records(self) -> str:
        return self.url.rpartition("/hook")[0] + "/records"

    def receive(self, body: bytes, signature: str) -> int:
        """Return the status to answer with."""
        if self.checks_signatures and not _is_genuine(body, signature):
            return 401
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            return 400
        if not isinstance(event, dict):
            return 400
        with self._lock:
            if self.works_first:
                threading.Event().wait(self.works_first)
            message_id = str(event.get("messageId"))
            if self.knows_duplicates and message_id in self._seen:
                return 200
            self._seen.add(message_id)
            text = str(event.get("messageBody"))
            self.effects.append({"system": "inbox", "text": text})
        return 200


def _is_genuine(body: bytes, signature: str) -> bool:
    good = [hmac.new(each.encode(), body, hashlib.sha256).hexdigest() for each in SECRETS]
    return any(hmac.compare_digest(each.encode(), signature.encode()) for each in good)


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # A client that never sends the rest must not hold a thread for ever.
        timeout = 20

        def do_GET(self) -> None:
            self._answer(200, json.dumps(endpoint.effects).encode())

        def do_POST(self) -> None:
            if self.path != "/hook":
                return self._answer(404)
            if "Content-Length" not in self.headers:
                return self._answer(411)
            if self.headers.get("Content-Encoding"):
                return self._answer(415)
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if length > MAX_BODY:
                return self._answer(413)
            if len(body) < length:
                return None
            return self._answer(endpoint.receive(body, self.headers.get("X-GoFax-Signature", "")))

        def _answer(self, status: int, body: bytes = b"{}") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    # A burst comes at once.
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that hang up: it is what they are here for."""


@contextmanager
def serving(endpoint: Endpoint, *, tls: ssl.SSLContext | None = None) -> Iterator[Endpoint]:
    """Run *endpoint* on a port of its own."""
    server = _Server(("127.0.0.1", 0), _handler(endpoint))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    endpoint.url = f"{scheme}://localhost:{server.server_port}/hook"
    if tls is None:
        endpoint.url = endpoint.url.replace("localhost", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
