"""A receiver over a real socket, written with nothing but ``hmac``, and a way to run the CLI."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SECRET = "a secret for tests"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
#: What goes back to the beginning of a line and writes it again.
REWRITE = re.compile(r"\r?\x1b\[2K|\r(?!\n)")


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    #: Whether the signature header is the HMAC of the body under SECRET.
    verified: bool


@dataclass
class Receiver:
    """Records what is posted; answers 401 to JSON with a bad signature, else what it is told."""

    url: str = ""
    status: int = 200
    #: Statuses of the next answers, before ``status``.
    next_statuses: list[int] = field(default_factory=list)
    answer: bytes = b'{"status": "accepted"}'
    headers: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)

    @property
    def bodies(self) -> list[bytes]:
        return [each.body for each in self.received]


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            good = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
            verified = self.headers.get("X-GoFax-Signature", "") == good
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Received(self.path, headers, body, verified))
            status = receiver.next_statuses.pop(0) if receiver.next_statuses else receiver.status
            is_json = headers.get("content-type") == "application/json"
            self.send_response(401 if is_json and not verified else status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(receiver.answer)))
            self.end_headers()
            self.wfile.write(receiver.answer)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@pytest.fixture(autouse=True)
def store_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test profiles and a log of its own."""
    path = tmp_path / "store" / "sender.db"
    monkeypatch.setenv("GOFAX_SENDER_STORE", str(path))
    return path


@pytest.fixture
def secret() -> str:
    return SECRET


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(receiver))
    server.daemon_threads = False
    receiver.url = f"http://127.0.0.1:{server.server_port}/webhooks/gofax"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield receiver
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def silent_url() -> Iterator[str]:
    """The URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.fixture
def unreachable_url() -> Iterator[str]:
    """A URL whose port refuses connections and is given to no other server."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"


@pytest.fixture
def raw_server() -> Iterator[Callable[..., str]]:
    """Start a server that sends given bytes, all at once or dribbling, and then closes."""
    stop = threading.Event()
    running: list[tuple[socket.socket, threading.Thread]] = []

    def serve(sent: bytes, *, a_byte_each: float | None = None) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=_answer, args=(listener, sent, a_byte_each, stop))
        thread.start()
        running.append((listener, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield serve
    stop.set()
    for listener, thread in running:
        thread.join()
        listener.close()


def _answer(
    listener: socket.socket, sent: bytes, a_byte_each: float | None, stop: threading.Event
) -> None:
    listener.settimeout(10)
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(10)
        connection.recv(65536)
        if a_byte_each is None:
            connection.sendall(sent)
            return
        for each in sent:
            if stop.wait(a_byte_each):
                return
            try:
                connection.sendall(bytes([each]))
            except OSError:
                return


@pytest.fixture
def run(store_file: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``gofax-sender`` as a process of its own."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if "GOFAX" not in name}
        return subprocess.run(
            [sys.executable, "-m", "sender", *arguments],
            cwd=ROOT,
            env=clean
            | {"PYTHONIOENCODING": "utf-8", "GOFAX_SENDER_STORE": str(store_file)}
            | environment,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def scripted(receiver: Receiver) -> Callable[..., Receiver]:
    """Script the receiver's answers, one after the other."""

    def script(*statuses: int) -> Receiver:
        receiver.next_statuses[:] = statuses
        return receiver

    return script


@pytest.fixture
def run_in_terminal(store_file: Path) -> Callable[..., str]:
    """Run ``gofax-sender`` in a pseudo-terminal, and return every line that it wrote."""

    def run(*arguments: str, columns: int) -> str:
        controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        process = subprocess.Popen(
            [sys.executable, "-m", "sender", *arguments],
            cwd=ROOT,
            env=environment | {"TERM": "xterm", "GOFAX_SENDER_STORE": str(store_file)},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        with open(controller, "rb", buffering=0) as screen:  # noqa: PTH123
            shown = b"".join(_until_closed(screen))
        assert process.wait(60) == 0, shown
        return ANSI.sub("", REWRITE.sub("\n", shown.decode()))

    return run


def _until_closed(screen: Any) -> Iterator[bytes]:
    while True:
        try:
            piece = screen.read(65536)
        except OSError:  # Linux: the other end is closed.
            return
        if not piece:
            return
        yield piece
