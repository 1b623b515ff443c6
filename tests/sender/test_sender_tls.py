"""Certificates: whom the sender refuses, and what it says about it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner, Result
from receivers import SECRETS, Endpoint, serving

from sender import Event, SenderError, deliver
from sender.attempt import Target
from sender.cli import main
from sender.scenarios import SCENARIOS, Setting
from sender.scenarios.run import run
from sender.trust import Trust

Serve = Callable[[str], Endpoint]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def serve(ca: trustme.CA) -> Iterator[Serve]:
    """Start a receiver with a certificate that is good, or wrong in one way."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    make: dict[str, Callable[[], trustme.LeafCert]] = {
        "good": lambda: ca.issue_cert("localhost"),
        "expired": lambda: ca.issue_cert("localhost", not_after=yesterday),
        "foreign": lambda: trustme.CA().issue_cert("localhost"),
        "misnamed": lambda: ca.issue_cert("elsewhere.test"),
    }
    with ExitStack() as stack:

        def serve(kind: str) -> Endpoint:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            make[kind]().configure_cert(context)
            return stack.enter_context(serving(Endpoint(), tls=context))

        yield serve


def _send(endpoint: Endpoint, *options: object) -> Result:
    base = ["send", "--url", endpoint.url, "--secret", SECRETS[0]]
    return CliRunner().invoke(main, [*base, *map(str, options)])


WRONG = {
    "expired": "certificate has expired",
    "foreign": "unable to get local issuer certificate",
    "misnamed": "Hostname mismatch",
}


def test_a_certificate_of_a_known_ca_is_accepted(serve: Serve, ca_file: Path) -> None:
    endpoint = serve("good")

    answer = deliver(endpoint.url, Event(), secret=SECRETS[0], trust=Trust(ca=ca_file))

    assert answer.status == 200
    assert len(endpoint.effects) == 1


@pytest.mark.parametrize(("kind", "reason"), WRONG.items())
def test_a_bad_certificate_is_refused_and_nothing_is_sent(
    serve: Serve, ca_file: Path, kind: str, reason: str
) -> None:
    endpoint = serve(kind)

    with pytest.raises(SenderError, match=f"certificate not accepted .*{reason}"):
        deliver(endpoint.url, Event(), secret=SECRETS[0], trust=Trust(ca=ca_file))

    assert endpoint.effects == []


def test_a_private_ca_is_unknown_unless_it_is_named(serve: Serve, ca_file: Path) -> None:
    endpoint = serve("good")

    assert _send(endpoint).exit_code == 1
    assert _send(endpoint, "--ca", ca_file).exit_code == 0


@pytest.mark.parametrize("kind", WRONG)
def test_insecure_accepts_any(serve: Serve, kind: str) -> None:
    endpoint = serve(kind)

    refused, sent = _send(endpoint), _send(endpoint, "--insecure")

    assert (refused.exit_code, sent.exit_code) == (1, 0)
    assert "certificate not accepted" in refused.stderr
    assert sent.stderr == ""
    assert len(endpoint.effects) == 1


@pytest.mark.parametrize("kind", ["good", *WRONG])
def test_the_scenario_shows_what_gofax_would_think(serve: Serve, ca_file: Path, kind: str) -> None:
    target = Target(url=serve(kind).url, secret=SECRETS[0], trust=Trust(ca=ca_file))
    chosen = [each for each in SCENARIOS if each.name in ("certificate", "late")]

    late, certificate = run(chosen, Setting(target=target))

    if kind == "good":
        assert (late.verdict, certificate.verdict) == ("passed", "passed")
        assert "TLSv1.3, valid until " in certificate.checks[0].saw
    else:
        assert (late.verdict, certificate.verdict) == ("skipped", "failed")
        assert WRONG[kind] in certificate.faults[0].saw
        assert "certificate not accepted" in (late.skipped or "")


def test_with_insecure_the_scenarios_are_played_and_the_certificate_still_fails(
    serve: Serve,
) -> None:
    target = Target(url=serve("foreign").url, secret=SECRETS[0], trust=Trust(insecure=True))
    named = {"certificate", "late", "chunked"}
    outcomes = run([each for each in SCENARIOS if each.name in named], Setting(target=target))

    assert {each.scenario.name: each.verdict for each in outcomes} == {
        "late": "passed",
        "chunked": "passed",
        "certificate": "failed",
    }


def test_a_file_that_holds_no_certificate_exits_2(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")
    arguments = ["send", "--url", "https://localhost:1/", "--secret", "x", "--ca", str(path)]

    done = CliRunner().invoke(main, arguments)

    assert done.exit_code == 2
    assert "no usable CA certificates" in done.stderr


def test_ca_and_insecure_exclude_each_other(ca_file: Path) -> None:
    arguments = ["test", "--url", "https://localhost:1/", "--ca", str(ca_file), "--insecure"]

    done = CliRunner().invoke(main, arguments)

    assert done.exit_code == 2
    assert "exclude each other" in done.stderr
