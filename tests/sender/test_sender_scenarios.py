from __future__ import annotations

import json
import os
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from receivers import SECRETS, Endpoint, serving

from sender import SenderError
from sender.attempt import Target
from sender.cli import main
from sender.faults import Faults
from sender.scenarios import NAMES, SCENARIOS, Outcome, Setting
from sender.scenarios.run import confirm, run
from sender.witness import Records, Relay

Invoke = Callable[..., Result]

#: Receivers that are wrong in one way each, and the scenarios that find it.
WRONG: dict[str, tuple[dict[str, Any], set[str]]] = {
    "checks no signature": (
        {"checks_signatures": False},
        {
            *("signature-bad", "signature-missing", "signature-truncated", "signature-foreign"),
            "body-reserialised",
        },
    ),
    "signs what it has parsed": ({"signs_parsed": True}, {"body-reserialised"}),
    "accepts one secret only": ({"secrets": SECRETS[:1]}, {"secret-rotated"}),
    "recognises no duplicates": (
        {"knows_duplicates": False},
        {
            *("duplicate", "duplicate-at-once", "duplicate-days-later"),
            *("cut-before-the-answer", "resend-after-5xx"),
        },
    ),
    "remembers half an event": ({"remembers_halves": True}, {"cut-in-the-body"}),
    "refuses times that are off": (
        {"max_age": timedelta(seconds=50)},
        {"late", "clock-skew", "reorder", "duplicate-days-later"},
    ),
    "fails at what it does not know": (
        {"is_strict": True},
        {
            *("unknown-fields", "unknown-event", "missing-body", "odd-values", "huge", "deep"),
            *("bad-utf-8", "not-an-event", "gzip", "duplicate-days-later"),
        },
    ),
    "drops chunked bodies": ({"drops_chunked": True}, {"chunked"}),
    "handles one request at a time": ({"one_at_a_time": True}, {"slow-client"}),
    "works before it answers": ({"works_first": 0.12}, {"prompt", "burst", "slow-client"}),
}


def _setting(endpoint: Endpoint, **changes: Any) -> Setting:
    target = Target(url=endpoint.url, secret=SECRETS[0], timeout=20)
    given = {
        "previous_secret": SECRETS[1],
        "burst": 8,
        "prompt": 1.0,
        "faults": Faults(endpoint.records),
    }
    return Setting(target=target, **given | changes)


def _outcomes(
    endpoint: Endpoint, *, names: Sequence[str] = NAMES, **changes: Any
) -> list[Outcome]:
    chosen = [each for each in SCENARIOS if each.name in names]
    with serving(endpoint):
        outcomes = run(chosen, _setting(endpoint, **changes))
        return confirm(outcomes, records=Records(endpoint.records), patience=2)


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
    # test_sender_tls.py plays it.
    assert _named(outcomes, "skipped") == {"certificate"}
    assert [each.warnings for each in outcomes] == [[]] * len(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_receiver_fails_what_it_is_wrong_in_and_nothing_else(fault: str) -> None:
    how, expected = WRONG[fault]

    outcomes = _outcomes(Endpoint(**how), prompt=0.1 if "works_first" in how else 1.0)

    assert _named(outcomes, "failed") == expected


def test_every_scenario_can_fail() -> None:
    found = {name for _, names in WRONG.values() for name in names}

    # test_sender_tls.py has servers with bad certificates.
    assert found == set(NAMES) - {"certificate"}


def test_what_took_effect_too_often_is_said() -> None:
    outcomes = _outcomes(
        Endpoint(knows_duplicates=False), names=("duplicate", "duplicate-at-once")
    )

    first, second = (each.faults[0].saw for each in outcomes)
    assert "3 in inbox" in first
    assert "8 in inbox" in second


class TestResendAfter5xx:
    """It makes the receiver fail, or it is skipped: it is never green for nothing."""

    NAME = ("resend-after-5xx",)

    @pytest.mark.parametrize(
        ("endpoint", "changes", "said"),
        [
            (Endpoint(), {"faults": None}, "needs a receiver that fails on request"),
            (Endpoint(offers_faults=False), {}, "needs a receiver that fails on request"),
            (Endpoint(obeys_faults=False), {}, "nothing failed"),
        ],
        ids=["no URL", "no such page", "no effect"],
    )
    def test_it_is_skipped_where_nothing_fails(
        self, endpoint: Endpoint, changes: dict[str, Any], said: str
    ) -> None:
        (outcome,) = _outcomes(endpoint, names=self.NAME, **changes)

        assert outcome.skipped is not None
        assert said in outcome.skipped

    def test_no_fault_is_left_behind(self) -> None:
        endpoint = Endpoint(obeys_faults=False)

        _outcomes(endpoint, names=self.NAME)

        assert endpoint.faults == []


def test_400_for_a_bad_signature_is_one_warning_and_no_failure() -> None:
    endpoint = Endpoint(bad_signature=400)
    names = [each for each in NAMES if each.startswith("signature")]
    with _cli(endpoint) as invoke:
        done = invoke(*names)
        rows = [json.loads(each) for each in invoke(*names, "--json").stdout.splitlines()]

    assert done.exit_code == 0
    assert done.stdout.count("400 says that a request is unreadable") == 1
    assert f"warning  {', '.join(names)}: 400" in done.stdout
    assert {check["warning"][:3] for row in rows for check in row["checks"]} == {"400"}


def test_a_receiver_that_takes_nothing_fails(receiver: Any, secret: str) -> None:
    setting = Setting(target=Target(url=receiver.url, secret=secret))
    chosen = [each for each in SCENARIOS if each.name in ("duplicate", "late", "prompt")]
    for receiver.status in (500, 404, 302):
        outcomes = list(run(chosen, setting))

        assert _named(outcomes, "failed") == {"duplicate", "late", "prompt"}


def test_without_a_secret_or_a_previous_one_scenarios_are_skipped_with_the_reason() -> None:
    endpoint = Endpoint(checks_signatures=False)
    chosen = [each for each in SCENARIOS if each.name.startswith(("signature", "secret"))]
    with serving(endpoint):
        outcomes = list(run(chosen, Setting(target=Target(url=endpoint.url))))

    assert {each.skipped for each in outcomes} == {
        "needs the signing secret of the receiver: --secret S",
        "needs a second secret that the receiver accepts: --previous-secret S",
    }


def test_a_wrong_secret_fails_all_and_nobody_waits_for_effects() -> None:
    endpoint = Endpoint()
    started = time.monotonic()
    with serving(endpoint):
        setting = Setting(target=Target(url=endpoint.url, secret="not theirs"))
        chosen = [each for each in SCENARIOS if each.name in ("duplicate", "late", "prompt")]
        outcomes = confirm(run(chosen, setting), records=Records(endpoint.records), patience=60)

    assert _named(outcomes, "failed") == {"duplicate", "late", "prompt"}
    assert time.monotonic() - started < 30


def test_nobody_there_is_an_error_and_not_a_score(unreachable_url: str) -> None:
    with pytest.raises(SenderError, match="connection refused"):
        list(run(SCENARIOS, Setting(target=Target(url=unreachable_url))))


def test_names_are_unique_and_each_scenario_says_what_is_right_and_why() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 29
    for each in SCENARIOS:
        assert re.fullmatch(r"[a-z0-9-]+", each.name)
        assert each.title and each.right and each.why


def test_the_list_shows_each_with_its_reason() -> None:
    text = CliRunner().invoke(main, ["scenario", "list"]).stdout
    lines = CliRunner().invoke(main, ["scenario", "list", "--json"]).stdout.splitlines()

    assert [json.loads(each)["name"] for each in lines] == [*NAMES]
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
    assert done.stdout.endswith("✓ 1 passed, ✗ 1 failed\n")


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
    assert "✓ 1 passed, ✗ 1 failed, · 1 skipped" in html
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


UNUSABLE = [
    (["run", "--url", "http://127.0.0.1:9/"], "name one or more scenarios, or give --all"),
    (["run", "late", "--all", "--url", "http://127.0.0.1:9/"], "name one or more"),
    (["run", "never", "--url", "http://127.0.0.1:9/"], 'no scenario "never" (have: duplicate'),
    (["run", "late"], "or --profile NAME"),
    (["run", "late", "--profile", "nobody"], 'no webhook profile "nobody"'),
    (["run", "late", "--url", "http://127.0.0.1:9/", "--relay-config", "none"], "not exist"),
]


def test_bad_use_exits_2_and_says_what_to_do() -> None:
    for arguments, said in UNUSABLE:
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


class TestWhileItRuns:
    COMMAND = (sys.executable, "-m", "sender", "scenario", "run", "--secret", SECRETS[0])

    def test_an_outcome_is_printed_as_it_ends_and_ctrl_c_keeps_what_is_known(
        self, tmp_path: Path
    ) -> None:
        junit, page = tmp_path / "s.xml", tmp_path / "s.html"
        endpoint = _Stalls()
        with serving(endpoint):
            process = subprocess.Popen(
                [*self.COMMAND, "late", "prompt", "--junit", junit, "--html", page]
                + ["--url", endpoint.url, "--records", endpoint.records, "--timeout", "60"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            first = process.stdout.readline()
            assert endpoint.stalled.wait(30)
            process.send_signal(signal.SIGINT)
            rest, said = process.communicate(timeout=30)
            endpoint.go_on.set()

        assert first.startswith("✓ late")
        assert rest == "✓ 1 passed\n"
        assert process.returncode == 1
        assert said == "interrupted: 1 of 2 scenarios ended, effects were not looked at\n"
        assert ElementTree.parse(junit).getroot()[0].get("tests") == "1"
        assert "✓ 1 passed" in page.read_text()

    def test_no_line_runs_into_the_progress_bar_or_past_the_edge(
        self, run_in_terminal: Callable[..., str]
    ) -> None:
        with serving(Endpoint()) as endpoint:
            target = ("--url", endpoint.url, "--secret", SECRETS[0])
            names = ("duplicate-days-later", "late")
            screen = run_in_terminal("scenario", "run", *names, *target, columns=80)

        shown = [line for line in screen.splitlines() if "✓" in line]
        assert [line[:22].rstrip() for line in shown] == [
            *("✓ duplicate-days-later", "✓ late", "✓ 2 passed"),
        ]
        assert max(map(len, screen.splitlines())) <= 80

    def test_fail_fast_ends_at_the_first_failure_of_answers_or_effects(self) -> None:
        endpoint = Endpoint(knows_duplicates=False)
        with _cli(endpoint) as invoke:
            done = invoke("--all", "--fail-fast", "--records", endpoint.records, "--json")

        rows = [json.loads(each) for each in done.stdout.splitlines()]
        assert done.exit_code == 1
        assert [(each["name"], each["verdict"]) for each in rows] == [("duplicate", "failed")]

    def test_records_with_a_megabyte_of_letters_are_read_at_once(
        self, run: Callable[..., subprocess.CompletedProcess[str]]
    ) -> None:
        endpoint = Endpoint(effects=[{"system": "inbox", "text": "x" * (1 << 20)}])
        with serving(endpoint):
            options = ("--url", endpoint.url, "--secret", SECRETS[0], "--patience", "5")
            done = run("scenario", "run", "late", *options, "--records", endpoint.records)

        assert done.returncode == 0, done.stdout

    def test_patience_bounds_a_look_at_records_that_dribble(
        self, raw_server: Callable[..., str]
    ) -> None:
        url = raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + b"[" * 999,
                         a_byte_each=0.05)  # fmt: skip
        started = time.monotonic()

        with pytest.raises(SenderError, match="no records"):
            Records(url).look([], timeout=1)

        assert time.monotonic() - started < 10

    def test_patience_bounds_a_look_at_a_relay_that_is_stuck(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "config.yaml")

        with pytest.raises(SenderError, match="no answer within 1 s: --patience"):
            Relay(tmp_path / "config.yaml").look([], timeout=1)

    def test_a_witness_that_goes_away_does_not_hide_the_answers(self, tmp_path: Path) -> None:
        with _cli(endpoint := _LosesItsRecords()) as invoke:
            done = invoke("late", "--records", endpoint.records, "--junit", tmp_path / "s.xml")

        assert done.exit_code == 1
        assert "✓ late" in done.stdout
        assert "no list of records" in done.stderr
        assert (tmp_path / "s.xml").exists()


@dataclass
class _Stalls(Endpoint):
    """Answers one event, and holds the next."""

    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def receive(self, body: bytes, signature: str) -> int:
        if self.effects:
            self.stalled.set()
            self.go_on.wait(60)
        return super().receive(body, signature)


class _LosesItsRecords(Endpoint):
    def receive(self, body: bytes, signature: str) -> int:
        status = super().receive(body, signature)
        self.effects = {}  # type: ignore[assignment]
        return status
