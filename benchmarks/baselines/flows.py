"""The flows that are compared: the processes that each consists of, started, killed and measured.

The files beside this one are what a team would write; the commands are those of their first lines.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis
import requests
import rig
import sqlalchemy as sa

from relay.store import connect, schema

SECRET = "benchmark"  # noqa: S105
HERE = Path(__file__).parent
#: Calls that a flow makes at the same time: the relay's default.
CALLS = 8
PATIENCE = 60.0

RELAY = """\
server: {{listen: "127.0.0.1:{port}"}}
admin: off
store: sqlite:///relay.db
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints: [{{path: /webhooks/gofax, signing_secrets: [{secret}]}}]
destinations: {{crm: {{connector: webhook, url: "{deliver_to}"}}}}
routes: [{{name: replies, to: [crm]}}]
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """Where the processes of a flow listen."""

    web: int
    redis: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """A way to take events and to pass them on."""

    name: str
    #: Its processes by name, in the order in which they are started.
    commands: Callable[[Ports], Mapping[str, Sequence[str]]]

    @property
    def has_redis(self) -> bool:
        return "redis" in self.commands(Ports(web=0, redis=0))


def _relay(_: Ports) -> Mapping[str, Sequence[str]]:
    return {"relay": [sys.executable, "-P", "-m", "relay.cli", "serve"]}


def _webhook(ports: Ports) -> Mapping[str, Sequence[str]]:
    hooks = str(HERE / "webhook.yaml")
    return {
        "webhook": ["webhook", "-template", "-hooks", hooks, "-urlprefix", "webhooks",
                    "-ip", "127.0.0.1", "-port", str(ports.web)],
    }  # fmt: skip


def _celery(module: str) -> Callable[[Ports], Mapping[str, Sequence[str]]]:
    def commands(ports: Ports) -> Mapping[str, Sequence[str]]:
        return {
            # Debian's configuration: snapshots as below, no file that commands are appended to.
            "redis": ["redis-server", "--bind", "127.0.0.1", "--port", str(ports.redis),
                      "--save", "3600 1 300 100 60 10000"],
            "worker": [sys.executable, "-m", "celery", "-A", f"{module}:tasks", "worker",
                       "--concurrency", str(CALLS)],
            "web": [sys.executable, "-m", "granian", "--interface", "wsgi", "--no-ws",
                    "--host", "127.0.0.1", "--port", str(ports.web),
                    "--blocking-threads", "64", f"{module}:app"],
        }  # fmt: skip

    return commands


FLOWS = {
    "relay": Flow(name="gofax-relay, SQLite", commands=_relay),
    "before": Flow(name="Celery, answers first",
                   commands=_celery("celery_before")),
    "after": Flow(name="Celery, enqueues first",
                  commands=_celery("celery_after")),
    "late": Flow(name="Celery, enqueues first, acks_late", commands=_celery("celery_late")),
    "webhook": Flow(name="webhook with curl", commands=_webhook),
}  # fmt: skip


class Running:
    """A flow in a folder of its own, with its data and its logs."""

    def __init__(self, flow: Flow, folder: Path, *, deliver_to: str) -> None:
        self._ports = Ports(web=rig.free_port(), redis=rig.free_port())
        self._commands = flow.commands(self._ports)
        self._data, self._logs = folder / "data", folder / "logs"
        for each in (self._data, self._logs):
            each.mkdir()
        config = self._data / "config.yaml"
        config.write_text(RELAY.format(port=self._ports.web, secret=SECRET, deliver_to=deliver_to))
        self._environ = {
            **os.environ,
            "SIGNING_SECRET": SECRET,
            "DELIVER_TO": deliver_to,
            "REDIS_URL": f"redis://127.0.0.1:{self._ports.redis}/0",
            "GOFAX_RELAY_CONFIG": str(config),
            "PYTHONPATH": str(HERE),
        }
        self._running: dict[str, psutil.Popen] = {}
        self.url = f"http://127.0.0.1:{self._ports.web}/webhooks/gofax"

    def start(self) -> None:
        """Start what does not run, each when what it needs is there."""
        for name, command in self._commands.items():
            if name in self._running:
                continue
            with (self._logs / f"{name}.log").open("ab") as log:
                self._running[name] = psutil.Popen(
                    command, cwd=self._data, env=self._environ, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            self._await(name)

    def _await(self, name: str) -> None:
        ready = {"redis": self._redis_answers, "worker": self._worker_answers}
        is_ready = ready.get(name, self._web_answers)
        ends_at = time.monotonic() + PATIENCE
        while not is_ready():
            if time.monotonic() > ends_at or self._running[name].poll() is not None:
                said = (self._logs / f"{name}.log").read_text().strip().splitlines()
                raise SystemExit(f"{name} does not start: {said[-1] if said else ''}")
            time.sleep(0.1)

    def _redis_answers(self) -> bool:
        try:
            return bool(self._redis().ping())
        except redis.ConnectionError:
            return False

    def _worker_answers(self) -> bool:
        # Its banner is written before it connects.
        return b"ready." in (self._logs / "worker.log").read_bytes() or bool(
            self._redis().client_list(_type="pubsub")
        )

    def _web_answers(self) -> bool:
        try:
            requests.get(self.url, timeout=5)
        except requests.RequestException:
            return False
        return True

    def _redis(self) -> redis.Redis:
        return redis.Redis(port=self._ports.redis)

    def stop(self) -> None:
        """Stop everything in order, the last first."""
        for name in reversed(list(self._running)):
            process = self._running.pop(name)
            process.terminate()
            process.wait(timeout=60)

    def kill(self, spared: Sequence[str] = ()) -> None:
        """Kill every process but those of the names *spared*, with all that they started."""
        dying = {name: each for name, each in self._running.items() if name not in spared}
        trees = [tree for each in dying.values() for tree in _tree(each)]
        for process in trees:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for name, process in dying.items():
            process.wait(timeout=15)
            del self._running[name]

    def cpu_seconds(self) -> float:
        return sum(rig.cpu_seconds(each) for each in self._running.values())

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of its data, and those of its logs."""
        data, logs = (
            sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            for folder in (self._data, self._logs)
        )
        return data, logs

    def waiting(self) -> set[str]:
        """Return the messages that are not delivered yet, and kept for it."""
        if "redis" in self._running:
            return self._waiting_in_redis()
        store = self._data / "relay.db"
        return _waiting_in(store) if store.exists() else set()

    def _waiting_in_redis(self) -> set[str]:
        """Return what is in Celery's queue, or taken from it and not acknowledged."""
        server = self._redis()
        taken = [json.loads(each)[0] for each in server.hvals("unacked")]
        queued = [json.loads(each) for each in server.lrange("celery", 0, -1)]
        bodies = (base64.b64decode(each["body"]) for each in (*taken, *queued))
        found = (re.search(rb"bench-[0-9-]+", body) for body in bodies)
        return {each[0].decode() for each in found if each}


def _waiting_in(store: Path) -> set[str]:
    asked = (
        sa.select(schema.events.c.message_id)
        .join(schema.deliveries, schema.deliveries.c.event_id == schema.events.c.id)
        .where(schema.deliveries.c.ended_at.is_(None))
    )
    with closing(connect(f"sqlite:///{store}")) as database, database.reading() as db:
        return set(db.scalars(asked))


def _tree(process: psutil.Process) -> Sequence[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
