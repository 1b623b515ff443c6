from __future__ import annotations

import json
import re
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from receivers import SECRETS, Endpoint, serving

from sender import SenderError
from sender.attempt import Target
from sender.cli import main
from sender.scenarios import SCENARIOS, Outcome, Setting
from sender.scenarios.run import confirm, run
from sender.witness import Records

Invoke = Callable[..., Result]
NAMES = [each.name for each in SCENARIOS]


def _setting(endpoint: Endpoint, **changes: Any) -> Setting:
    target = Target(url=endpoint.url, secret=SECRETS[0], timeout=20)
    given = {"previous_secret": SECRETS[1], "burst": 8, "dribble": 0.4}
    return Setting(target=target, **given | changes)


def _outcomes(
    endpoint: Endpoint, *, names: Sequence[str] = NAMES, **changes: Any
) -> list[Outcome]:
    chosen = [each for each in SCENARIOS if each.name in names]
    with serving(endpoint):
        outcomes = run(chosen, _setting(endpoint, **changes))
        return confirm(outcomes, records=Records(endpoint.records), patience=10)


def _named(outcomes: Sequence[Outcome], verdict: str) -> set[str]:
    return {each.scenario.name for each in outcomes if each.verdict == verdict}


@contextmanager
def _cli(endpoint: Endpoint) -> Iterator[Invoke]:
    with serving(endpoint):
        base = ["scenario", "run", "--url", endpoint.url, "--secret", SECRETS[0]]
        yield lambda *arguments: CliRunner().invoke(main, [*base, *map(str, arguments)])


def test_a_right_receiver_passes_every_scenario() -> None:
    outcomes = _outcomes(Endpoint())

    assert _named(outcomes, "failed") == set(), [each.faults for each in outcomes]
    # The rest of its story is told over TLS.
    assert _named(outcomes, "skipped") == {"certificate"}


def test_who_checks_no_signature_is_found_out() -> None:
    outcomes = _outcomes(Endpoint(checks_signatures=False))

    assert _named(outcomes, "failed") == {
        "signature-bad",
        "signature-missing",
        "signature-truncated",
        "signature-foreign",
        "body-reserialised",
    }


def test_who_knows_no_duplicates_is_found_out() -> None:
    outcomes = _outcomes(Endpoint(knows_duplicates=False))

    assert _named(outcomes, "failed") == {
        "duplicate",
        "duplicate-at-once",
        "duplicate-days-later",
        "cut-before-the-answer",
        "resend-after-5xx",
    }
    faults = {each.scenario.name: each.faults for each in outcomes}
    assert "3 in inbox" in faults["duplicate"][0].saw
    assert "8 in inbox" in faults["duplicate-at-once"][0].saw


def test_who_works_before_answering_is_found_out() -> None:
    outcomes = _outcomes(Endpoint(works_first=0.12), prompt=0.1)

    assert _named(outcomes, "failed") == {"prompt", "burst", "slow-client"}


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_receiver_that_takes_nothing_is_found_out(
    receiver: Any, secret: str, status: int
) -> None:
    receiver.status = status
    setting = Setting(target=Target(url=receiver.url, secret=secret))
    chosen = [each for each in SCENARIOS if each.name in ("duplicate", "late", "prompt")]

    outcomes = run(chosen, setting)

    assert _named(outcomes, "failed") == {"duplicate", "late", "prompt"}


def test_without_a_secret_or_a_previous_one_scenarios_are_skipped_with_the_reason() -> None:
    endpoint = Endpoint(checks_signatures=False)
    chosen = [each for each in SCENARIOS if each.name.startswith(("signature", "secret"))]
    with serving(endpoint):
        outcomes = run(chosen, Setting(target=Target(url=endpoint.url)))

    assert {each.skipped for each in outcomes} == {
        "needs the signing secret of the receiver: --secret S",
        "needs a second secret that the receiver takes: --previous-secret S",
    }


def test_a_wrong_secret_fails_all_and_nobody_waits_for_effects() -> None:
    endpoint = Endpoint()
    started = time.monotonic()
    with serving(endpoint):
        setting = Setting(target=Target(url=endpoint.url, secret="not theirs"))
        chosen = [each for each in SCENARIOS if each.name in ("duplicate", "late", "prompt")]
        outcomes = run(chosen, setting)
        outcomes = confirm(outcomes, records=Records(endpoint.records), patience=60)

    assert _named(outcomes, "failed") == {"duplicate", "late", "prompt"}
    assert time.monotonic() - started < 30


def test_nobody_there_is_an_error_and_not_a_score(unreachable_url: str) -> None:
    with pytest.raises(SenderError, match="connection refused"):
        run(SCENARIOS, Setting(target=Target(url=unreachable_url)))


def test_names_are_unique_and_all_says_what_is_right_and_why() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for each in SCENARIOS:
        assert re.fullmatch(r"[a-z0-9-]+", each.name)
        assert each.title and each.right and each.why


def test_what_the_issue_asks_for_is_there() -> None:
    assert set(NAMES) >= {
        *("duplicate", "duplicate-at-once", "duplicate-days-later", "reorder", "late"),
        *("clock-skew", "signature-bad", "signature-missing", "signature-truncated"),
        *("signature-foreign", "secret-rotated", "body-reserialised", "unknown-fields"),
        *("unknown-event", "missing-body", "huge", "deep", "bad-utf-8", "gzip", "chunked"),
        *("slow-client", "burst", "cut-before-the-answer", "resend-after-5xx", "certificate"),
    }


def test_the_list_shows_each_with_its_reason() -> None:
    text = CliRunner().invoke(main, ["scenario", "list"]).stdout
    lines = CliRunner().invoke(main, ["scenario", "list", "--json"]).stdout.splitlines()

    assert [json.loads(each)["name"] for each in lines] == NAMES
    for each in SCENARIOS:
        assert each.name in text
        assert each.why in text


def test_a_failure_exits_1_and_says_what_was_wanted_seen_right_and_why() -> None:
    endpoint = Endpoint(knows_duplicates=False)
    with _cli(endpoint) as invoke:
        done = invoke("duplicate", "late", "--records", endpoint.records)

    assert done.exit_code == 1
    assert "✗ duplicate" in done.stdout
    assert "✓ late" in done.stdout
    assert "wanted  effects, by records: each once" in done.stdout
    assert "3 in inbox" in done.stdout
    assert "GoFax's Resend delivers an event again" in done.stdout
    assert done.stdout.endswith("1 passed, 1 failed\n")


def test_a_pass_exits_0_and_says_that_effects_were_not_looked_at() -> None:
    with _cli(Endpoint()) as invoke:
        done = invoke("duplicate")

    assert done.exit_code == 0
    assert "effects were not looked at" in done.stderr


def test_nothing_but_skipped_is_no_pass() -> None:
    with _cli(Endpoint()) as invoke:
        done = invoke("certificate")

    assert done.exit_code == 1
    assert "1 skipped" in done.stdout


def test_the_reports_say_the_same_as_the_terminal(tmp_path: Path) -> None:
    junit, page = tmp_path / "s.xml", tmp_path / "s.html"
    with _cli(Endpoint(checks_signatures=False)) as invoke:
        chosen = ("late", "signature-missing", "certificate")
        done = invoke(*chosen, "--junit", junit, "--html", page, "--json")

    outcomes = [json.loads(each) for each in done.stdout.splitlines()]
    assert [each["verdict"] for each in outcomes] == ["passed", "failed", "skipped"]
    suite = ElementTree.parse(junit).getroot()[0]
    counts = {name: suite.get(name) for name in ("tests", "failures", "skipped", "errors")}
    assert counts == {"tests": "3", "failures": "1", "skipped": "1", "errors": "0"}
    assert [case.get("name") for case in suite] == [*chosen]
    assert suite[1].find("failure") is not None
    html = page.read_text()
    assert "1 passed, 1 failed, 1 skipped" in html
    assert html.count("<details open>") == 1
    assert SECRETS[0] not in html + junit.read_text() + done.output


class _Babble(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.connection.recv(65536)
        self.wfile.write(b"<script>\x00\x1b[2J</script>\r\n\r\n")


def test_a_report_holds_whatever_a_receiver_answers(tmp_path: Path) -> None:
    junit, page = tmp_path / "s.xml", tmp_path / "s.html"
    with socketserver.TCPServer(("127.0.0.1", 0), _Babble) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        options = ["--url", url, "--junit", str(junit), "--html", str(page)]
        done = CliRunner().invoke(main, ["scenario", "run", "late", *options])
        server.shutdown()
        thread.join()

    assert done.exit_code == 1
    assert "\x1b" not in done.stdout
    ElementTree.parse(junit)
    assert "<script>" not in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--url", "http://127.0.0.1:9/"], "name one or more scenarios, or give --all"),
        (["run", "late", "--all", "--url", "http://127.0.0.1:9/"], "name one or more"),
        (["run", "never", "--url", "http://127.0.0.1:9/"], 'no scenario "never" (have: duplicate'),
        (["run", "late"], "or --profile NAME"),
        (["run", "late", "--profile", "nobody"], 'no webhook profile "nobody"'),
        (["run", "late", "--url", "http://127.0.0.1:9/", "--relay-config", "none"], "not exist"),
    ],
)
def test_bad_use_exits_2_and_says_what_to_do(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, ["scenario", *arguments])

    assert done.exit_code == 2
    assert said in done.stderr


def test_a_witness_that_knows_nothing_is_named_before_anything_is_sent(
    unreachable_url: str,
) -> None:
    endpoint = Endpoint()
    with _cli(endpoint) as invoke:
        done = invoke("late", "--records", f"{unreachable_url}records")

    assert done.exit_code == 1
    assert "no records" in done.stderr
    assert endpoint.effects == []


def test_a_profile_can_be_the_receiver() -> None:
    with serving(Endpoint()) as endpoint:
        arguments = ["webhooks", "add", "desk", "--url", endpoint.url, "--secret", SECRETS[0]]
        CliRunner().invoke(main, arguments)

        done = CliRunner().invoke(main, ["scenario", "run", "late", "--profile", "desk"])

    assert done.exit_code == 0, done.output
