"""What deploy/ gives the real nginx, HAProxy and Caddy, in front of a relay that runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import trustme
from fakes import eventually
from gofax import sign
from programs import free_port
from site_of_nodes import PATIENCE, Site
from stream import Stream

from relay.store import Queries, connect
from relay.store.values import Request

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[2] / "deploy"
FRONTS = ("nginx", "haproxy", "caddy")
#: The names of the two sites; callers who give no name get to the first.
PUBLIC, CONSOLE = "127.0.0.1", "localhost"
#: Not the address that the fronts call from.
CALLER, FORGED = "127.0.0.2", "203.0.113.9"
CONFIG = """\
server: {{listen: "127.0.0.1:{port}", trusted_proxies: 1}}
admin: {{listen: "127.0.0.1:{inner}", url: "https://localhost"}}
store: sqlite:///relay.db
endpoints:
  - {{path: /webhooks/gofax, signing_secrets: [secret]}}
  - {{path: /webhooks/open, allow_unsigned: true}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates for both sites."""
    folder = tmp_path_factory.mktemp("fronts")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    made = ca.issue_cert(PUBLIC, CONSOLE)
    (folder / "cert.pem").write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
    made.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "certs").mkdir()
    made.private_key_and_cert_chain_pem.write_to_path(str(folder / "certs" / "both.pem"))
    return folder


@dataclass
class Behind:
    """A relay behind whatever front, at a socket that outlives it, as systemd's does."""

    site: Site
    inner: int
    listening: socket.socket
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        script = f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -P -m relay.cli serve 3<&{self.number}'
        with (self.site.folder / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", script, self.site.python],
                cwd=self.site.folder, stderr=log, pass_fds=[self.number],
            )  # fmt: skip
        eventually(self.site.answers, seconds=PATIENCE)

    @property
    def number(self) -> int:
        return self.listening.fileno()

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)

    @property
    def requests(self) -> Sequence[Request]:
        """Return what is in the log of requests."""
        with closing(connect(f"sqlite:///{self.site.folder}/relay.db")) as database:
            return list(Queries(database).requests())


@pytest.fixture(scope="module")
def behind(folder: Path) -> Iterator[Behind]:
    site = Site(folder / "relay", store="sqlite:///relay.db")
    made = Behind(site, free_port(), socket.create_server(("127.0.0.1", site.port)))
    text = CONFIG.format(port=site.port, inner=made.inner)
    (site.folder / "config.yaml").write_text(text)
    made.start()
    assert site.run("users", "add", "mary", "--role", "admin").returncode == 0
    yield made
    made.stop()
    made.listening.close()


@dataclass
class Front:
    """A proxy that runs, with its limits shortened."""

    name: str
    port: int
    trust: ssl.SSLContext

    def says(self, host: str, *pieces: bytes, patience: float = PATIENCE) -> bytes:
        """Send *pieces*, and return all that comes back until nothing does for so long."""
        plain = socket.create_connection(("127.0.0.1", self.port), 30, (CALLER, 0))
        with self.trust.wrap_socket(plain, server_hostname=host) as connection:
            came = b""
            connection.settimeout(patience)
            try:
                for piece in pieces:
                    connection.sendall(piece)
                while piece := connection.recv(65536):
                    came += piece
            except (OSError, ssl.SSLError):
                pass
            return came

    def post(
        self, body: bytes, *, path: str = "/webhooks/gofax", host: str = PUBLIC, **headers: str
    ) -> int:
        """Post *body* with its signature, and return the status."""
        signature = sign(body, "secret")
        named = {"X-GoFax-Signature": signature, "Content-Type": "application/json", **headers}
        return self.status("POST", path, host, named, body)

    def too_long(self) -> bytes:
        """Post a body that is too long, and return the status."""
        # HAProxy gathers it first; the others need not see it.
        length, sent = (70_000, 70_000) if self.name == "haproxy" else (2_000_000, 1)
        head = (
            "POST /webhooks/open HTTP/1.1\r\nContent-Type: application/json\r\nConnection: close"
        )
        said = f"{head}\r\nHost: {PUBLIC}\r\nContent-Length: {length}\r\n\r\n"
        return self.says(PUBLIC, said.encode() + b"x" * sent, patience=2).split(b" ", 2)[1]

    def get(self, path: str, host: str) -> int:
        return self.status("GET", path, host, {}, b"")

    def status(
        self, method: str, path: str, host: str, headers: Mapping[str, str], body: bytes
    ) -> int:
        head = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        said = "\r\n".join([*head, "Connection: close", "", ""]).encode()
        answer = self.says(host, said + body)
        return int(answer.split(b" ", 2)[1]) if answer else 0


def _nginx(folder: Path, behind: Behind, port: int) -> tuple[list[str], dict[str, str]]:
    text = _replaced(
        (DEPLOY / "nginx.conf").read_text(),
        {
            r"listen \[::\]:443 ssl;": "",
            r"listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            r"/etc/letsencrypt/live/\S+/fullchain.pem": f"{folder}/cert.pem",
            r"/etc/letsencrypt/live/\S+/privkey.pem": f"{folder}/key.pem",
            r"127.0.0.1:8080": f"127.0.0.1:{behind.site.port}",
            r"127.0.0.1:8081": f"127.0.0.1:{behind.inner}",
            r"client_header_timeout 5s": "client_header_timeout 1s",
            r"client_body_timeout   10s": "client_body_timeout 1s",
        },
    )
    temporary = "".join(
        f"{each}_temp_path {folder}/{each};"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.main"
    main.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {temporary}\n{text}\n}}\n"
    )
    return ["nginx", "-e", "stderr", "-c", str(main)], {}


def _haproxy(folder: Path, behind: Behind, port: int) -> tuple[list[str], dict[str, str]]:
    text = _replaced(
        (DEPLOY / "haproxy.cfg").read_text(),
        {
            r"    (user|group|chroot) .*": "",
            r":443,:::443 v6only": f"127.0.0.1:{port}",
            r"/etc/haproxy/certs/": f"{folder}/certs/",
            r"127.0.0.1:8080": f"127.0.0.1:{behind.site.port}",
            r"127.0.0.1:8081": f"127.0.0.1:{behind.inner}",
            r"timeout http-request 10s": "timeout http-request 1s",
        },
    )
    (folder / "haproxy.cfg").write_text(text)
    return ["haproxy", "-q", "-f", str(folder / "haproxy.cfg")], {}


def _caddy(folder: Path, behind: Behind, port: int) -> tuple[list[str], dict[str, str]]:
    text = _replaced(
        (DEPLOY / "Caddyfile").read_text(),
        {"read_header 5s": "read_header 1s"},
    )
    (folder / "Caddyfile").write_text(text)
    said = subprocess.run(["caddy", "version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"(\d+)\.(\d+)", said)
    assert version is not None
    settings = {
        "RELAY_SITE": f"https://{PUBLIC}:{port}",
        "RELAY_CONSOLE": f"https://{CONSOLE}:{port}",
        "RELAY_TLS": f"{folder}/cert.pem {folder}/key.pem",
        "RELAY_WEBS": f"127.0.0.1:{behind.site.port}",
        "RELAY_CONSOLES": f"127.0.0.1:{behind.inner}",
        "CADDY_ADMIN": "off",
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    if (int(version[1]), int(version[2])) < (2, 7):
        settings["RELAY_BUFFERS"] = "buffer_requests"
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    return command, settings


def _replaced(text: str, changes: Mapping[str, str]) -> str:
    """Put what is here in the place of what the file gives; all of that must be there."""
    for old, new in changes.items():
        assert re.search(old, text), old
        text = re.sub(old, new, text)
    return text.replace("sms.example.com", PUBLIC).replace("relay.example.com", CONSOLE)


@contextmanager
def running(name: str, folder: Path, behind: Behind) -> Iterator[Front]:
    make = {"nginx": _nginx, "haproxy": _haproxy, "caddy": _caddy}[name]
    port = free_port()
    command, settings = make(folder, behind, port)
    trust = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    front = Front(name, port, trust)
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **settings}
        )
    try:
        eventually(lambda: process.poll() is not None or _answers(front), seconds=PATIENCE)
        assert process.poll() is None, log.read_text()
        yield front
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _answers(front: Front) -> bool:
    try:
        return front.get("/", PUBLIC) == 404
    except OSError:
        return False


@pytest.fixture(params=FRONTS)
def front(
    request: pytest.FixtureRequest,
    folder: Path,
    behind: Behind,
    missing: Callable[[str, str], None],
) -> Iterator[Front]:
    if shutil.which(request.param) is None:
        missing(request.param, "no such command")
    with running(request.param, folder, behind) as made:
        yield made


def body_of(name: str, *, size: int = 0) -> bytes:
    return json.dumps({"messageId": name, "messageBody": "x" * size}).encode()


def test_events_come_through_and_nothing_else(front: Front, behind: Behind) -> None:
    before = len(behind.requests)
    lies = {name: FORGED for name in ("X-Forwarded-For", "X-Forwarded_For", "X_Forwarded_For")}
    lies |= {"Forwarded": f"for={FORGED}"}

    assert front.post(body_of(f"event {front.port}"), **lies) == 200
    assert front.post(body_of(f"long {front.port}", size=60_000)) == 200
    assert front.post(body_of("x"), **{"X-GoFax-Signature": "0" * 64}) == 401

    eventually(lambda: len(behind.requests) == before + 3, seconds=PATIENCE)
    for each in behind.requests[before:]:
        assert each.remote == CALLER
        assert FORGED not in json.dumps(dict(each.headers))
    assert front.too_long() == b"413"
    assert [front.get(path, PUBLIC) for path in INSIDE] == [404] * len(INSIDE)
    assert front.post(body_of("elsewhere"), path="/api/v1/events") == 404
    assert len(behind.requests) == before + 3


#: What is not for the public site.
INSIDE = ("/", "/metrics", "/livez", "/readyz", "/console/", "/console", "/api/v1/openapi.json")


def test_the_console_has_a_site_of_its_own(front: Front, folder: Path) -> None:
    assert front.get("/console/", CONSOLE) == 302
    assert front.get("/", CONSOLE) == 302
    assert front.get("/api/v1/openapi.json", CONSOLE) == 200
    assert [front.get(path, CONSOLE) for path in ("/metrics", "/consoles", "/x")] == [404] * 3
    assert front.post(body_of("x"), host=CONSOLE) == 404
    with requests.Session() as browser:
        browser.trust_env, browser.verify = False, str(folder / "ca.pem")
        url = f"https://{CONSOLE}:{front.port}/console/sign-in"
        page = browser.get(url, timeout=PATIENCE)
        token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page.text)
        assert token is not None
        form = {"csrf_token": token[1], "name": "mary", "password": "wrong"}
        answer = browser.post(url, data=form, headers={"Referer": url}, timeout=PATIENCE)
    assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
    # The form was taken, and the password was not.
    assert answer.status_code == 403


def test_what_dribbles_in_stays_outside(front: Front, behind: Behind) -> None:
    before = len(behind.requests)
    head = b"POST /webhooks/open HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    slow = {
        "half a head": (head,),
        "half a body": (head + b"Content-Length: 500\r\n\r\n{",),
        "chunks": (head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",),
    }

    # Caddy keeps a body for longer than we wait here.
    with ThreadPoolExecutor(len(slow)) as pool:
        calls = {
            name: pool.submit(front.says, PUBLIC, *sent, patience=3) for name, sent in slow.items()
        }
        assert front.post(body_of(f"meanwhile {front.port}")) == 200
        said = {name: call.result() for name, call in calls.items()}

    statuses = {answer.split(b" ", 2)[1] for answer in said.values() if answer}
    assert statuses <= {b"408", b"400"}, said
    assert len(behind.requests) == before + 1


def test_a_relay_that_starts_again_refuses_nobody(
    folder: Path, behind: Behind, missing: Callable[[str, str], None]
) -> None:
    streams: list[Stream] = []
    with ExitStack() as stack:
        for name in FRONTS:
            if shutil.which(name) is None:
                missing(name, "no such command")
            front = stack.enter_context(running(name, folder, behind))
            stream = Stream(
                front.port, per_second=20, path="/webhooks/open", prefix=name, trust=front.trust
            )
            streams.append(stack.enter_context(stream))
        eventually(lambda: all(len(each.answers) > 10 for each in streams), seconds=PATIENCE)
        behind.stop()
        behind.start()
        so_far = max(len(each.answers) for each in streams)
        eventually(lambda: all(len(each.answers) > so_far for each in streams), seconds=PATIENCE)

    answers = {name: set(each.kinds) for name, each in zip(FRONTS, streams, strict=True)}
    assert answers == dict.fromkeys(FRONTS, {"accepted"})
    kept = {each.message_id for each in behind.requests if each.outcome == "accepted"}
    assert set().union(*(each.accepted for each in streams)) <= kept
