"""The relay serves https by itself: the files are checked, renewed, and nobody is refused."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest
import trustme
from click.testing import CliRunner, Result
from fakes import eventually
from site_of_nodes import PATIENCE, Site
from stream import Stream

from relay.cli import cli
from relay.config import certificates
from relay.config.certificates import Unfit
from relay.config.model import Tls
from relay.processes.renewal import LOOK, Renewal
from relay.rules import problems
from relay.rules.kinds import Kind
from relay.store import Database
from relay.store.seen import SERVED, Seen
from relay.telling.watch import facts_of

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")


#: Writes a new certificate and its key, and returns its serial number.
Issue = Callable[..., str]


@pytest.fixture
def issue(ca: trustme.CA, tls: Tls) -> Issue:
    def issue(*, days: float = 60, by: trustme.CA = ca) -> str:
        ends_at = NOW + timedelta(days=days)
        made = by.issue_cert("127.0.0.1", "localhost", not_after=ends_at)
        chain = b"".join(each.bytes() for each in made.cert_chain_pems)
        # As programs do that renew: whole files take the place of the old ones, one by one.
        for file, content in ((tls.cert, chain), (tls.key, made.private_key_pem.bytes())):
            new = file.with_suffix(".new")
            new.write_bytes(content)
            new.replace(file)
        der = ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())
        return der.hex()

    return issue


def test_what_is_read_stays_when_the_files_go(issue: Issue, tls: Tls) -> None:
    issue(days=60)

    identity = certificates.read(tls, now=NOW)
    kept = tls.key.read_bytes()
    tls.cert.unlink()
    tls.key.unlink()

    assert Path(identity.key).read_bytes() == kept
    assert set(identity.shown.names) == {"127.0.0.1", "localhost"}
    assert abs(identity.shown.ends_at - NOW - timedelta(days=60)) < timedelta(minutes=1)
    identity.close()


@pytest.fixture
def check(tmp_path: Path) -> Callable[[], Result]:
    """Check a config with a certificate, as `serve` and `reload` do, too."""
    (tmp_path / "config.yaml").write_text(
        "endpoints: [{path: /open, allow_unsigned: true}]\n"
        "tls:\n  cert: cert.pem\n  key: key.pem\n"
    )
    given = ["check", "--config", str(tmp_path / "config.yaml")]
    return lambda: CliRunner().invoke(cli, given)


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def no_cert(tls: Tls) -> None:
    tls.cert.unlink()


def no_key(tls: Tls) -> None:
    tls.key.unlink()


def no_pem(tls: Tls) -> None:
    tls.cert.write_text("cert")


def damaged(tls: Tls) -> None:
    tls.cert.write_text(tls.cert.read_text().replace("M", "A"))


def no_pem_key(tls: Tls) -> None:
    tls.key.write_text("-----BEGIN PRIVATE KEY-----")


def other_key(tls: Tls) -> None:
    tls.key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())


def chain_first(tls: Tls) -> None:
    tls.cert.write_bytes(trustme.CA().cert_pem.bytes() + tls.cert.read_bytes())


@pytest.mark.parametrize(
    ("spoil", "line", "said"),
    [
        (no_cert, 3, "cert.pem: No such file"),
        (no_key, 4, "key.pem: No such file"),
        (no_pem, 3, "no certificate in PEM form"),
        (damaged, 3, "a damaged certificate"),
        (no_pem_key, 4, "no private key in PEM form that can be read without passphrase"),
        (other_key, 4, "does not fit the first certificate"),
        (chain_first, 4, "does not fit the first certificate"),
    ],
)
def test_files_that_cannot_be_served_are_faults_with_their_lines(
    spoil: Callable[[Tls], None],
    line: int,
    said: str,
    issue: Issue,
    tls: Tls,
    check: Callable[[], Result],
) -> None:
    issue()
    spoil(tls)
    before = descriptors()

    ended = check()

    assert ended.exit_code == 2
    assert f"config.yaml:{line}: tls." in ended.stderr
    assert said in ended.stderr
    assert descriptors() == before


def test_a_certificate_that_is_over_is_a_fault(
    issue: Issue, check: Callable[[], Result], tls: Tls
) -> None:
    issue(days=-1)

    assert "config.yaml:3: tls.cert: " in check().stderr
    with pytest.raises(Unfit, match="expired at .* UTC: renew it"):
        certificates.read(tls, now=NOW)


def test_a_key_for_all_to_read_is_warned_of(
    issue: Issue, check: Callable[[], Result], tls: Tls
) -> None:
    issue()
    tls.key.chmod(0o640)
    quiet = check()
    tls.key.chmod(0o644)
    loud = check()

    assert f"with TLS, and shows {tls.cert}" in quiet.stdout
    assert "warning" not in quiet.stdout
    assert f"config.yaml:4: tls.key: every user of this machine can read {tls.key}" in loud.stdout


def test_renewed_files_are_noticed_when_they_are_at_rest(issue: Issue, tls: Tls) -> None:
    now = 0.0
    renewal = Renewal(lambda: now)

    def look() -> bool:
        nonlocal now
        now += LOOK
        return renewal.is_due(tls)

    issue()
    identity = renewal.identity(tls)
    assert identity is not None
    identity.close()
    assert [look(), look()] == [False, False]
    issue()
    assert [look(), look()] == [False, True]
    issue()
    tls.key.unlink()
    assert [look(), look()] == [False, True]
    with pytest.raises(Unfit):
        renewal.identity(tls)
    assert [look(), look()] == [False, False]
    renewal.try_again()
    assert look() is False
    now += 60
    assert look() is True


def test_the_end_of_what_is_served_is_a_problem_on_every_node(
    database: Database, read: Callable[..., object]
) -> None:
    config = read("endpoints: [{path: /a, allow_unsigned: true}]")
    now = database.clock()
    later = Seen(database, clock=lambda: now + SERVED)
    Seen(database).note_served("old.pem on web-0", ends_at=now)
    later.note_served("a.pem on web-1", ends_at=now + timedelta(days=13))
    later.note_served("b.pem on web-2", ends_at=now + timedelta(days=60))
    later.note_served("c.pem on web-3", ends_at=now + timedelta(days=2))

    def found(at: datetime) -> dict[str, str]:
        facts = facts_of(config, database)  # type: ignore[arg-type]
        return {
            each.subject: each.level
            for each in problems.findings(facts, now=at)
            if each.kind is Kind.CERTIFICATE
        }

    assert found(now) == {"a.pem on web-1": "warning", "c.pem on web-3": "error"} | (
        {"old.pem on web-0": "error"} if database.clock() - now <= SERVED else {}
    )


@pytest.fixture
def site(tmp_path: Path, ca: trustme.CA, issue: Issue) -> Iterator[Site]:
    made = Site(tmp_path, store="sqlite:///relay.db")
    made.ca = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(made.ca))
    config = tmp_path / "config.yaml"
    text = config.read_text().replace(
        "admin: off", "admin: off\ntls: {cert: cert.pem, key: key.pem}"
    )
    config.write_text(f"{text}public_url: https://localhost:{made.port}\n")
    yield made
    made.close()


def shown_at(port: int) -> str:
    """Return the certificate that a receiver shows now."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE)
    return ssl.PEM_cert_to_DER_cert(pem).hex()


def passed_to(site: Site, listening: socket.socket) -> subprocess.Popen[bytes]:
    """Serve at a socket that is given to the process as systemd does."""
    script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -P -m relay.cli serve'
    with (site.folder / "serve.log").open("wb") as log:
        return subprocess.Popen(
            ["bash", "-c", f"{script} 3<&{listening.fileno()}", site.python],
            cwd=site.folder, stderr=log, pass_fds=[listening.fileno()],
        )  # fmt: skip


@pytest.mark.slow
def test_renewals_refuse_nobody_and_a_broken_one_changes_nothing(
    site: Site, issue: Issue, tls: Tls, ca: trustme.CA
) -> None:
    first = issue()
    trust = ssl.create_default_context(cafile=str(site.ca))
    listening = socket.create_server(("127.0.0.1", site.port))
    process = passed_to(site, listening)
    try:
        eventually(lambda: site.answers() or process.poll() is not None, seconds=PATIENCE)
        assert process.poll() is None, site.said()
        assert shown_at(site.port) == first
        _, worker = psutil.Process(process.pid).children()

        held = psutil.Process(process.pid).num_fds()

        with ExitStack() as strangers, Stream(site.port, per_second=100, trust=trust) as stream:
            for number in range(600):
                # Half of them say nothing at all, the others no more than who they are.
                plain = socket.create_connection(("127.0.0.1", site.port))
                strangers.enter_context(
                    trust.wrap_socket(plain, server_hostname="127.0.0.1") if number % 2 else plain
                )
            eventually(lambda: len(stream.answers) > 50, seconds=PATIENCE)
            for number in (1, 2):
                renewed = issue()
                eventually(partial(renewals, site, number), seconds=PATIENCE)
                eventually(partial(shows, site, renewed), seconds=PATIENCE)
        eventually(lambda: site.said().count('"tls.served"') == 3, seconds=PATIENCE)
        assert site.said().count('"web.started"') == 1
        assert set(stream.kinds) == {"accepted"}
        assert stream.slowest < 5
        assert worker.is_running()
        eventually(lambda: psutil.Process(process.pid).num_fds() == held, seconds=PATIENCE)

        tls.key.write_text("half a key")
        eventually(lambda: "tls.not_renewed" in site.said(), seconds=PATIENCE)
        assert "key.pem has no private key" in site.said()
        # What starts now gets what was good, not what is there.
        for each in psutil.Process(process.pid).children(recursive=True):
            if each != worker:
                each.kill()
        reload = site.run("reload")
        eventually(site.answers, seconds=PATIENCE)
        assert shown_at(site.port) == renewed
        assert reload.returncode == 1
        assert "tls.key: " in reload.stderr
        assert spoken(site.port) == {"TLSv1.3": "http/1.1", "TLSv1.2": "http/1.1", "TLSv1.1": ""}
        looked = site.run("doctor", "--public-url", SSL_CERT_FILE=str(site.ca))
        assert "a certificate by trustme " in looked.stdout
        assert "/open: the probe came here, and was answered 200" in looked.stdout
    finally:
        listening.close()
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def renewals(site: Site, number: int) -> bool:
    return site.said().count('"tls.renewed"') == number


def shows(site: Site, certificate: str) -> bool:
    return shown_at(site.port) == certificate


def spoken(port: int) -> dict[str, str]:
    """Return by version of TLS the protocol that is spoken, if h2 is offered, too."""
    found = {}
    for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_1):
        caller = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        caller.check_hostname, caller.verify_mode = False, ssl.CERT_NONE
        caller.set_ciphers("DEFAULT:@SECLEVEL=0")
        caller.set_alpn_protocols(["h2", "http/1.1"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            caller.minimum_version = caller.maximum_version = version
        with socket.create_connection(("127.0.0.1", port)) as connection:
            try:
                with caller.wrap_socket(connection) as encrypted:
                    said = encrypted.selected_alpn_protocol() or "http/1.1"
            except (ssl.SSLError, ConnectionError):
                said = ""
        found[version.name.replace("_", ".")] = said
    return found
