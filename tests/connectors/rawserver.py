"""A server on a raw socket that answers, or misbehaves, as a test tells it to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType

#: Answers, or does not; true: the connection stays open for the next request.
Answer = Callable[["Connection"], bool | None]


class Connection:
    """One accepted connection whose request has been read."""

    def __init__(self, sock: socket.socket, stop: threading.Event, request: bytes) -> None:
        self.sock = sock
        self.stop = stop
        self.request = request

    def say(self, answer: bytes) -> None:
        """Send *answer* at once."""
        self.sock.sendall(answer)

    def dribble(self, answer: bytes, *, pause: float = 0.05) -> None:
        """Send *answer* byte by byte until it is over or nobody listens."""
        for byte in answer:
            if self.stop.wait(pause):
                return
            self.say(bytes([byte]))

    def hang(self) -> None:
        """Keep the connection open and silent until the test ends."""
        self.stop.wait(30)

    def reset(self) -> None:
        """Close with RST, as a crashed peer does."""
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


class RawServer:
    """Answers each request with fixed bytes or by a function; a context manager."""

    def __init__(self, answer: bytes | Answer) -> None:
        self._answer = answer
        #: What was received, head and body together, in order of arrival.
        self.requests: list[bytes] = []
        #: How many connections were accepted.
        self.connections = 0
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(0.05)
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> RawServer:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(0.05)
        with sock:
            while request := self._read(sock):
                self.requests.append(request)
                sock.settimeout(10)
                if not self._keeps_open(Connection(sock, self._stop, request)):
                    return
                sock.settimeout(0.05)

    def _keeps_open(self, connection: Connection) -> bool:
        try:
            if isinstance(self._answer, bytes):
                connection.say(self._answer)
                return True
            return self._answer(connection) is True
        except OSError:
            return False  # the client went away, which is what many tests want

    def _read(self, sock: socket.socket) -> bytes:
        received = bytearray()
        while not _is_whole(received) and not self._stop.is_set():
            try:
                chunk = sock.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                return b""
            if not chunk:
                return b""
            received += chunk
        return bytes(received)


def _is_whole(received: bytes) -> bool:
    head, blank, body = received.partition(b"\r\n\r\n")
    sizes = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    return bool(blank) and len(body) >= (sizes or [0])[0]


def answer(status: int = 200, *, body: bytes = b"", **headers: str) -> bytes:
    """Build an HTTP answer; underscores in *headers* stand for hyphens."""
    fields = {"Content-Length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Because\r\n{head}\r\n".encode() + body
