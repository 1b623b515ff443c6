"""What deploy/ and docs/scaling.md say: the files fit each other, and the commands work."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import click
import psycopg
import pytest
import requests
import yaml
from brokers import no_rabbitmq
from requests.adapters import HTTPAdapter
from test_docs import blocks, free_port

from relay.cli import COMMANDS, cli
from relay.config.installed import find
from relay.config.load import load
from relay.processes.granian import CONNECTIONS
from relay.processes.process import KILL_AFTER

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: Mapping[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("web-1", "web-2", "work", "migrate", "sandbox")
#: `${NAME}`, `${NAME:-default}`, `${NAME:?complaint}`.
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
SERVER = os.environ.get("GOFAX_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432")
SCHEMA = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]


def run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **environ},
    )  # fmt: skip


def documented() -> set[str]:
    """Return the names that .env.example explains, those that may be left out included."""
    text = (DEPLOY / ".env.example").read_text()
    return set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE))


def environment(service: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return what Compose would give a service, where .env says what is *given*."""

    def value(found: re.Match[str]) -> str:
        name, kind, word = found.groups()
        return given.get(name) or (word if kind == "-" else "")

    described = SERVICES[service]["environment"]
    return {name: VARIABLE.sub(value, text) for name, text in described.items()}


def test_the_compose_file_is_one() -> None:
    done = run(*SCHEMA, str(DEPLOY / "compose.yaml"))

    assert done.returncode == 0, done.stdout


def test_a_key_that_compose_does_not_know_would_be_found(tmp_path: Path) -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    (tmp_path / "compose.yaml").write_text(text.replace("restart:", "restarts:"))

    assert run(*SCHEMA, str(tmp_path / "compose.yaml")).returncode == 1


def test_there_are_two_of_what_may_die() -> None:
    assert {"caddy", "postgres", "rabbitmq", *OURS} == set(SERVICES)
    assert SERVICES["work"]["deploy"]["replicas"] == 2
    assert SERVICES["web-1"] == SERVICES["web-2"]
    assert SERVICES["caddy"]["environment"]["RELAY_WEBS"] == "web-1:8080 web-2:8080"
    assert SERVICES["caddy"]["environment"]["RELAY_CONSOLES"] == "web-1:8081 web-2:8081"


@pytest.mark.parametrize("name", OURS)
def test_services_of_ours_run_commands_that_there_are(name: str) -> None:
    program, command, *_ = SERVICES[name]["command"]

    assert program == "gofax-relay"
    assert command in COMMANDS


@pytest.mark.parametrize("name", SERVICES)
def test_services_start_again_and_wait_for_what_tells_that_it_is_well(name: str) -> None:
    service = SERVICES[name]

    assert service["restart"] in ("unless-stopped", "on-failure")
    for other, wanted in service.get("depends_on", {}).items():
        healthy = wanted["condition"] == "service_healthy"
        assert healthy == ("test" in SERVICES[other].get("healthcheck", {})), (
            f"{name} waits for {other}"
        )


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = mount.split(":")[0]
        there = (DEPLOY / source).is_file() if source[0] == "." else source in COMPOSE["volumes"]
        assert there, mount


def test_nothing_but_the_proxy_is_open_to_others() -> None:
    ports = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}

    assert set(ports) == {"caddy", "sandbox"}
    assert all(port.startswith("127.0.0.1:") for port in ports["sandbox"])
    assert SERVICES["sandbox"]["profiles"] == ["try"]


UNIT = DEPLOY / "gofax-relay.service"


def _unit() -> configparser.ConfigParser:
    # A key may come more than once: the last one counts here.
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # its documented way
    unit.read_string(UNIT.read_text())
    return unit


def _options(command: str) -> set[str]:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    return {option for parameter in found.params for option in parameter.opts}


def test_the_service_runs_a_command_that_there_is_as_a_user_of_its_own() -> None:
    service = _unit()["Service"]
    program, command, option, config = service["ExecStart"].split()

    assert Path(program).name == "gofax-relay"
    assert command in COMMANDS
    assert option in _options(command)
    assert service["User"] == service["Group"] == "gofax-relay"
    assert f"\nuser={service['User']}\n" in (DEPLOY / "install.sh").read_text()
    assert Path(config).parent == Path(service["EnvironmentFile"].lstrip("-")).parent


def test_the_service_gives_the_relay_the_time_that_it_needs_to_end() -> None:
    assert int(_unit()["Service"]["TimeoutStopSec"]) > KILL_AFTER


def test_the_service_allows_as_many_connections_as_the_receiver_holds() -> None:
    assert int(_unit()["Service"]["LimitNOFILE"]) > CONNECTIONS


def test_the_installed_config_puts_the_store_where_the_service_may_write(tmp_path: Path) -> None:
    for name in ("gofax-signing-secret", "gofax-metrics-token"):
        (tmp_path / name).write_text("x" * 32)
    given = {"CREDENTIALS_DIRECTORY": str(tmp_path)}

    config = load(DEPLOY / "small.yaml", find_connector=find, environ=given)

    file = Path(config.store.removeprefix("sqlite:///"))
    assert file.parent == Path("/var/lib") / _unit()["Service"]["StateDirectory"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd")
def test_systemd_takes_the_service_and_finds_it_well_shut_in(tmp_path: Path) -> None:
    service = _unit()["Service"]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(service["ExecStart"].split()[0], sys.executable))

    verified = run("systemd-analyze", "verify", "--man=no", str(copy))
    rated = run("systemd-analyze", "security", "--offline=true", "--threshold=20", str(copy))

    assert (verified.returncode, verified.stderr) == (0, "")
    assert rated.returncode == 0, rated.stdout[-300:]


def test_every_variable_is_documented() -> None:
    used = {found[1] for found in VARIABLE.finditer((DEPLOY / "compose.yaml").read_text())}

    assert used == documented()


def test_no_secret_has_a_value() -> None:
    text = (DEPLOY / ".env.example").read_text()
    secrets = re.findall(r"^(\w*(?:SECRET|PASSWORD|TOKEN|WORKFLOW_URL))=(.*)$", text, re.MULTILINE)

    assert len(secrets) == 6
    assert not [value for _, value in secrets if value]


def test_the_config_loads_with_what_compose_gives(tmp_path: Path) -> None:
    given = {name: "https://example.com/x" for name in documented() if name.endswith("URL")}
    given |= {name: "x" * 32 for name in documented() - set(given)} | {"RELAY_OUTBOUND": ""}

    for name in ("web-1", "work", "migrate"):
        config = load(DEPLOY / "relay.yaml", find_connector=find, environ=environment(name, given))

        assert config.store.startswith("postgresql://relay@postgres/")
        assert config.server.trusted_proxies == 1
        assert (config.server.host, config.server.port) == ("0.0.0.0", 8080)
        assert config.admin is not None
        assert (config.admin.host, config.admin.port) == ("0.0.0.0", 8081)
        assert config.admin.url == f"https://{given['RELAY_CONSOLE']}"


def test_the_config_passes_its_check() -> None:
    done = run(
        sys.executable, "-m", "relay.cli", "check", "--config", str(DEPLOY / "relay.yaml"),
        **environment("web-1", {"HUBSPOT_ACCESS_TOKEN": "x", "GOFAX_SIGNING_SECRET": "x" * 32,
                                "TEAMS_WORKFLOW_URL": "https://example.com/flow",
                                "RABBITMQ_PASSWORD": "x", "RELAY_METRICS_TOKEN": "x" * 32}),
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "endpoint /webhooks/gofax: json, signed" in done.stdout


@pytest.fixture
def caddy(missing: Any) -> dict[str, str]:
    """What Caddy's file needs to hear from outside for the Caddy that is here."""
    if shutil.which("caddy") is None:
        missing("caddy", "no such command")
    version = re.search(r"(\d+)\.(\d+)", run("caddy", "version").stdout)
    assert version is not None
    old = (int(version[1]), int(version[2])) < (2, 7)
    return {"RELAY_BUFFERS": "buffer_requests"} if old else {}


def test_the_caddyfile_is_valid(caddy: dict[str, str], tmp_path: Path) -> None:
    for tls in ("internal", "you@example.com"):
        settings = environment("caddy", {"RELAY_SITE": "sms.example.com", "RELAY_TLS": tls})
        done = run(
            "caddy", "validate", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile"),
            **settings, **caddy, XDG_DATA_HOME=str(tmp_path),
        )  # fmt: skip

        assert done.returncode == 0, done.stderr


def test_caddy_cuts_no_body_off_while_anybody_waits_for_the_answer() -> None:
    # It answers 200 then, because the call counts as given up by its sender.
    [minutes] = re.findall(r"read_body (\d+)m$", (DEPLOY / "Caddyfile").read_text(), re.MULTILINE)

    assert int(minutes) >= 10


class _Backend(BaseHTTPRequestHandler):
    """Stands where the relay is, and keeps the headers of what is posted."""

    seen: ClassVar[list[Mapping[str, str]]] = []

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        self._answer()

    def _answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def _caddy(
    folder: Path, old: Mapping[str, str], *, site: int, console: int, **settings: str
) -> Iterator[None]:
    """Run Caddy with our file, its sites on these ports, until the end."""
    environ = (
        os.environ
        | old
        | {"RELAY_SITE": f"localhost:{site}", "RELAY_CONSOLE": f"localhost:{console}"}
        | {"CADDY_ADMIN": "off", "XDG_DATA_HOME": str(folder), "HOME": str(folder)}
        | settings
    )
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile")]
    with (folder / "caddy.log").open("w") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_a_header_with_an_underscore_does_not_pass_the_proxy(
    caddy: dict[str, str], tmp_path: Path
) -> None:
    port, other = free_port(), free_port()
    backend = ThreadingHTTPServer(("127.0.0.1", 0), _Backend)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    forged = {
        "X-Forwarded_For": "203.0.113.9",
        "X_Forwarded_For": "203.0.113.9",
        "X-GoFax-Signature": "0" * 64,
    }
    webs = f"127.0.0.1:{backend.server_port}"
    try:
        with _caddy(tmp_path, caddy, site=port, console=other, RELAY_WEBS=webs):
            ends_at = time.monotonic() + 30
            while not _Backend.seen and time.monotonic() < ends_at:
                with contextlib.suppress(requests.RequestException), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    url = f"https://localhost:{port}/webhooks/gofax"
                    requests.post(url, data=b"{}", headers=forged, verify=False, timeout=5)
                time.sleep(0.1)
    finally:
        backend.shutdown()
        backend.server_close()

    assert _Backend.seen, (tmp_path / "caddy.log").read_text()
    [given, *_] = _Backend.seen
    assert given["x-gofax-signature"] == "0" * 64
    assert given["x-forwarded-for"] == "127.0.0.1"
    assert not [name for name in given if "_" in name]


class _From(HTTPAdapter):
    """Connects from an address of this machine that is not the usual one."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, source_address=("127.0.0.9", 0))


class _Site:
    """A relay with Caddy in front, and somebody who looks at it from 127.0.0.9."""

    def __init__(self, folder: Path, *, site: int, console: int, public: int, inner: int) -> None:
        self.folder = folder
        self.public = f"http://127.0.0.1:{public}"
        self.inner = f"http://127.0.0.1:{inner}"
        self.site = f"https://localhost:{site}"
        self.console = f"https://localhost:{console}"
        self.session = requests.Session()
        # Variables of this machine may name other authorities.
        self.session.trust_env = False
        self.session.mount("https://", _From())
        self.session.verify = str(folder / "caddy/pki/authorities/local/root.crt")
        self.session.headers["X-Forwarded-For"] = "203.0.113.9"

    def run(self, *arguments: str) -> str:
        config = str(self.folder / "config.yaml")
        done = run(sys.executable, "-P", "-m", "relay.cli", *arguments, "--config", config)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, url: str) -> requests.Response:
        return self.session.get(url, timeout=10, allow_redirects=False)

    def send(self, url: str, page: requests.Response, **form: str) -> requests.Response:
        """Send a form of *page* with its token."""
        token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
        assert token is not None, page.text
        form["csrf_token"] = token[1]
        headers = {"Referer": url}
        return self.session.post(
            url, data=form, headers=headers, timeout=10, allow_redirects=False
        )


@pytest.fixture
def fronted(caddy: dict[str, str], tmp_path: Path) -> Iterator[_Site]:
    site, console, public, inner = (free_port() for _ in range(4))
    made = _Site(tmp_path, site=site, console=console, public=public, inner=inner)
    (tmp_path / "config.yaml").write_text(
        f"server: {{listen: '127.0.0.1:{public}', trusted_proxies: 1}}\n"
        f"admin: {{listen: '127.0.0.1:{inner}', url: 'https://localhost:{console}'}}\n"
        "store: sqlite:///relay.db\n"
        "endpoints: [{path: /webhooks/gofax, allow_unsigned: true}]\n"
    )
    command = [sys.executable, "-P", "-m", "relay.cli", "serve"]
    settings = {
        "RELAY_WEBS": made.public.removeprefix("http://"),
        "RELAY_CONSOLES": made.inner.removeprefix("http://"),
    }
    with ExitStack() as stack:
        log = stack.enter_context((tmp_path / "relay.log").open("w"))
        relay = subprocess.Popen(
            [*command, "--config", str(tmp_path / "config.yaml")], stdout=log, stderr=log
        )
        stack.callback(relay.wait, 20)
        stack.callback(relay.terminate)
        stack.enter_context(_caddy(tmp_path, caddy, site=site, console=console, **settings))
        ends_at = time.monotonic() + 60
        while not _answers(made):
            logs = [(tmp_path / f"{name}.log").read_text() for name in ("relay", "caddy")]
            assert time.monotonic() < ends_at, logs
            time.sleep(0.1)
        yield made


def _answers(site: _Site) -> bool:
    try:
        return site.get(f"{site.console}/console/sign-in").ok and bool(
            site.session.post(f"{site.site}/webhooks/gofax", json={"messageId": "m"}, timeout=5).ok
        )
    # A certificate authority that is not there yet is an OSError.
    except (requests.RequestException, OSError):
        return False


@pytest.mark.slow
def test_people_reach_the_console_by_its_own_site_and_are_known_by_their_address(
    fronted: _Site,
) -> None:
    link = fronted.run("users", "add", "mary", "--role", "admin").strip()
    assert link.startswith(f"{fronted.console}/console/welcome/")
    password = "four plain words together"

    chosen = fronted.send(link, fronted.get(link), password=password, again=password)
    fronted.session.cookies.clear()
    sign_in = f"{fronted.console}/console/sign-in"
    signed_in = fronted.send(sign_in, fronted.get(sign_in), name="mary", password=password)
    page = fronted.get(f"{fronted.console}/console/")

    assert (chosen.status_code, signed_in.status_code) == (302, 302)
    assert page.status_code == 200
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert fronted.get(f"{fronted.console}/").headers["Location"] == "/console/"
    log = fronted.get(f"{fronted.console}/console/settings/audit?what=sign+in").text
    assert "127.0.0.9" in log
    assert "203.0.113.9" not in log


@pytest.mark.slow
def test_nothing_of_the_console_answers_where_gofax_posts(fronted: _Site) -> None:
    inner = ("/", "/console/", "/console/sign-in", "/api/v1/openapi.json", "/metrics")

    for path in inner:
        assert fronted.get(fronted.site + path).status_code == 404, path
        # The relay itself, should somebody let a proxy pass everything on.
        assert requests.get(fronted.public + path, timeout=10).status_code == 404, path
    assert fronted.get(f"{fronted.console}/metrics").status_code == 404
    assert fronted.get(f"{fronted.console}/webhooks/gofax").status_code == 404
    assert requests.get(f"{fronted.inner}/metrics", timeout=10).status_code == 200


def test_a_console_for_some_networks_answers_no_other(
    caddy: dict[str, str], tmp_path: Path
) -> None:
    site, port = free_port(), free_port()
    backend = ThreadingHTTPServer(("127.0.0.1", 0), _Backend)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    networks = "10.0.0.0/8 127.0.0.1/32 ::1/128"
    settings = {
        "RELAY_CONSOLES": f"127.0.0.1:{backend.server_port}",
        "RELAY_CONSOLE_FROM": networks,
    }
    ours, theirs = requests.Session(), requests.Session()
    theirs.mount("https://", _From())
    try:
        with _caddy(tmp_path, caddy, site=site, console=port, **settings):
            url, found = f"https://localhost:{port}/console/", list[int]()
            ends_at = time.monotonic() + 30
            while len(found) < 2 and time.monotonic() < ends_at:
                certificate = str(tmp_path / "caddy/pki/authorities/local/root.crt")
                with contextlib.suppress(requests.RequestException, OSError):
                    found = [
                        each.get(url, verify=certificate, timeout=5).status_code
                        for each in (ours, theirs)
                    ]
                time.sleep(0.1)
    finally:
        backend.shutdown()
        backend.server_close()

    assert found == [200, 404], (tmp_path / "caddy.log").read_text()


def test_the_image_holds_what_it_needs_and_is_not_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
        for name in line.split()
    ]
    allowed = re.findall(
        r"^!(.*)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE
    )

    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / name).exists() for name in copied)
    assert re.findall(r"^USER (\w+)$", text, re.MULTILINE) == ["10001"]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder that looks like that of the project."""
    (tmp_path / "deploy").symlink_to(DEPLOY)
    return tmp_path


def _no_postgres() -> str:
    try:
        psycopg.connect(f"{SERVER}/postgres", connect_timeout=3).close()
    except psycopg.Error as error:
        return " ".join(str(error).split())
    return ""


#: Those that the page names.
PORTS = ("8081", "8082", "8083", "8084", "8090", "8443", "8444", "2019")


@pytest.fixture
def names(missing: Any) -> Iterator[dict[str, str]]:
    """What the page's names and ports are called here, so that nobody else has them."""
    for program in ("caddy", "curl", "createdb", "openssl"):
        if shutil.which(program) is None:
            missing(program, "no such command")
    for server, reason in (("postgres", _no_postgres()), ("rabbitmq", no_rabbitmq())):
        if reason:
            missing(server, reason)
    unique = f"gofax_scaling_{os.getpid()}"
    yield {
        "gofax_scaling": unique,
        **{
            str(port): str(free_port())
            for port in (8081, 8082, 8083, 8084, 8090, 8443, 8444, 2019)
        },
    }
    with psycopg.connect(f"{SERVER}/postgres", autocommit=True) as db:
        db.execute(f"DROP DATABASE IF EXISTS {unique} WITH (FORCE)")
    run("rabbitmqctl", "delete_vhost", unique)


@pytest.mark.slow
def test_the_commands_of_the_page_bring_events_through_tls_into_the_sandbox(
    here: Path, names: dict[str, str], caddy: dict[str, str]
) -> None:
    script = "set -e\n" + "\n".join(text for _, text in blocks("scaling.md", "sh"))
    for name, ours in names.items():
        script = script.replace(name, ours)
    script = script.replace("RELAY_BUFFERS=buffer_requests", _exported(caddy))
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    said = here / "said"
    # Files, not pipes: what the script leaves running would hold those open.
    with said.open("w") as out, (here / "log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=here, env={**os.environ, "PATH": programs},
            stdout=out, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        process.wait(timeout=300)
    finally:
        _end_group(process)

    assert process.returncode == 0, (said.read_text(), (here / "log").read_text()[-3000:])
    found = said.read_text()
    assert "Are you open?" in found
    assert "Still there?" in found
    assert "crm" in found


def _exported(settings: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items()) or "NOTHING=''"


def _end_group(process: subprocess.Popen[str]) -> None:
    """End what the script has left running, if it came to no good end."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(timeout=10)
