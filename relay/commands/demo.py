"""The demo: the real commands as processes, a few events, and what arrives where."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import requests

from relay.acts.links import link_for
from relay.rules.access import Role
from relay.rules.delivery import State
from relay.rules.pages import CONSOLE
from relay.store import Database, Queries, connect
from relay.store.actions import Act
from relay.store.people import Users

#: Seconds after which something expected counts as missing.
PATIENCE = 30.0
#: The console's page that answers everybody.
SIGN_IN = f"{CONSOLE}/sign-in"

CONFIG = """\
server: {{listen: "{listen}"}}
admin: {{listen: "{inner}", url: "http://{inner}"}}
store: sqlite:///relay.db
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints:
  - path: /webhooks/gofax
    signing_secrets: ["{secret}"]
destinations:
  crm:        {{connector: hubspot, access_token: demo, base_url: "{sandbox}/hubspot"}}
  helpdesk:   {{connector: zendesk, subdomain: demo, access_token: demo,
               base_url: "{sandbox}/zendesk"}}
  front-desk: {{connector: teams, url: "{sandbox}/teams"}}
routes:
  - {{name: everything to the CRM, to: [crm]}}
  - {{name: replies become tickets, when: {{event: SMS_REPLY}}, to: [helpdesk, front-desk]}}
"""

#: The events: a description, and the arguments of ``gofax-sender send``.
EVENTS: tuple[tuple[str, Sequence[str]], ...] = (
    ("a customer replies", ("--message-id", "demo-1", "--body", "Is my order ready?")),
    ("the same customer again", ("--message-id", "demo-2", "--body", "I can be there at 5 😊")),
    (
        "GoFax sends the first one again",
        ("--message-id", "demo-1", "--body", "Is my order ready?"),
    ),
    (
        "another customer writes",
        ("--event", "SMS_RECEIVED", "--from", "+61400000099", "--message-id", "demo-3",
         "--body", "Are you open on Sunday?"),
    ),
)  # fmt: skip


@click.command()
@click.option("--once", is_flag=True, help="Exit when everything is delivered.")
def demo(once: bool) -> None:
    """Run sandbox, relay and sample events in a temporary folder, on free ports.

    \b
    Examples: gofax-relay demo
              gofax-relay demo --once
    """
    sys.exit(Demo(say=click.echo).run(once=once))


class DemoFailed(Exception):
    """Something did not start or did not arrive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Installation:
    """The running relay and sandbox."""

    folder: Path
    relay: str
    #: The inner listener.
    inner: str
    sandbox: str
    secret: str


class Demo:
    """Sends *events* once, and shows with *say* what arrives."""

    def __init__(
        self, say: Callable[[str], None], *, events: Sequence[tuple[str, Sequence[str]]] = EVENTS
    ) -> None:
        self._say = say
        self._events = events
        self._shown = 0

    def run(self, *, once: bool) -> int:
        """Send and show; then wait for Ctrl-C unless *once*. Returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _interrupt)
        try:
            with _installation() as at:
                self._deliver(at)
                if not once:
                    self._follow(at)
        except DemoFailed as error:
            self._say(f"failed: {error}")
            return 1
        except KeyboardInterrupt:
            self._say("\nstopped")
        return 0

    def _deliver(self, at: Installation) -> None:
        self._say(f"relay    {at.relay}/webhooks/gofax")
        self._say(f"sandbox  {at.sandbox}/   (open it in a browser)")
        self._say(f"console  {_link(at)}")
        self._say("         (opens once: choose a password, and you are in as the admin demo)")
        self._say("")
        for what, arguments in self._events:
            self._say(f"{what}: gofax-sender send {' '.join(map(_quoted, arguments))}")
            sent = _send(at, arguments, secret=at.secret)
            self._say(f"  {sent.stdout.strip()}")
            if sent.returncode:
                raise DemoFailed(f"the event was not accepted\n{sent.stderr}")
        self._say("somebody signs with another secret: gofax-sender send …")
        refused = _send(at, ("--body", "I am GoFax"), secret="not-the-secret")
        self._say(f"  {refused.stdout.strip()}")
        if not refused.returncode:
            raise DemoFailed("the event of a stranger was accepted")
        self._say("")
        self._await_deliveries(at)
        self._show_records(at)
        if not self._shown:
            raise DemoFailed("nothing was delivered")
        self._say(f"\nall delivered: {self._shown} records in three stand-ins, none twice")

    def _await_deliveries(self, at: Installation) -> None:
        """Show what arrives until every delivery has ended."""
        queries = Queries(_store(at))
        ends_at = time.monotonic() + PATIENCE
        while states := _unfinished(queries):
            if time.monotonic() > ends_at or {State.DEAD, State.HELD} & states:
                log = (at.folder / "relay.log").read_text()
                raise DemoFailed(f"deliveries are {', '.join(sorted(states))}\n{log}")
            self._show_records(at)
            time.sleep(0.1)

    def _show_records(self, at: Installation) -> None:
        records: list[dict[str, Any]] = requests.get(at.sandbox + "/records", timeout=5).json()
        for record in records[self._shown :]:
            text = " / ".join(line.strip() for line in record["text"].splitlines() if line.strip())
            where = f"{record['system']} {record['kind']}"
            self._say(f"arrived  {where:<22} {record['conversation']}  {text}")
        self._shown = len(records)

    def _follow(self, at: Installation) -> None:
        self._say(
            f"\nsend more:  gofax-sender send --url {at.relay}/webhooks/gofax "
            f"--secret {at.secret} --body Hello"
        )
        self._say(f"look:       gofax-relay events --config {at.folder / 'config.yaml'}")
        self._say("Ctrl-C stops everything and removes the folder.")
        while True:
            self._show_records(at)
            time.sleep(0.5)


@contextmanager
def _installation() -> Iterator[Installation]:
    """Start sandbox and relay in a temporary folder; stop and remove both at the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gofax-demo-")))
        log = stack.enter_context((folder / "relay.log").open("w"))
        sandbox = stack.enter_context(
            _process("relay.cli", "sandbox", "--port", "0", stdout=subprocess.PIPE, stderr=log)
        )
        assert sandbox.stdout is not None
        line = sandbox.stdout.readline()
        if "http://" not in line:
            raise DemoFailed(f"the sandbox did not start\n{(folder / 'relay.log').read_text()}")
        at = Installation(
            folder=folder,
            relay=f"http://127.0.0.1:{_free_port()}",
            inner=f"http://127.0.0.1:{_free_port()}",
            sandbox=line.rpartition(" ")[2].strip().rstrip("/"),
            secret=secrets.token_urlsafe(24),
        )
        config = CONFIG.format(
            listen=at.relay.removeprefix("http://"),
            inner=at.inner.removeprefix("http://"),
            secret=at.secret,
            sandbox=at.sandbox,
        )
        (folder / "config.yaml").write_text(config)
        relay = stack.enter_context(
            _process("relay.cli", "serve", "--config", str(folder / "config.yaml"), stderr=log)
        )
        _await_ready(at, relay)
        yield at


@contextmanager
def _process(module: str, *arguments: str, **streams: Any) -> Iterator[subprocess.Popen[str]]:
    # In its own session Ctrl-C reaches only us, and we stop the processes in order.
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        text=True,
        start_new_session=True,
        **streams,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=15)
        if process.stdout is not None:
            process.stdout.close()


def _await_ready(at: Installation, relay: subprocess.Popen[str]) -> None:
    ends_at = time.monotonic() + PATIENCE
    pages = [at.relay + "/readyz", at.inner + SIGN_IN]
    while time.monotonic() < ends_at and relay.poll() is None:
        try:
            if all(requests.get(page, timeout=1).ok for page in pages):
                return
        except (requests.ConnectionError, requests.Timeout):
            time.sleep(0.05)
    raise DemoFailed(f"the relay did not start\n{(at.folder / 'relay.log').read_text()}")


def _link(at: Installation) -> str:
    """Make a user, and return the link that lets a person in."""
    database = _store(at)
    users = Users(database)
    act = Act(who="demo", why="to look at the demo", at=database.clock())
    user = users.add("demo", Role.ADMIN, act)
    assert user is not None
    return link_for(user, users, address=at.inner)


def _store(at: Installation) -> Database:
    return connect(f"sqlite:///{at.folder / 'relay.db'}")


def _send(
    at: Installation, arguments: Sequence[str], *, secret: str
) -> subprocess.CompletedProcess[str]:
    """Run ``gofax-sender send``."""
    to = ["--url", f"{at.relay}/webhooks/gofax", "--secret", secret]
    # The demo leaves nothing behind, not even in the sender's log.
    to += ["--store", ":memory:"]
    return subprocess.run(
        [sys.executable, "-P", "-m", "sender", "send", *to, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def _unfinished(queries: Queries) -> set[State]:
    states = {State(state) for counts in queries.backlog().values() for state in counts}
    return states - {State.DELIVERED}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _quoted(argument: str) -> str:
    return json.dumps(argument, ensure_ascii=False) if " " in argument else argument


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
