"""Run a relay behind Caddy with TLS for long, with everything that happens to one, and count.

    python benchmarks/soak.py [--minutes 30] [--rate 100] [--json]

Signed events come in at a steady rate, each on a new connection, through the real Caddy with
``deploy/Caddyfile``. Meanwhile the config is reloaded, the secret is rotated, the certificate is
renewed twice, the destination is down for a while, and a backup is made. In the end every event
that was answered 200 has to be at the destination once and in order, no call may have been
refused, and memory and file descriptors must not have grown.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import http.client
import json
import os
import secrets
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import trustme
import yaml

ROOT = Path(__file__).parents[1]
PATIENCE = 120.0
#: Conversations that the events belong to, and threads that send.
CUSTOMERS, SENDERS = 40, 24
#: Seconds between two looks at memory and descriptors.
LOOK = 10.0


class Destination:
    """Takes webhooks; while it is down it answers 503, and does nothing."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.is_down = False
        made = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                is_down = made.is_down
                if not is_down:
                    made.names.append(body["data"]["message_id"])
                self.send_response(503 if is_down else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *values: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


class Site:
    """A relay behind Caddy, in a folder of its own."""

    def __init__(self, folder: Path, destination: str) -> None:
        self.folder = folder
        self.port, self.inner, self.tls, self.caddy_admin = (_free_port() for _ in range(4))
        self.secrets = [secrets.token_hex(32)]
        self._destination = destination
        self._authority = trustme.CA()
        self.trust = ssl.create_default_context()
        self._authority.configure_trust(self.trust)
        self.renew()
        self.configure()
        self._environment = {
            **os.environ,
            "RELAY_SITE": f"localhost:{self.tls}",
            "RELAY_CONSOLE": f"console.localhost:{self.tls}",
            "RELAY_TLS": f"{folder / 'chain.pem'} {folder / 'key.pem'}",
            "RELAY_WEBS": f"127.0.0.1:{self.port}",
            "RELAY_CONSOLES": f"127.0.0.1:{self.inner}",
            "CADDY_ADMIN": f"localhost:{self.caddy_admin}",
            "XDG_DATA_HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
        }
        version = subprocess.run(["caddy", "version"], capture_output=True, text=True, check=True)
        if version.stdout.lstrip("v").startswith("2.6"):
            self._environment["RELAY_BUFFERS"] = "buffer_requests"
        self.processes: list[psutil.Popen] = []

    def configure(self) -> None:
        said = {
            "server": {"listen": f"127.0.0.1:{self.port}", "trusted_proxies": 1},
            "admin": {"listen": f"127.0.0.1:{self.inner}"},
            "store": "sqlite:///relay.db",
            "outbound": {"allow": ["127.0.0.0/8"]},
            "endpoints": [{"path": "/webhooks/gofax", "signing_secrets": self.secrets}],
            "destinations": {
                "flow": {
                    "connector": "webhook",
                    "url": self._destination,
                    "rate": "1000/1s",
                    "retry": {"schedule": ["1s", "5s"]},
                }
            },
            "routes": [{"name": "all", "to": ["flow"]}],
        }
        (self.folder / "config.yaml").write_text(yaml.safe_dump(said))

    def renew(self) -> None:
        """Write a new certificate over the one before."""
        made = self._authority.issue_cert("localhost", "console.localhost")
        made.private_key_pem.write_to_path(self.folder / "key.pem")
        for number, each in enumerate(made.cert_chain_pems):
            each.write_to_path(self.folder / "chain.pem", append=number > 0)

    def start(self) -> None:
        relay = [sys.executable, "-P", "-m", "relay.cli", "serve"]
        caddy = ["caddy", "run", "--config", str(ROOT / "deploy" / "Caddyfile"),
                 "--adapter", "caddyfile"]  # fmt: skip
        for name, command in (("relay", relay), ("caddy", caddy)):
            with (self.folder / f"{name}.log").open("wb") as log:
                self.processes.append(
                    psutil.Popen(
                        command, stdout=log, stderr=log, cwd=self.folder, env=self._environment
                    )
                )
        for port in (self.port, self.inner, self.tls):
            _await(lambda port=port: _listens(port))
        # Caddy has to find out that the relay is there.
        _await(lambda: self.status() == 401)

    def status(self) -> int:
        """Return what an unsigned event is answered through Caddy."""
        connection = http.client.HTTPSConnection("localhost", self.tls, context=self.trust)
        try:
            connection.request("POST", "/webhooks/gofax", b"{}", {"Content-Type": "text/json"})
            return connection.getresponse().status
        finally:
            connection.close()

    def run(self, *arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "relay.cli", *arguments],
            capture_output=True, text=True, cwd=self.folder, timeout=PATIENCE, check=False,
        )  # fmt: skip
        if ended.returncode:
            raise SystemExit(f"{arguments}: {ended.stdout}{ended.stderr}")
        return ended.stdout

    def reload_caddy(self) -> None:
        subprocess.run(
            ["caddy", "reload", "--config", str(ROOT / "deploy" / "Caddyfile"), "--adapter",
             "caddyfile", "--force", "--address", f"localhost:{self.caddy_admin}"],
            check=True, capture_output=True, env=self._environment, timeout=PATIENCE,
        )  # fmt: skip

    def look(self) -> tuple[float, int]:
        """Return MiB of memory and open descriptors of all processes of the relay."""
        memory, descriptors = 0.0, 0
        for each in [self.processes[0], *self.processes[0].children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                memory += each.memory_full_info().pss / 2**20
                descriptors += each.num_fds()
        return memory, descriptors

    def stop(self) -> None:
        for each in self.processes:
            each.terminate()
        for each in self.processes:
            each.wait(60)


class Sender:
    """Posts signed events at a rate until it is stopped, and keeps every answer."""

    def __init__(self, site: Site, *, rate: float) -> None:
        self._site, self._interval = site, 1 / rate
        self.secret = site.secrets[0]
        self.answers: dict[str, str] = {}
        self.sent: dict[str, int] = {}
        self.taken: list[float] = []
        #: When and how calls were refused.
        self.refused: list[str] = []
        self.certificates: set[int] = set()
        self._stop, self._guard, self._next = threading.Event(), threading.Lock(), 0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(SENDERS)]

    def start(self) -> None:
        self._began = time.monotonic()
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(60)

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._guard:
                number = self._next
                self._next += 1
            due = self._began + number * self._interval
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            began = time.monotonic()
            answer = self.answers[f"m{number}"] = self._post(number)
            self.taken.append(time.monotonic() - began)
            if answer != "accepted":
                self.refused.append(f"{began - self._began:.1f} s: {answer}")

    def _post(self, number: int) -> str:
        said = {
            "messageId": f"m{number}",
            "eventType": "SMS_REPLY",
            "direction": "reply",
            "from": f"+614000001{number % CUSTOMERS:02}",
            "to": "+61755500001",
            "messageBody": f"text {number}",
        }
        body = json.dumps(said).encode()
        signature = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        head = {"Content-Type": "application/json", "X-GoFax-Signature": signature}
        connection = http.client.HTTPSConnection(
            "localhost", self._site.tls, timeout=60, context=self._site.trust
        )
        try:
            connection.connect()
            certificate = connection.sock.getpeercert()
            self.certificates.add(int(certificate["serialNumber"], 16))
            connection.request("POST", "/webhooks/gofax", body, head)
            answer = connection.getresponse()
            text = answer.read()
            return str(json.loads(text)["status"]) if answer.status == 200 else str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()


def happenings(
    site: Site, sender: Sender, destination: Destination
) -> Sequence[tuple[float, str, Callable[[], None]]]:
    """Return what happens, each with the share of the whole time after which it does."""
    new = secrets.token_hex(32)

    def rotate() -> None:
        site.secrets = [new, *site.secrets]
        site.configure()
        site.run("reload")
        sender.secret = new

    def forget() -> None:
        site.secrets = [new]
        site.configure()
        site.run("reload")

    def renew() -> None:
        site.renew()
        site.reload_caddy()

    def down() -> None:
        destination.is_down = True

    def up() -> None:
        destination.is_down = False

    reloads = [(share, "reload", lambda: void(site.run("reload"))) for share in
               (0.05, 0.15, 0.3, 0.45, 0.65, 0.85, 0.95)]  # fmt: skip
    return sorted(
        [
            *reloads,
            (0.2, "rotate the secret", rotate),
            (0.25, "forget the old secret", forget),
            (0.35, "renew the certificate", renew),
            (0.5, "destination down", down),
            (0.56, "destination up", up),
            (0.7, "back up", lambda: void(site.run("backup", "soak-backup.db"))),
            (0.8, "renew the certificate", renew),
        ],
        key=lambda each: each[0],
    )


def void(_: object) -> None:
    """Return nothing."""


def soak(site: Site, destination: Destination, *, seconds: float, rate: float) -> dict[str, Any]:
    sender = Sender(site, rate=rate)
    looks: list[tuple[float, int]] = []
    todo = list(happenings(site, sender, destination))
    sender.start()
    began, looked = time.monotonic(), 0.0
    while (passed := time.monotonic() - began) < seconds:
        if passed >= looked:
            looks.append(site.look())
            looked += LOOK
        while todo and passed >= todo[0][0] * seconds:
            _, said, act = todo.pop(0)
            print(f"{passed:6.0f} s  {said}", file=sys.stderr, flush=True)
            act()
        time.sleep(0.2)
    sender.stop()
    accepted = {name for name, answer in sender.answers.items() if answer == "accepted"}
    _await(lambda: len(set(destination.names)) >= len(accepted), seconds=PATIENCE * 5)
    _await(lambda: not _problems(site), seconds=PATIENCE)
    return told(site, sender, destination, accepted, looks)


def told(
    site: Site,
    sender: Sender,
    destination: Destination,
    accepted: set[str],
    looks: Sequence[tuple[float, int]],
) -> dict[str, Any]:
    arrived = Counter(destination.names)
    # A conversation comes in its order; two calls that were under way together have none.
    late = 0
    last: dict[int, int] = {}
    for name in destination.names:
        number = int(name[1:])
        late += number < last.get(number % CUSTOMERS, -1)
        last[number % CUSTOMERS] = max(number, last.get(number % CUSTOMERS, -1))
    taken = sorted(sender.taken)
    quarter = max(1, len(looks) // 4)
    after_start = looks[min(3, len(looks) - 1) :]
    past = [json.loads(line) for line in site.run("problems", "--resolved", "20",
                                                  "--json").splitlines()]  # fmt: skip
    return {
        "sent": len(sender.answers),
        "answers": dict(Counter(sender.answers.values())),
        "refused": sender.refused[:20],
        "lost": len(accepted - set(arrived)),
        "doubled": sum(number > 1 for number in arrived.values()),
        "late": late,
        "p50_ms": round(statistics.median(taken) * 1e3, 1),
        "p99_ms": round(taken[int(len(taken) * 0.99) - 1] * 1e3, 1),
        "slowest_s": round(taken[-1], 2),
        "certificates": len(sender.certificates),
        "problems": sorted({f"{each['kind']} {each['state']}" for each in past}),
        "memory_mib": [
            round(statistics.median(memory for memory, _ in part), 1)
            for part in (after_start[:quarter], after_start[-quarter:])
        ],
        "descriptors": [
            int(statistics.median(number for _, number in part))
            for part in (after_start[:quarter], after_start[-quarter:])
        ],
        "store_mib": round((site.folder / "relay.db").stat().st_size / 2**20, 1),
    }


def _problems(site: Site) -> Sequence[Mapping[str, Any]]:
    return [json.loads(line) for line in site.run("problems", "--json").splitlines()]


@contextmanager
def running(site: Site) -> Iterator[None]:
    try:
        site.start()
        yield
    finally:
        site.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def _await(condition: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    ends_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends_at:
            return
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=100.0)
    given = parser.parse_args()
    if shutil.which("caddy") is None:
        raise SystemExit("needs caddy: apt-get install caddy")
    with tempfile.TemporaryDirectory() as folder:
        destination = Destination()
        site = Site(Path(folder), destination.url)
        with running(site):
            found = soak(site, destination, seconds=given.minutes * 60, rate=given.rate)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
