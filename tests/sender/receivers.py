"""Receivers that scenarios are played to: a right one, and ones that are wrong in one way each."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRETS = ("the present secret", "the one before")
MAX_BODY = 1 << 16
KNOWN_FIELDS = {
    *("eventType", "eventTimestamp", "messageId", "direction", "from", "to", "messageBody"),
    *("metadata", "signature"),
}


@dataclass
class Endpoint:
    """A receiver with a list of effects at /records, and failures to order at /faults."""

    secrets: tuple[str, ...] = SECRETS
    checks_signatures: bool = True
    #: Signs what a JSON library makes of the body, instead of the bytes.
    signs_parsed: bool = False
    bad_signature: int = 401
    knows_duplicates: bool = True
    #: Remembers the id of an event of which only half has come.
    remembers_halves: bool = False
    #: Refuses events whose time is further off than this.
    max_age: timedelta | None = None
    #: Answers 500 to whatever GoFax's page does not show.
    is_strict: bool = False
    #: Answers 200 to chunked bodies without reading them.
    drops_chunked: bool = False
    #: Reads one request, and then the next.
    one_at_a_time: bool = False
    #: Seconds of work before each answer, one event after the other.
    works_first: float = 0.0
    #: Whether /faults is there, and whether what it takes comes true.
    offers_faults: bool = True
    obeys_faults: bool = True
    url: str = ""
    effects: list[dict[str, str]] = field(default_factory=list)
    faults: list[Any] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def records(self) -> str:
        return self.url.rpartition("/hook")[0] + "/records"

    def turn(self) -> Any:
        return self._turn if self.one_at_a_time else nullcontext()

    def receive_half(self, body: bytes) -> None:
        """Take note of a body that was cut."""
        found = re.search(rb'"messageId": "([^"]+)"', body)
        if self.remembers_halves and found:
            self._seen.add(found[1].decode())

    def receive(self, body: bytes, signature: str) -> int:
        """Return the status to answer with."""
        if self.checks_signatures and not self._is_genuine(body, signature):
            return self.bad_signature
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            event = None
        if self.is_strict and not _is_plain(event):
            return 500
        if not isinstance(event, dict):
            return 400
        if self.max_age is not None and _age(event) > self.max_age:
            return 400
        with self._lock:
            threading.Event().wait(self.works_first)
            if self.faults and self.obeys_faults:
                self.faults.clear()
                return 500
            message_id = str(event.get("messageId"))
            if self.knows_duplicates and message_id in self._seen:
                return 200
            self._seen.add(message_id)
            text = str(event.get("messageBody"))
            self.effects.append({"system": "inbox", "text": text})
        return 200

    def _is_genuine(self, body: bytes, signature: str) -> bool:
        if self.signs_parsed:
            try:
                body = json.dumps(json.loads(body), ensure_ascii=False).encode()
            except (ValueError, RecursionError):
                return False
        good = [hmac.new(each.encode(), body, hashlib.sha256).hexdigest() for each in self.secrets]
        return any(hmac.compare_digest(each.encode(), signature.encode()) for each in good)


def _is_plain(event: Any) -> bool:
    return (
        isinstance(event, dict)
        and event.keys() == KNOWN_FIELDS
        and event["eventType"] in ("SMS_REPLY", "SMS_RECEIVED")
        and isinstance(event["messageBody"], str)
        and event["from"].startswith("+")
    )


def _age(event: dict[str, Any]) -> timedelta:
    try:
        at = datetime.fromisoformat(event["eventTimestamp"])
    except ValueError:
        return timedelta()
    return abs(datetime.now(UTC) - at)


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # A client that never sends the rest must not hold a thread for ever.
        timeout = 20

        def do_GET(self) -> None:
            shown = endpoint.faults if self.path == "/faults" else endpoint.effects
            self._answer(200, json.dumps(shown).encode())

        def do_DELETE(self) -> None:
            endpoint.faults.clear()
            self._answer(204)

        def do_POST(self) -> None:
            with endpoint.turn():
                self._post()

        def _post(self) -> None:
            if self.path == "/faults" and endpoint.offers_faults:
                endpoint.faults.append(json.loads(self._body()))
                return self._answer(204)
            if self.path != "/hook":
                return self._answer(404)
            if "Content-Length" not in self.headers:
                self.close_connection = True
                return self._answer(200 if endpoint.drops_chunked else 411)
            if self.headers.get("Content-Encoding"):
                return self._answer(500 if endpoint.is_strict else 415)
            body = self._body()
            if len(body) > MAX_BODY:
                return self._answer(500 if endpoint.is_strict else 413)
            if len(body) < int(self.headers["Content-Length"]):
                return endpoint.receive_half(body)
            return self._answer(endpoint.receive(body, self.headers.get("X-GoFax-Signature", "")))

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def _answer(self, status: int, body: bytes = b"{}") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if status != 204 else 0))
            self.end_headers()
            if status != 204:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    # A burst comes at once.
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that hang up: scenarios do that."""


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
