"""Real processes: the relay, the sandbox, and what is posted to them over real sockets."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests
import trustme

from relay.shapes.events import event_json
from relay.shapes.requests import request_json
from relay.store import Queries, connect

SECRET = "a secret for tests"
#: Seconds that anything may take on a loaded machine.
PATIENCE = 45.0

EXAMPLE = {
    "eventType": "SMS_REPLY",
    "eventTimestamp": "2025-12-04T00:24:07.112733Z",
    "messageId": "abc123",
    "direction": "reply",
    "from": "+61400000000",
    "to": "+61700000000",
    "messageBody": "Thanks for your message",
    "metadata": {"accountId": "12345"},
    "signature": "HMAC_SHA256",
}

CONFIG = """\
server: {{listen: "127.0.0.1:{port}"}}
admin: off
store: sqlite:///relay.db
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints:
  - path: /webhooks/gofax
    signing_secrets: ["{secret}"]
  - path: /webhooks/gofax/status
    format: form
    basic_auth: {{username: gofax, password: "status password"}}
destinations:
  crm:        {{connector: hubspot, access_token: test, base_url: "{sandbox}/hubspot", {common}}}
  helpdesk:   {{connector: zendesk, subdomain: test, access_token: test,
               base_url: "{sandbox}/zendesk", {common}}}
  front-desk: {{connector: teams, url: "{sandbox}/teams", {common}}}
routes:
  - {{name: everything to the CRM, when: {{not: {{event: SMS_STATUS}}}}, to: [crm]}}
  - {{name: replies become tickets, when: {{event: SMS_REPLY}}, to: [helpdesk, front-desk]}}
"""
#: Quick retries, and no rate of the connector's own: tests do not wait for seconds.
COMMON = "retry: {schedule: [200ms, 500ms]}, rate: 1000/1s"


def wait_for(what: Callable[[], Any], *, patience: float = PATIENCE) -> Any:
    """Call *what* until it returns something true, and return that."""
    ends_at = time.monotonic() + patience
    while time.monotonic() < ends_at:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {patience} s: {what}")


def sign(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def free_port() -> int:
    """Return a port that nobody listens on, below those that outgoing connections are given."""
    while True:
        # Not from random, which starts anew with each test, in every process alike.
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Process:
    """A command of ours in a process of its own, its log kept."""

    def __init__(self, command: Sequence[str], *, log: Path, cwd: Path) -> None:
        self.log = log
        self._stream = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=self._stream,
            stderr=self._stream,
            cwd=cwd,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        return self._process.wait(timeout)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        if self.is_running():
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self._process.wait(15)
        self._stream.close()

    def kill_group(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(15)


class Sandbox:
    """The stand-ins at a port that stays the same over restarts."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder, self._stack = folder, stack
        self.process: Process | None = None

    def start(self) -> None:
        command = ["relay.cli", "sandbox", "--port", str(self.port)]
        self.process = Process(command, log=self._folder / "sandbox.log", cwd=self._folder)
        self._stack.callback(self.process.stop)
        wait_for(self.answers)

    def answers(self) -> bool:
        try:
            return requests.get(self.url + "/records", timeout=5).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def stop(self) -> None:
        assert self.process is not None
        self.process.stop()

    def records(self, system: str | None = None) -> list[dict[str, Any]]:
        found = requests.get(self.url + "/records", timeout=10).json()
        return [each for each in found if system in (None, each["system"])]

    def fault(self, **fault: Any) -> None:
        assert requests.post(self.url + "/faults", json=fault, timeout=10).status_code == 204


class Relay:
    """A relay with a config and a store of its own."""

    def __init__(self, folder: Path, stack: ExitStack, *, sandbox: str) -> None:
        self.folder, self._stack = folder, stack
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        #: What vouches for it, if it serves https.
        self.ca: Path | None = None
        self.store = f"sqlite:///{folder / 'relay.db'}"
        self.config = folder / "config.yaml"
        self.config.write_text(
            CONFIG.format(port=self.port, secret=SECRET, sandbox=sandbox, common=COMMON)
        )

    def encrypt(self) -> None:
        """Let it serve https from now on."""
        ca = trustme.CA()
        self.ca = self.folder / "ca.pem"
        ca.cert_pem.write_to_path(str(self.ca))
        made = ca.issue_cert("127.0.0.1")
        made.cert_chain_pems[0].write_to_path(str(self.folder / "cert.pem"))
        made.private_key_pem.write_to_path(str(self.folder / "key.pem"))
        tls = "tls: {cert: cert.pem, key: key.pem}\n"
        self.config.write_text(tls + self.config.read_text())
        self.url = f"https://127.0.0.1:{self.port}"

    @property
    def _verify(self) -> bool | str:
        return str(self.ca) if self.ca else True

    def start(self, command: str = "serve") -> Process:
        process = self.run(command)
        if command != "work":
            wait_for(lambda: self.answers() or not process.is_running())
            assert process.is_running(), process.said()
        return process

    def run(self, command: str) -> Process:
        """Start a command without waiting for it."""
        process = Process(
            ["relay.cli", command, "--config", str(self.config)],
            log=self.folder / f"{command}.log",
            cwd=self.folder,
        )
        self._stack.callback(process.stop)
        return process

    def answers(self) -> bool:
        try:
            return requests.get(self.url + "/readyz", timeout=5, verify=self._verify).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def post(
        self,
        payload: Mapping[str, Any] | bytes,
        *,
        secret: str = SECRET,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        sent = {"Content-Type": "application/json", "X-GoFax-Signature": sign(body, secret)}
        sent |= headers or {}
        return requests.post(
            self.url + "/webhooks/gofax",
            data=body,
            headers=sent,
            timeout=20,
            verify=self._verify,
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "relay.cli", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=self.folder,
        )

    def listed(self, what: str) -> list[dict[str, Any]]:
        """Return what ``events --json`` or ``requests --json`` prints, without a process."""
        database = connect(self.store)
        try:
            queries = Queries(database)
            if what == "events":
                return [event_json(view) for view in queries.events()]
            return [request_json(request) for request in queries.requests()]
        finally:
            database.close()

    def settled(self) -> list[dict[str, Any]]:
        """Wait until no delivery is on its way, and return the events."""

        def ended() -> list[dict[str, Any]] | None:
            events = self.listed("events")
            states = {d["state"] for event in events for d in event["deliveries"]}
            return events if events and states <= {"delivered", "dead", "held"} else None

        found: list[dict[str, Any]] = wait_for(ended)
        return found
