"""A system that deliveries go to, in this process: it notes what comes, and answers by script."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class Receiver:
    """Answers POSTs with 200, unless there is a script for a message; a context manager."""

    def __init__(self) -> None:
        #: Messages and their conversations, in the order in which they came.
        self.came: list[tuple[str, str]] = []
        #: Answers to a message, used up one by one: a status, or "hang".
        self.script: dict[str, list[int | str]] = defaultdict(list)
        self.released = threading.Event()
        self._guard = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = receiver._answer(body["message_id"], body["customer"])
                self.send_response(status)
                self.send_header("Content-Length", "0")
                if status == 429:
                    self.send_header("Retry-After", "1")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def names(self, prefix: str) -> list[str]:
        """Return the messages whose names begin so, in the order in which they came."""
        return [name for name, _ in list(self.came) if name.startswith(prefix)]

    def _answer(self, name: str, conversation: str) -> int:
        with self._guard:
            self.came.append((name, conversation))
            answer = self.script[name].pop(0) if self.script[name] else 200
        if isinstance(answer, str):
            self.released.wait(60)
            return 200
        return answer
