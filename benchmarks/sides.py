"""The receivers that accept.py compares: ours, one that does less, and Debian's webhook."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
import rig
import wrk

from relay import migrations
from relay.store import connect

SERVER_CORE, LOAD_CORE = {0}, {min(1, (os.cpu_count() or 1) - 1)}

CONFIG = """\
server: {{listen: "127.0.0.1:{port}"{workers}}}
admin: off
store: {store}
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints: [{{path: /webhooks/gofax, signing_secrets: [{secret}]}}]
destinations: {{chat: {{connector: teams, url: "http://127.0.0.1:9/teams"}}}}
routes: [{{name: replies, when: {{event: SMS_REPLY}}, to: [chat]}}]
"""

#: Webhook answers 200 when it has started the command.
HOOKS: list[dict[str, Any]] = [
    {
        "id": "gofax",
        "execute-command": "/bin/true",
        "http-methods": ["POST"],
        "trigger-rule": {
            "match": {
                "type": "payload-hmac-sha256",
                "secret": wrk.SECRET,
                "parameter": {"source": "header", "name": "X-GoFax-Signature"},
            }
        },
    }
]


@dataclass(kw_only=True)
class Side:
    """A server that is compared with another."""

    port: int
    process: psutil.Process
    #: Where the cores are shared with the load, those of neither.
    load_cores: Collection[int] | None
    #: URL of what it accepts into.
    store: str = ""
    #: The database server of the store.
    server: psutil.Process | None = None
    #: What was answered 200.
    answered: set[str] = field(default_factory=set)


class Bench:
    """A folder, and the servers that are started in it until the end of *stack*."""

    def __init__(self, folder: Path, options: argparse.Namespace, stack: ExitStack) -> None:
        self.folder, self._options, self._stack = folder, options, stack
        self._postgres: rig.Server | None = None
        #: One core for servers, another for the load; several receivers share all of them.
        self._is_split = options.receivers == 1

    def relay(self, name: str, *, store: str, receivers: int) -> Side:
        """Start a receiver; *store* is the kind of its store, or the URL."""
        url, server = self._store(name, store)
        if store in ("sqlite", "postgres"):
            with closing(connect(url)) as database:
                migrations.upgrade(database)
        workers = f", workers: {receivers}" if receivers > 1 else ""
        port, config = rig.free_port(), self.folder / f"{name}.yaml"
        config.write_text(CONFIG.format(port=port, secret=wrk.SECRET, store=url, workers=workers))
        command = [sys.executable, "-m", "relay.cli", "web", "--config", str(config)]
        process = self._started(name, command, port)
        return self._side(port, process, store=url, server=server)

    def bare(self, step: str) -> Side:
        """Start a receiver that goes as far as *step* of ``bare.py``."""
        port, store = rig.free_port(), f"{self.folder}/{step}.db"
        command = [sys.executable, str(Path(__file__).with_name("bare.py")), step, str(port),
                   wrk.SECRET, store]  # fmt: skip
        url = f"sqlite:///{store}" if step == "commit" else ""
        return self._side(port, self._started(step, command, port), store=url)

    def webhook(self) -> Side:
        """Start Debian's ``webhook`` with one hook and as many processors as it is given."""
        port, hooks = rig.free_port(), self.folder / "hooks.json"
        hooks.write_text(json.dumps(HOOKS))
        command = ["webhook", "-hooks", str(hooks), "-ip", "127.0.0.1", "-port", str(port),
                   "-urlprefix", "webhooks"]  # fmt: skip
        return self._side(port, self._started("webhook", command, port, GOMAXPROCS="1"))

    def _store(self, name: str, kind: str) -> tuple[str, psutil.Process | None]:
        if kind == "sqlite":
            return f"sqlite:///{self.folder}/{name}.db", None
        if kind != "postgres":
            return kind, None
        if self._postgres is None:
            self._postgres = self._stack.enter_context(rig.server())
            if self._is_split:
                for each in (self._postgres.process, *self._postgres.process.children()):
                    each.cpu_affinity(list(SERVER_CORE))
        return self._postgres.new_database(name), self._postgres.process

    def _started(
        self, name: str, command: Sequence[str], port: int, **environ: str
    ) -> psutil.Process:
        cores = SERVER_CORE if self._is_split else os.sched_getaffinity(0)
        return self._stack.enter_context(
            _server(command, port, self.folder / f"{name}.log", cores=cores, environ=environ)
        )

    def _side(self, port: int, process: psutil.Process, **more: Any) -> Side:
        cores = LOAD_CORE if self._is_split else None
        return Side(port=port, process=process, load_cores=cores, **more)


def until_idle(process: psutil.Process) -> None:
    """Wait until commands that were started for requests have ended."""
    ends_at = time.monotonic() + 30
    while any(map(_is_command, process.children())):
        if time.monotonic() > ends_at:
            raise SystemExit("commands do not end")
        time.sleep(0.02)


def _is_command(process: psutil.Process) -> bool:
    try:
        return process.name() == Path(HOOKS[0]["execute-command"]).name
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _server(
    command: Sequence[str],
    port: int,
    log: Path,
    *,
    cores: Collection[int],
    environ: Mapping[str, str],
) -> Iterator[psutil.Process]:
    with log.open("w") as stream:
        process = psutil.Popen(
            command,
            stderr=stream,
            stdout=stream,
            env={**os.environ, **environ},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        try:
            _await(port, process, log)
            yield process
        finally:
            # It may have ended by itself.
            with suppress(psutil.NoSuchProcess):
                process.terminate()
            process.wait(timeout=15)


def _await(port: int, process: psutil.Process, log: Path) -> None:
    ends_at = time.monotonic() + 15
    while time.monotonic() < ends_at and process.poll() is None:
        try:
            requests.get(f"http://127.0.0.1:{port}/livez", timeout=1)
        except (requests.ConnectionError, requests.Timeout):
            time.sleep(0.05)
        else:
            return
    said = log.read_text().strip().splitlines()
    raise SystemExit(f"{log.stem} does not answer: {said[-1] if said else 'it says nothing'}")
