"""Real processes of the relay on a store of their own, and a sender that does not give up."""

from __future__ import annotations

import fcntl
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import requests
from gofax import EXAMPLE, sign
from network import EVERYBODY
from programs import PATIENCE, Process, eventually, free_port

from connectors import sandbox
from relay.store import Queries, StoreUnavailable, connect
from relay.store.values import EventView

SECRET = "a secret for tests"
PATH = "/webhooks/gofax"

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
        headers = {"Content-Type": "application/json", "X-GoFax-Signature": sign(body, SECRET)}
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
    return EXAMPLE | {
        "eventType": type,
        "messageId": name,
        "direction": "reply" if type == "SMS_REPLY" else "inbound",
        "from": f"+6140000000{customer}",
        "to": f"+6170000000{ours}",
        "messageBody": text or f"this is [{name}] and nothing else",
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
