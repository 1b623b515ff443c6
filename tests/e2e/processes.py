"""Real processes: the relay, the sandbox, and what is posted to them over real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests
import trustme
from gofax import sign
from programs import Process, eventually, free_port

from relay.shapes.events import event_json
from relay.shapes.requests import request_json
from relay.store import Queries, connect

SECRET = "a secret for tests"
#: Seconds that anything may take on a loaded machine.
PATIENCE = 45.0

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


class Sandbox:
    """The stand-ins at a port that stays the same over restarts."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder, self._stack = folder, stack
        self.process: Process | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "relay.cli", "sandbox", "--port", str(self.port)]
        self.process = Process(command, log=self._folder / "sandbox.log", cwd=self._folder)
        self._stack.callback(self.process.stop)
        eventually(self.answers)

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
            eventually(lambda: self.answers() or process.code is not None)
            assert process.code is None, process.said()
        return process

    def run(self, command: str) -> Process:
        """Start a command without waiting for it."""
        process = Process(
            [sys.executable, "-m", "relay.cli", command, "--config", str(self.config)],
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

        found: list[dict[str, Any]] = eventually(ended)
        return found
