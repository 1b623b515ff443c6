"""Real processes of a fleet: a receiver, Celery workers, the broker's queues, and a system."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import requests
import servers
from fakes import OURS
from kombu import Connection
from programs import PATIENCE, eventually, free_port
from receiver import Receiver

from relay import migrations
from relay.store import Queries, connect
from relay.store.values import DeliveryView

CONFIG = """\
server: {{listen: "127.0.0.1:{port}", threads: 16}}
admin: off
store: {store}
engine: {{celery: {{broker: "{broker}"}}}}
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints: [{{path: /open, allow_unsigned: true}}]
destinations:
  flow: {{connector: webhook, url: "{system}", concurrency: 4, rate: 1000/1s, deadline: {deadline},
         body: '{body}', retry: {{schedule: [50ms, 100ms], for: 1h}}}}
  slow: {{connector: webhook, url: "{system}", concurrency: 2, rate: 1000/1s, deadline: 60s,
         body: '{body}'}}
routes:
  - {{when: {{event: SLOW}}, to: [slow], stop: true}}
  - {{to: [flow]}}
"""
BODY = '{"message_id": {{ message_id | tojson }}, "customer": {{ customer | tojson }}}'
#: How operators start them.
WORKER, BEAT = (("-m", "celery", "-A", "relay.cluster", what) for what in ("worker", "beat"))


class Fleet:
    """One store, one broker, and the processes that tests start with them."""

    def __init__(
        self, folder: Path, *, store: str, broker: str, system: Receiver, deadline: str = "60s"
    ) -> None:
        self.folder, self.broker, self.system = folder, broker, system
        self.port = free_port()
        self.store = store
        self._store = connect(store)
        self._config = folder / "config.yaml"
        self._config.write_text(
            CONFIG.format(
                port=self.port,
                store=store,
                broker=broker,
                system=system.url,
                deadline=deadline,
                body=BODY,
            )
        )
        self.logs: dict[subprocess.Popen[bytes], Path] = {}
        #: What tests may stop and signal: the beat, and the worker that was started first.
        self.clock: subprocess.Popen[bytes]
        self.first: subprocess.Popen[bytes]
        self._session = requests.Session()

    def run(
        self,
        *arguments: str,
        ready: str = "",
        ends: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a Python process; wait until it has said *ready*, or *ends* well."""
        log = self.folder / f"{time.monotonic_ns()}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, "GOFAX_RELAY_CONFIG": str(self._config), **(environ or {})},
                cwd=self.folder,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.logs[process] = log

        if ends:
            assert process.wait(PATIENCE) == 0, log.read_text()
            return process

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return ready in log.read_text()

        eventually(is_ready)
        return process

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        return self.run(*WORKER, *options, ready="worker.started")

    def beat(self) -> subprocess.Popen[bytes]:
        return self.run(*BEAT)

    def web(self) -> subprocess.Popen[bytes]:
        process = self.run("-m", "relay.cli", "web")
        eventually(self._answers)
        return process

    def serve(self) -> subprocess.Popen[bytes]:
        process = self.run("-m", "relay.cli", "serve", ready="worker.started")
        eventually(self._answers)
        return process

    def said(self, process: subprocess.Popen[bytes]) -> str:
        return self.logs[process].read_text()

    def post(self, name: str, *, customer: int = 1, type: str = "SMS_REPLY") -> float:
        """Post a message, as GoFax does; return how many seconds the answer took."""
        number = f"+614{customer:08}"
        message = {"messageId": name, "eventType": type, "from": number, "to": OURS}
        started = time.monotonic()
        answer = self._session.post(f"http://127.0.0.1:{self.port}/open", json=message, timeout=20)
        assert answer.status_code == 200, answer.text
        return time.monotonic() - started

    def delivery(self, name: str) -> DeliveryView:
        view = Queries(self._store).event(name)
        assert view is not None
        (found,) = view.deliveries
        return found

    def are(self, state: str, names: Sequence[str]) -> bool:
        return all(self.delivery(name).state == state for name in names)

    def attempts(self, names: Sequence[str]) -> Mapping[str, Sequence[str | None]]:
        return {name: [each.outcome for each in self.delivery(name).history] for name in names}

    def queues(self) -> Connection:
        return Connection(self.broker)

    def close(self) -> None:
        for process in self.logs:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        self._store.close()
        self._session.close()

    def _answers(self) -> bool:
        try:
            return self._session.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).ok
        except requests.RequestException:
            return False


@contextmanager
def migrated_store() -> Iterator[str]:
    """Make a database with tables, give its URL, and drop it."""
    with servers.new_database() as url:
        with closing(connect(url)) as database:
            migrations.upgrade(database)
        yield url
