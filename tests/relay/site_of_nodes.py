"""Real processes of the relay beside one config, and a system that they deliver to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
from fakes import eventually

CONFIG = """\
server: {{listen: "127.0.0.1:{port}", threads: 16}}
store: {store}
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints: [{{path: /open, allow_unsigned: true}}]
destinations:
  flow: {{connector: webhook, url: "{flow}", rate: 1000/1s, retry: {{schedule: [{schedule}]}}}}
routes: [{{to: [flow]}}]
admin: off
"""
#: Seconds that anything may take on a machine that others keep busy.
PATIENCE = 90.0


class Site:
    """A folder with a config, and the commands that run with it."""

    def __init__(
        self,
        folder: Path,
        *,
        store: str,
        flow: str = "http://127.0.0.1:9",
        schedule: str = "100ms",
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self._flow, self._schedule = folder, flow, schedule
        #: What runs the commands: an installation may have its own.
        self.python = sys.executable
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        #: Runs the commands; a test may put that of another version here.
        self.python = sys.executable
        self.store(store)
        #: The authority that vouches for it, if it serves https.
        self.ca: Path | None = None
        self._processes: list[subprocess.Popen[bytes]] = []

    def store(self, url: str) -> None:
        """Let what is started from now on use another store."""
        text = CONFIG.format(port=self.port, store=url, flow=self._flow, schedule=self._schedule)
        (self.folder / "config.yaml").write_text(text)

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [self.python, "-P", "-m", "relay.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            timeout=PATIENCE,
            env={**os.environ, **environ},
        )

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a command that prints JSON lines, and return those."""
        ended = self.run(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start a command in a group of its own; what it says is kept in a file."""
        with (self.folder / f"{len(self._processes)}-{arguments[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                [self.python, "-P", "-m", "relay.cli", *arguments],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **environ},
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def serve(self, command: str = "serve", **environ: str) -> subprocess.Popen[bytes]:
        """Start a receiver, or both, and wait until it answers."""
        process = self.start(command, **environ)
        eventually(lambda: self.answers() or process.poll() is not None, seconds=PATIENCE)
        assert process.poll() is None, self.said()
        return process

    def said(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://127.0.0.1:{self.port}"

    @property
    def _verify(self) -> bool | str:
        return str(self.ca) if self.ca else True

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/livez", timeout=5, verify=self._verify).ok
        except requests.RequestException:
            return False

    def post(self, name: str, *, customer: str = "+61400000001", text: str = "") -> str:
        """Send a message once, and return what became of it; ``503`` and the like if nothing."""
        said = {"messageId": name, "eventType": "SMS_REPLY", "from": customer, "to": "+617"}
        said |= {"messageBody": text} if text else {}
        try:
            answer = requests.post(f"{self.url}/open", json=said, timeout=10, verify=self._verify)
        except requests.RequestException as error:
            return type(error).__name__
        return str(answer.json()["status"]) if answer.ok else str(answer.status_code)

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command with all of its processes."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)


class Flow:
    """A system that takes webhooks, keeps what it got in its order, and can be made to hang."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/flow"
        self.got: list[Mapping[str, Any]] = []
        #: Who calls while this is not set gets no answer.
        self.answering = threading.Event()
        self.answering.set()
        #: The status of its answers; with 408 it has done nothing.
        self.status = 204

    @property
    def names(self) -> list[str]:
        """Return the names of the messages that came."""
        return [each["data"]["message_id"] for each in self.got]


@contextmanager
def flow() -> Iterator[Flow]:
    """Run a system at a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.got.append(body)
            made.answering.wait(PATIENCE)
            self.send_response(made.status)
            self.end_headers()

        def log_message(self, format: str, *values: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        made = Flow(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        made.answering.set()
        server.shutdown()
        thread.join()


def within(seconds: float, condition: Callable[[], object]) -> None:
    """Wait so long at most until *condition* holds, looked at twice a second."""
    pause = threading.Event()
    eventually(lambda: condition() or pause.wait(0.5), seconds=seconds)
