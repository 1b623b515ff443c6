"""Real processes of the relay on a store of their own, and a sender that does not give up."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests
from network import EVERYBODY

from connectors import sandbox
from relay.store import Queries, StoreUnavailable, connect
from relay.store.values import EventView

SECRET = "a secret for tests"
PATH = "/webhooks/gofax"
#: Seconds that anything may take on a machine that others keep busy.
PATIENCE = 180.0

CONFIG = """\
server: {{listen: "{address}:{port}", threads: 32}}
admin: off
store: {store}
outbound: {{allow: ["127.0.0.0/8", "{everybody}"]}}
endpoints:
  - path: /webhooks/gofax
    signing_secrets: ["{secret}"]
destinations:
  crm:        {{connector: hubspot, access_token: test, base_url: "{systems}/hubspot", {common}}}
  helpdesk:   {{connector: zendesk, subdomain: test, access_token: test,
               base_url: "{systems}/zendesk", {common}}}
  front-desk: {{connector: teams, url: "{systems}/teams/unlimited", {common}}}
routes:
  - {{name: everything, to: [crm, helpdesk]}}
  - {{name: replies are shown, when: {{event: SMS_REPLY}}, to: [front-desk]}}
"""
#: Quick retries, and no rate of the connector's own: tests do not wait for seconds. The deadline
#: is long enough for a machine that has other things to do: ten time-outs would open the breaker.
COMMON = "retry: {schedule: [50ms, 200ms, 500ms]}, rate: 1000/1s, deadline: 6s"


def eventually(what: Callable[[], Any], *, patience: float = PATIENCE, said: str = "") -> Any:
    """Call *what* until it returns something true, and return that."""
    ends_at = time.monotonic() + patience
    pause = threading.Event()
    while not (found := what()):
        assert time.monotonic() < ends_at, f"not within {patience} s: {said or what}"
        pause.wait(0.05)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A command in a process of its own, what it says kept in a file."""

    def __init__(
        self, command: Sequence[str], *, log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command, stdout=stream, stderr=stream, env=environ, start_new_session=True
            )
        self.pid = self._process.pid

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        return self._process.wait(timeout)

    def descendants(self) -> list[psutil.Process]:
        """Return every process below this one, the oldest first."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def standing(self) -> str:
        """Say what became of the process so far."""
        if self.code is not None:
            return f"ended with {self.code}"
        process = psutil.Process(self.pid)
        spent = process.cpu_times()
        return f"{process.status()}, {spent.user:.1f} s and {spent.system:.1f} s of CPU"

    def hang(self) -> None:
        """Let this process and all below it stand still."""
        tree = self._tree()
        for each in tree:
            each.suspend()
        eventually(lambda: {each.status() for each in tree} == {psutil.STATUS_STOPPED})

    def go_on(self) -> None:
        """Let what stood still go on."""
        for each in self._tree():
            each.resume()

    def _tree(self) -> list[psutil.Process]:
        return [psutil.Process(self.pid), *self.descendants()]

    def kill(self) -> None:
        """End this process and all below it, also those that are stopped."""
        below = self.descendants()
        if self.code is None:
            self._process.kill()
        for each in below:
            if each.is_running():
                each.kill()
        self._process.wait(PATIENCE)


class Relay:
    """A relay with a config and a store of its own; it runs as one process or as several."""

    def __init__(
        self,
        folder: Path,
        *,
        systems: str = "http://127.0.0.1:9",
        store: Path | None = None,
        server: str | None = None,
        address: str = "127.0.0.1",
        inside: Sequence[str] = (),
        config: str = CONFIG,
        common: str = COMMON,
        more: str = "",
    ) -> None:
        """*store* may lie elsewhere; *more* is YAML at the end of the config.

        Shared with others is the store at *server*, a URL. A command is started with *inside* in
        front of it, and listens on *address*.
        """
        self.folder = folder
        self.port = free_port()
        self.url = f"http://{address}:{self.port}"
        self.store = store or folder / "relay.db"
        self.store_url = server or f"sqlite:///{self.store}"
        self.config = folder / "config.yaml"
        self.config.write_text(
            config.format(
                address=address,
                port=self.port,
                store=self.store_url,
                everybody=EVERYBODY,
                secret=SECRET,
                systems=systems,
                common=common,
            )
            + more
        )
        self.processes: list[Process] = []
        self._inside = inside

    def run(
        self,
        command: str,
        *,
        name: str | None = None,
        before: Sequence[str] = (),
        program: Sequence[str] = ("-m", "relay.cli"),
        environ: Mapping[str, str] | None = None,
    ) -> Process:
        """Start *command*, with *before* in front of it, without waiting for anything."""
        relay = [sys.executable, *program, command, "--config", str(self.config)]
        whole = [*self._inside, *before, *relay]
        log = self.folder / f"{len(self.processes) + 1}-{name or command}.log"
        process = Process(whole, log=log, environ=environ)
        self.processes.append(process)
        return process

    def start(self, command: str = "serve", **options: Any) -> Process:
        """Start *command* and wait until it is at work."""
        process = self.run(command, **options)
        ready = self.answers if command != "work" else lambda: "worker.started" in process.said()
        eventually(lambda: ready() or process.code is not None, said=f"{command} starts")
        assert process.code is None, process.said()
        return process

    def stop(self) -> None:
        for process in self.processes:
            process.kill()

    def answers(self) -> bool:
        try:
            return requests.get(self.url + "/livez", timeout=5).ok
        except requests.RequestException:
            return False

    def post(self, message: Mapping[str, Any], *, timeout: float = 20) -> requests.Response:
        body = json.dumps(message).encode()
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "X-GoFax-Signature": signature}
        return requests.post(self.url + PATH, data=body, headers=headers, timeout=timeout)

    def events(self) -> list[EventView]:
        """Return the events in the order in which they were accepted."""
        with closing(connect(self.store_url)) as database:
            return list(Queries(database).events())

    def event(self, name: str) -> EventView:
        """Return one event with its attempts."""
        with closing(connect(self.store_url)) as database:
            view = Queries(database).event(name)
        assert view is not None, f"no event {name}"
        return view

    def unsettled(self) -> list[str]:
        """Return which deliveries are neither delivered, dead nor held."""
        try:
            return [
                f"{view.event.message_id} to {delivery.destination}: {delivery.state.value}"
                f" since {delivery.error or 'never tried'}, due {delivery.due_at}"
                for view in self.events()
                for delivery in view.deliveries
                if delivery.state.value not in ("delivered", "dead", "held")
            ]
        except StoreUnavailable as error:
            return [str(error)]

    def settle(self, *, patience: float = PATIENCE) -> None:
        """Wait until no delivery is on its way."""
        ends_at = time.monotonic() + patience
        pause = threading.Event()
        while left := self.unsettled():
            assert time.monotonic() < ends_at, "still on their way:\n" + "\n".join(left)
            pause.wait(0.2)


def message(
    name: str, *, conversation: int = 0, type: str = "SMS_REPLY", text: str | None = None
) -> dict[str, Any]:
    """Make an event of GoFax; its text names it, so that its effects can be found."""
    # Conversations 2 and 3 are of one customer, who writes to two numbers of ours.
    customer, ours = (2, 1) if conversation == 3 else (conversation, 0)
    return {
        "eventType": type,
        "eventTimestamp": "2025-12-04T00:24:07.112733Z",
        "messageId": name,
        "direction": "reply" if type == "SMS_REPLY" else "inbound",
        "from": f"+6140000000{customer}",
        "to": f"+6170000000{ours}",
        "messageBody": text or f"this is [{name}] and nothing else",
        "metadata": {"accountId": "12345"},
        "signature": "HMAC_SHA256",
    }


@contextmanager
def lock_file(relay: Relay) -> Iterator[None]:
    """Hold the lock on which writers queue up, as a process that hangs would."""
    with Path(f"{relay.store}.lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def running_sandbox() -> Iterator[str]:
    """Serve the stand-ins over HTTP from a thread of this process; give their address."""
    # It writes a line for each call; nobody has to read hundreds of them.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = sandbox.serve(port=0)
    thread = threading.Thread(target=server.serve_forever, name="sandbox")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


KILL, TERM = signal.SIGKILL, signal.SIGTERM
