"""What a whole relay wrote on good days and bad: no secret, and in its logs no customer."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import resource
import secrets
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest
import requests
from gofax import EXAMPLE
from processes import Relay, Sandbox
from programs import Process, eventually, free_port
from psycopg import sql

from relay.acts.links import PATH
from relay.store import connect
from relay.store.people import Users

SERVER = os.environ.get("GOFAX_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432")

pytestmark = pytest.mark.slow

#: Customers that no other test has, and words of theirs.
ANN, BEN, CAT, DAN = ("+61455019283", "+61455019284", "+61455019285", "+61455019286")
WORDS = "zebrafinch"

CONFIG = """\
server: {{listen: "127.0.0.1:{port}"}}
admin: {{listen: "127.0.0.1:{inner}", metrics_token: "file:secrets/metrics"}}
store: {store}
outbound: {{allow: ["127.0.0.0/8"]}}
alerts:
  - url: "file:secrets/alerts"
heartbeat: "file:secrets/heartbeat"
endpoints:
  - path: /webhooks/gofax
    signing_secrets:
      - "file:secrets/signing"
      - {{secret: "file:secrets/old", not_after: 2099-01-01}}
  - path: /webhooks/gofax/status
    format: form
    basic_auth: {{username: gofax, password: "file:secrets/basic"}}
destinations:
  crm: {{connector: hubspot, access_token: "file:secrets/hubspot", base_url: "{sandbox}/hubspot",
         {common}}}
  helpdesk: {{connector: zendesk, subdomain: test, access_token: "file:secrets/zendesk",
              base_url: "{sandbox}/zendesk", {common}}}
  front-desk: {{connector: teams, url: "file:secrets/teams", {common}}}
  echo: {{connector: webhook, url: "file:secrets/echo", secrets: ["file:secrets/webhook"],
          headers: {{Authorization: "file:secrets/header"}}, {common}}}
  nowhere: {{connector: webhook, url: "file:secrets/nowhere", {common}}}
  inbox: {{connector: email, host: 127.0.0.1, port: {closed}, security: none, username: sms,
           password: "file:secrets/mail", from: a@example.com, to: [b@example.com], {common}}}
routes:
  - {{to: [crm, helpdesk, front-desk, echo, nowhere, inbox]}}
"""
COMMON = "retry: {schedule: [100ms], for: 500ms}, rate: 1000/1s"


class _Echo(BaseHTTPRequestHandler):
    """A hostile destination: it says in its error whatever it was told."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = json.dumps({"error": f"{self.path} {dict(self.headers)} {body.decode()}"}).encode()
        self.send_response(400, "no " + self.headers.get("Authorization", ""))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


class Commands:
    """Commands, each in a process of its own; to import them for each would take a minute."""

    PROGRAM = """
import json, os, sys
from importlib import import_module
from relay.config import installed
from relay.cli import COMMANDS, cli
for each in set(COMMANDS.values()):
    import_module(f"relay.commands.{each}")
for each in ("hubspot", "zendesk", "teams", "webhook", "email"):
    installed.find(each)
for line in sys.stdin:
    arguments, *files = json.loads(line)
    if pid := os.fork():
        print(os.waitpid(pid, 0)[1], flush=True)
        continue
    for number, path in enumerate(files, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    cli.main(arguments, prog_name="gofax-relay")
"""

    def __init__(self, relay: Relay, outside: Path, stack: ExitStack) -> None:
        self._config = str(relay.config)
        self._files = [outside / "stdout", outside / "stderr"]
        self._process = stack.enter_context(subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM], cwd=relay.folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ))  # fmt: skip

    def run(self, *arguments: str) -> tuple[str, str]:
        """Run one to its end; return what it printed on standard output and error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = [[*arguments, "--config", self._config], *map(str, self._files)]
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        assert self._process.stdout.readline().strip().isdecimal()
        out, err = (each.read_text() for each in self._files)
        return out, err


@dataclass
class Life:
    """A relay that has lived, with all that it let out."""

    relay: Relay
    commands: Commands
    #: By name.
    secrets: dict[str, str] = field(default_factory=dict)
    #: What people and programs were shown: pages, answers, output of commands.
    shown: dict[str, str] = field(default_factory=dict)
    #: What was made for one reader and shown to that one alone.
    once: dict[str, str] = field(default_factory=dict)
    #: Of a receiver that was told to abort.
    cores: list[Path] = field(default_factory=list)

    @property
    def logs(self) -> str:
        return (self.relay.folder / "serve.log").read_text(errors="replace")

    def run(self, *arguments: str) -> str:
        out, err = self.commands.run(*arguments)
        self.shown[" ".join(arguments)] = out + err
        return out

    @property
    def is_on_server(self) -> bool:
        return self.relay.store.startswith("postgresql:")

    def written(self) -> dict[str, bytes]:
        """Return all that the relay wrote and showed."""
        tables = dict(_tables(self.relay.store)) if self.is_on_server else {}
        shown = {name: said.encode() for name, said in self.shown.items()}
        return dict(self._files()) | tables | shown

    def _files(self) -> Iterator[tuple[str, bytes]]:
        """Yield what is in the relay's folder, without the secrets that a person put there."""
        for path in sorted(self.relay.folder.rglob("*")):
            inside = path.relative_to(self.relay.folder)
            if path.is_file() and inside.parts[0] != "secrets" and inside.name != "sandbox.log":
                yield str(inside), path.read_bytes()


def _tables(store: str) -> Iterator[tuple[str, bytes]]:
    """Yield each table of a server's database: texts and bytes stand as they are in this form."""
    with psycopg.connect(store) as db:
        names = db.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'm') "
            "AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        for (name,) in names:
            table = sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(sql.Identifier(name))
            with db.cursor().copy(table) as rows:
                yield f"table {name}", b"".join(rows)


def _secret_files(folder: Path, *, sandbox: str, closed: int, echo: int) -> dict[str, str]:
    """Write a secret for each use, and return what of each must be seen nowhere."""
    random = {name: f"{name}Q{secrets.token_hex(20)}" for name in (
        "metrics", "signing", "old", "basic", "hubspot", "zendesk", "mail",
        "alerts", "heartbeat", "teams", "echo", "nowhere", "header",
    )}  # fmt: skip
    random["webhook"] = base64.b64encode(secrets.token_bytes(32)).decode()
    written = random | {
        "alerts": f"json://user:{random['alerts']}@127.0.0.1:{closed}/",
        "heartbeat": f"http://127.0.0.1:{closed}/{random['heartbeat']}",
        "teams": f"{sandbox}/teams?sig={random['teams']}",
        "echo": f"http://127.0.0.1:{echo}/{random['echo']}",
        "nowhere": f"http://127.0.0.1:{closed}/{random['nowhere']}?key={random['nowhere']}",
        "header": f"Bearer {random['header']}",
        "webhook": f"whsec_{random['webhook']}",
    }
    (folder / "secrets").mkdir()
    for name, value in written.items():
        (folder / "secrets" / name).write_text(value + "\n")
    return random


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def life(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    missing: Callable[[str, str], None],
) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("life")
    with ExitStack() as stack:
        echo = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
        stack.callback(echo.server_close)
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        stack.callback(echo.shutdown)
        sandbox = Sandbox(folder, stack)
        sandbox.start()
        relay = Relay(folder, stack, sandbox=sandbox.url)
        closed, inner = free_port(), free_port()
        if request.param == "postgres":
            relay.store = stack.enter_context(_new_database(missing))
        commands = Commands(relay, tmp_path_factory.mktemp("said"), stack)
        life = Life(relay, commands)
        life.secrets = _secret_files(
            folder, sandbox=sandbox.url, closed=closed, echo=echo.server_port
        )
        relay.config.write_text(
            CONFIG.format(
                port=relay.port,
                inner=inner,
                closed=closed,
                sandbox=sandbox.url,
                common=COMMON,
                store=relay.store,
            )
        )
        # As on a host that keeps core files; the relay inherits it.
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_CORE, (soft, hard))
        process = relay.start()
        _receive(life)
        _look_by_commands(life)
        _look_by_pages(life, f"http://127.0.0.1:{inner}")
        _look_by_calls(life, f"http://127.0.0.1:{inner}")
        _reload_a_broken_config(life)
        _crash(life, process)
        if not life.is_on_server:
            # A server's is pg_dump's own compressed form, of tables that are looked through.
            life.run("backup", str(folder / "relay.backup"))
        # It runs on, or its write-ahead log would be empty.
        yield life


@contextmanager
def _new_database(missing: Callable[[str, str], None]) -> Iterator[str]:
    name = f"gofax_test_{secrets.token_hex(6)}"
    try:
        server = psycopg.connect(f"{SERVER}/postgres", autocommit=True, connect_timeout=3)
    except psycopg.Error as error:
        missing("postgres", str(error))
    with server:
        server.execute(f"CREATE DATABASE {name}")
        yield f"{SERVER}/{name}"
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _receive(life: Life) -> None:
    """Post what is taken and what is refused, and wait until its deliveries have ended."""
    relay, signing = life.relay, life.secrets["signing"]

    def post(name: str, customer: str, *, secret: str = signing, **headers: str) -> int:
        said = {
            **EXAMPLE, "messageId": name, "from": customer, "messageBody": f"{WORDS} {name}",
        }  # fmt: skip
        return relay.post(said, secret=secret, headers=headers).status_code

    assert post("m1", ANN) == 200
    assert post("m1", ANN) == 200
    assert post("m2", BEN, secret=life.secrets["old"]) == 200
    assert post("m3", CAT) == 200
    assert post("m4", DAN, secret="a wrong one") == 401
    post("m5", DAN, secret="a wrong one", **{"Content-Type": f"text/{DAN}"})
    assert relay.post(f"{WORDS} {DAN}".encode(), secret=signing).status_code == 400
    assert relay.post(f"{WORDS} {DAN} ".encode() * 9000, secret=signing).status_code == 413
    for path in (f"/webhooks/gofax/{DAN}", f"/webhooks/gofax?from={DAN}&text={WORDS}"):
        requests.post(relay.url + path, data=f'{{"from": "{DAN}"}}', timeout=20)
    form = {"messageId": "s1", "to": ANN, "status": "SUCCESS", "text": WORDS}
    for password, status in ((life.secrets["basic"], 200), ("wrong", 401)):
        url = f"{relay.url}/webhooks/gofax/status"
        answered = requests.post(url, data=form, auth=("gofax", password), timeout=20)
        assert answered.status_code == status
    eventually(lambda: _is_tried(relay))


def _is_tried(relay: Relay) -> bool:
    """Return whether the stand-ins have all, and what else there is was tried."""
    deliveries = [each for event in relay.listed("events") for each in event["deliveries"]]
    good = {"crm", "helpdesk", "front-desk"}
    tried = {each["destination"] for each in deliveries if each["attempts"]}
    return tried >= {"echo", "nowhere", "inbox"} and all(
        each["state"] in ("delivered", "dead", "held")
        for each in deliveries
        if each["destination"] in good
    )


def _look_by_commands(life: Life) -> None:
    [event, *_] = life.relay.listed("events")
    for command in (
        "check", "check --live", f"check --sample {event['id']}", "doctor", "events --json",
        "requests --json", "destinations --json", "problems --json", "nodes --json", "dead --json",
        f"explain {event['id']}", f"event {event['id']} --json", "alerts test", "check --diff",
        f"export {ANN} --output {life.relay.folder}/export.json",
        f"erase {CAT} --yes --receipt {life.relay.folder}/receipt.json", f"erase {CAT} --yes",
        "prune --dry-run",
    ):  # fmt: skip
        life.run(*command.split())
    token, _ = life.commands.run(
        "tokens", "add", "program", "--scope", "admin", "--scope", "operate"
    )
    added, _ = life.commands.run("users", "add", "lead", "--role", "admin")
    life.once["token"], life.once["link"] = token.strip(), added.strip().partition(PATH)[2]
    life.once["password"] = f"four plain words {secrets.token_hex(12)}"
    assert life.once["token"] and life.once["link"]


def _look_by_pages(life: Life, url: str) -> None:
    """Choose a password, and open each page that the console leads to."""
    browser = requests.Session()
    welcome = f"{url}{PATH}{life.once['link']}"
    fields = dict.fromkeys(
        ("password", "again", "repeat", "password_again"), life.once["password"]
    )

    def token(page: str) -> dict[str, str]:
        found = re.search(r'name="csrf_token" value="([^"]+)"', page)
        return {"csrf_token": found[1]} if found else {}

    page = browser.get(welcome, timeout=20).text
    browser.post(welcome, data=fields | token(page), timeout=20)
    waiting, seen = ["/console/"], set()
    while waiting and len(seen) < 150:
        path = waiting.pop(0)
        seen.add(path)
        answer = browser.get(url + path, timeout=30)
        life.shown[path] = answer.text
        for found in re.findall(r'href="(/console/[^"#]*)"', answer.text):
            link = html.unescape(found)
            if link not in seen and link not in waiting and "sign-out" not in link:
                waiting.append(link)
    assert {"/console/settings", "/console/settings/audit", "/console/destinations/echo"} <= seen
    life.once["cookie"] = browser.cookies["gofax_console"]
    for path in (f"/console/search?q={urllib.parse.quote(BEN)}", f"/console/{DAN}"):
        life.shown[path] = browser.get(url + path, timeout=20).text
    wrong = {"name": "lead", "password": life.once["password"] + "!"}
    stranger = requests.Session()
    page = stranger.get(f"{url}/console/sign-in", timeout=20).text
    stranger.post(f"{url}/console/sign-in", data=wrong | token(page), timeout=20)


def _look_by_calls(life: Life, url: str) -> None:
    api, auth = f"{url}/api/v1", {"Authorization": f"Bearer {life.once['token']}"}
    number = urllib.parse.quote(BEN)
    for path in (
        "events", "requests", "deliveries", "destinations", "problems", "nodes", "settings",
        "config", "audit", "users", "tokens", "openapi.json",
        f"export/{number}", f"nothing/{number}", f"events?customer={number}",
        f"search?q={number}", f"events?since={number}",
    ):  # fmt: skip
        life.shown[f"API {path}"] = requests.get(f"{api}/{path}", headers=auth, timeout=20).text
    for body in ({"number": BEN, "dry_run": False}, {"number": DAN}, {"number": [BEN, WORDS]}):
        answered = requests.post(f"{api}/erase", json=body, headers=auth, timeout=60)
        life.shown[f"API erase {body}"] = answered.text
    metrics = {"Authorization": f"Bearer {life.secrets['metrics']}"}
    for headers in (metrics, {}):
        life.shown[f"metrics {len(headers)}"] = requests.get(
            f"{url}/metrics", headers=headers, timeout=20
        ).text
    assert "gofax_relay_" in life.shown["metrics 1"]


def _reload_a_broken_config(life: Life) -> None:
    config = life.relay.config
    good = config.read_text()
    config.write_text(good.replace("connector: zendesk,", "connector: zendesk, subdomian: x,"))
    life.run("check")
    life.run("reload")
    config.write_text(good)
    life.run("reload")


def _crash(life: Life, process: Process) -> None:
    """Abort the receiver as a fault in a library would."""
    children = _children(process.pid)
    for pid in [*children, *(each for child in children for each in _children(child))]:
        os.kill(pid, signal.SIGABRT)
    eventually(life.relay.answers)
    life.cores = [
        each
        for each in life.relay.folder.rglob("*")
        if re.fullmatch(r"core([.-].*)?|.*\.core", each.name)
    ]


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in listed]


def _forms(secret: str) -> Mapping[str, bytes]:
    """Return the ways in which something may have been written."""
    raw = secret.encode()
    return {
        "as it is": raw,
        "in base64": base64.b64encode(raw).rstrip(b"=")[:-1],
        "in base64 with its user": base64.b64encode(b"gofax:" + raw).rstrip(b"=")[:-1],
        "in hexadecimal": raw.hex().encode(),
        "quoted": urllib.parse.quote(secret, safe="").encode(),
        "in UTF-16": secret.encode("utf-16-le"),
    }


def test_no_secret_is_in_what_a_relay_wrote_or_showed(life: Life) -> None:
    written = life.written()
    hidden = life.secrets | life.once

    found = [
        f"{name} {how} in {place}"
        for name, secret in hidden.items()
        for how, form in _forms(secret).items()
        for place, said in written.items()
        if form in said
    ]

    assert found == []
    # All that was looked for was used, and what was looked through is there.
    store = {"table events", "table requests"}
    if not life.is_on_server:
        store = {"relay.db", "relay.db-wal", "relay.backup"}
    assert store | {"serve.log", "export.json"} <= set(written)
    assert any(WORDS.encode() in written[each] for each in store)
    assert len(written) > 60


def test_the_secret_of_sessions_is_in_the_store_alone(life: Life) -> None:
    with closing(connect(life.relay.store)) as database:
        secret = Users(database).secret()
    written = life.written()

    found = {
        place
        for place, said in written.items()
        if secret.encode() in said or bytes.fromhex(secret) in said
    }

    kept = {"table marks"} if life.is_on_server else {"relay.db", "relay.backup"}
    assert {place.removesuffix("-wal") for place in found} == kept


def test_a_crash_leaves_no_core_file(life: Life) -> None:
    assert life.cores == []
    assert '"event": "process.died"' in life.logs or '"event":"process.died"' in life.logs


@pytest.mark.parametrize("customer", [ANN, BEN, CAT, DAN])
def test_no_line_of_the_log_has_a_number(life: Life, customer: str) -> None:
    lines = life.logs.splitlines()
    national = customer.removeprefix("+61")

    assert [line for line in lines if national in re.sub(r"[ ()-]", "", line)] == []
    assert len(lines) > 30


def test_no_line_of_the_log_has_a_text(life: Life) -> None:
    assert [line for line in life.logs.splitlines() if WORDS in line] == []
