"""The way from the public address to the relay, by real connections with one thing wrong."""

from __future__ import annotations

import io
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import trustme
from click.testing import CliRunner, Result
from fakes import eventually
from werkzeug.serving import make_server

from relay.app import create_app
from relay.cli import cli
from relay.commands import public_url
from relay.config.load import load
from relay.refused import Refusals
from relay.rules.kinds import Kind
from relay.store import Database, Inbox, Queries
from relay.store.problems import Problems
from relay.telling import public, watch
from relay.telling.watch import OldSecrets, Watch, facts_of

CONFIG = """\
store: sqlite:///relay.db
public_url: {public}
endpoints:
  - {{path: /signed, signing_secrets: [new, old]}}
  - {{path: /form, format: form, basic_auth: {{username: gofax, password: päss}}}}
  - {{path: /open, allow_unsigned: true}}
"""
#: Other ways to sign.
SIGNED_OTHERWISE = [
    "{signs: timestamp.body, timestamp_header: X-Time, tolerance: 5m, encoding: base64}",
    "{header: X-Other, signs: body-without-field}",
    "{field: sig, signs: sorted-json}",
]
WELL = ["/signed", "/form", "/open"]

#: A WSGI application.
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(
    ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ssl.SSLContext]:
    """Let the system trust the CA; return what makes certificates by it."""
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))

    def made(name: str = "localhost", *, by: trustme.CA = ca, days: float = 60) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ends_at = datetime.now(UTC) + timedelta(days=days)
        by.issue_cert(name, not_after=ends_at).configure_cert(context)
        return context

    return made


@dataclass
class Site:
    """A relay in this process, and a way to it."""

    folder: Path
    database: Database
    inbox: Inbox
    stack: ExitStack
    public: str = ""
    app: App = field(init=False)

    def serve(
        self,
        front: Callable[[App], App] | None = None,
        tls: ssl.SSLContext | None = None,
        changes: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Serve the relay, or *front*, at the public address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.write(f"{'https' if tls else 'http'}://localhost:{port}", **changes)
        refusals = Refusals(self.inbox.refuse)
        config = load(self.folder / "config.yaml", find_connector=lambda name: pytest.fail(name))
        made = create_app(config, database=self.database, inbox=self.inbox, refusals=refusals)
        self.app = passing(made.wsgi_app, lambda environ: None)
        app = front(self.app) if front else self.app
        server = make_server("127.0.0.1", port, app, threaded=True, ssl_context=tls)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.stack.callback(refusals.close)
        self.stack.callback(thread.join)
        self.stack.callback(server.shutdown)

    def write(self, public: str, **changes: str) -> None:
        self.public = public
        text = CONFIG.format(public=public)
        for old, new in changes.items():
            text = text.replace(old, new)
        (self.folder / "config.yaml").write_text(text)

    def looked(self) -> dict[str, tuple[str, str]]:
        """Run the doctor; return the verdict and the words of each step, by check or path."""
        found = {}
        for line in self.doctor("--json").output.splitlines():
            each = json.loads(line)
            name, _, said = each["said"].partition(": ")
            if each["check"] == "probe":
                found[name] = (each["verdict"], said)
            elif each["check"] in ("dns", "tcp", "tls"):
                found[each["check"]] = (each["verdict"], each["said"])
        return found

    def doctor(self, *options: str) -> Result:
        path = self.folder / "config.yaml"
        given = ["doctor", "--config", str(path), "--public-url", *options]
        return CliRunner().invoke(cli, given)


@pytest.fixture
def site(tmp_path: Path, database: Database, inbox: Inbox) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(folder=tmp_path, database=database, inbox=inbox, stack=stack)


def answers(status: str, **headers: str) -> Callable[[App], App]:
    """Return a front that answers by itself."""

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(status, [(name, value) for name, value in headers.items()])
        return [b"hello"]

    return lambda relay: app


def passing(relay: App, change: Callable[[dict[str, Any]], None]) -> App:
    """Return a front that changes what it passes on, or does nothing but buffer it."""

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        change(environ)
        return relay(environ, start)

    return app


def test_probes_come_to_every_endpoint_and_have_no_effect(
    site: Site, trusted: Callable[..., ssl.SSLContext], database: Database
) -> None:
    site.serve(tls=trusted())

    found = site.looked()

    assert {verdict for verdict, _ in found.values()} == {"good"}, found
    assert list(found) == ["dns", "tcp", "tls", *WELL]
    assert "for localhost, trusted until" in found["tls"][1]
    queries = Queries(database)
    assert list(queries.events()) == []
    taken = list(queries.requests())
    assert [each.endpoint for each in taken] == WELL
    assert {each.outcome for each in taken} == {"probe"}
    assert [each.reason for each in taken] == [
        "signature matches secret 1",
        "signed by this store",
        "signed by this store",
    ]
    listed = CliRunner().invoke(
        cli, ["requests", "--standing", "probe", "--config", str(site.folder / "config.yaml")]
    )
    assert listed.output.count("probe") == 3


@pytest.mark.parametrize("scheme", SIGNED_OTHERWISE)
def test_probes_are_signed_as_the_endpoint_wants_it(
    site: Site, scheme: str, queries: Queries
) -> None:
    site.serve(changes={"allow_unsigned: true": f"signing_secrets: [x], signature: {scheme}"})

    assert site.looked()["/open"][0] == "good"
    assert list(queries.events()) == []


@pytest.mark.parametrize(
    ("given", "verdict", "said"),
    [
        ({"days": -1}, "broken", "has expired on"),
        ({"name": "elsewhere.test"}, "broken", "is for elsewhere.test, and not for localhost"),
        ({"by": trustme.CA()}, "broken", "not trusted here"),
        ({"days": 10}, "notice", "does the renewal run?"),
        ({"days": 2}, "degraded", "does the renewal run?"),
    ],
    ids=["expired", "misnamed", "untrusted", "ends soon", "ends very soon"],
)
def test_a_certificate_is_looked_at(
    site: Site,
    trusted: Callable[..., ssl.SSLContext],
    given: dict[str, Any],
    verdict: str,
    said: str,
) -> None:
    site.serve(tls=trusted(**given))

    found = site.looked()

    assert found["tls"][0] == verdict
    assert said in found["tls"][1]
    assert ("/signed" in found) is (verdict != "broken")


def test_nodes_look_at_it_too(
    site: Site,
    trusted: Callable[..., ssl.SSLContext],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site.serve(tls=trusted(days=10))
    monkeypatch.setattr(watch, "FIRST", 0.0)
    monkeypatch.setattr(watch, "LOOK", 0.05)
    config = load(site.folder / "config.yaml", find_connector=lambda name: pytest.fail(name))
    old_secrets = OldSecrets()
    old_secrets.note("/signed", b"old")
    problems = Problems(database)

    with closing(Watch(config, database, node="a", old_secrets=old_secrets)) as node:
        node.start()
        eventually(lambda: [each.kind for each in problems.unresolved()] == [Kind.CERTIFICATE])

    (found,) = problems.unresolved()
    assert (found.subject, found.level) == (site.public, "warning")
    # Which is a problem in an hour.
    assert list(facts_of(config, database).old_secrets) == ["/signed"]


@pytest.mark.parametrize(
    ("given", "fault"),
    [({"days": -1}, "has expired on"), ({}, "")],
    ids=["expired", "good"],
)
def test_what_a_node_sees_of_a_certificate(
    site: Site, trusted: Callable[..., ssl.SSLContext], given: dict[str, Any], fault: str
) -> None:
    site.serve(tls=trusted(**given))

    ends_at, said = public.certificate_at(site.public)

    assert (ends_at is None) is bool(fault)
    assert fault in said


def test_a_node_that_cannot_reach_the_address_says_nothing_of_the_certificate() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        assert public.certificate_at(f"https://127.0.0.1:{unused.getsockname()[1]}") == (None, "")


def test_http_is_no_address_for_gofax(site: Site) -> None:
    site.serve()

    found = site.looked()

    assert found["tls"] == ("notice", "public_url is http, and GoFax calls https addresses only")
    assert found["/signed"][0] == "good"


def test_a_port_that_nobody_listens_at(site: Site) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        site.write(f"https://127.0.0.1:{unused.getsockname()[1]}")

        found = site.looked()

    assert list(found) == ["dns", "tcp"]
    assert found["tcp"][0] == "broken"
    assert "connection refused" in found["tcp"][1]
    assert "does the proxy run" in found["tcp"][1]


def test_a_name_without_an_address(site: Site) -> None:
    site.write(f"https://{'a' * 70}.test")

    found = site.looked()

    assert list(found) == ["dns"]
    assert found["dns"][0] == "broken"


def test_a_server_without_tls(site: Site) -> None:
    site.serve()
    site.write(site.public.replace("http://", "https://"))

    found = site.looked()

    assert found["tls"][0] == "broken"
    assert "does the proxy serve https" in found["tls"][1]


@pytest.mark.parametrize(
    ("front", "said"),
    [
        (answers("200 OK"), "events would be lost"),
        (answers("301 Moved", Location="https://x.test/"), "a redirect to https://x.test/"),
        (answers("404 Not Found", Server="nginx"), "404 by "),
        (answers("502 Bad Gateway"), "does not reach the relay"),
        (answers("401 Unauthorized"), "credentials of its own"),
        (answers("403 Forbidden"), "a firewall"),
        (answers("418 I'm a teapot"), "what does its log say?"),
    ],
)
def test_a_front_that_answers_by_itself(
    site: Site, front: Callable[[App], App], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing comes.
    monkeypatch.setattr(public_url, "NOTED_WITHIN", 0.0)
    site.serve(front)

    found = site.looked()

    for path in WELL:
        verdict, words = found[path]
        assert verdict == "broken"
        assert said in words
        assert f"let the proxy pass POST {path} to 127.0.0.1:8080" in words


def test_a_front_that_changes_what_it_passes(site: Site, database: Database) -> None:
    def shorten(environ: dict[str, Any]) -> None:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).replace(b"  ", b" ")
        body = body.replace(b"<b>", b"").replace(b"%3Cb%3E", b"")
        environ.update({"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})

    site.serve(lambda relay: passing(relay, shorten))

    found = site.looked()

    for path in WELL:
        assert found[path][0] == "broken", found
        assert "the body was changed on its way" in found[path][1]
    assert list(Queries(database).events()) == []


def test_a_front_that_changes_the_path_or_drops_a_header(site: Site) -> None:
    def change(environ: dict[str, Any]) -> None:
        if environ["PATH_INFO"] == "/signed":
            environ["PATH_INFO"] = "/hooks/signed"
        environ.pop("HTTP_AUTHORIZATION", None)

    site.serve(lambda relay: passing(relay, change))

    found = site.looked()

    assert "the proxy made /hooks/signed of the path" in found["/signed"][1]
    assert "no Basic authentication" in found["/form"][1]
    assert found["/open"][0] == "good"


def test_an_endpoint_that_is_not_for_this_machine(site: Site) -> None:
    site.serve(changes={"path: /open, ": "path: /open, allow_from: [192.0.2.0/24], "})

    verdict, said = site.looked()["/open"]

    assert verdict == "notice"
    assert "allow_from does not list the address of this machine" in said


def test_another_secret_in_front(site: Site, queries: Queries) -> None:
    site.serve()
    site.write(site.public, new="newer")

    verdict, said = site.looked()["/signed"]

    assert verdict == "broken"
    assert "matches none of 2 secrets" in said
    assert "reload takes it" in said
    # A person's word makes no event of it either.
    (refused,) = [each for each in queries.requests() if each.outcome == "refused"]
    admitted = CliRunner().invoke(
        cli,
        ["requests", "admit", "--unverified", refused.id, "--why", "x", "--yes",
         "--config", str(site.folder / "config.yaml")],
    )  # fmt: skip
    assert "it is a probe, and has no effect" in admitted.output
    assert list(queries.events()) == []


def test_a_probe_is_taken_once_and_never_as_an_event(site: Site, database: Database) -> None:
    kept: list[tuple[dict[str, Any], bytes]] = []

    def keep(environ: dict[str, Any]) -> None:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        kept.append((dict(environ), body))
        environ["wsgi.input"] = io.BytesIO(body)

    site.serve(lambda relay: passing(relay, keep))
    assert {verdict for verdict, _ in site.looked().values()} == {"good", "notice"}

    seen: list[str] = []
    for environ, body in kept:
        for name in ("", "HTTP_X_GOFAX_SIGNATURE"):
            again = {key: value for key, value in environ.items() if key != name}
            again["wsgi.input"] = io.BytesIO(body)
            list(site.app(again, lambda status, *_: seen.append(status)))

    assert {each[:3] for each in seen} == {"401"}
    assert list(Queries(database).events()) == []
    queries = Queries(database)
    eventually(lambda: len(list(queries.requests())) == len(WELL) + len(seen))
    reasons = {each.reason for each in queries.requests() if each.outcome == "refused"}
    assert reasons == {
        "a probe that was here before",
        "no X-GoFax-Signature header",
        "a probe that is not signed with this store's secret",
    }


def test_without_an_address_the_doctor_says_how_to_name_it(site: Site) -> None:
    site.write("https://x.test")
    path = site.folder / "config.yaml"
    path.write_text(path.read_text().replace("public_url: https://x.test\n", ""))

    done = site.doctor()

    assert done.exit_code == 1
    assert "public_url: https://sms.example.com" in done.output
