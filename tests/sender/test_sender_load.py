from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from receivers import SECRETS, Endpoint, serving

from sender import SenderError
from sender.attempt import Target
from sender.cli import main
from sender.load.engine import run as run_load
from sender.load.measured import ACCEPTED, REFUSED, UNKNOWN, UNSENT
from sender.load.plan import Mould, Plan, check_is_ours
from sender.load.verify import judge
from sender.witness import Sighting

Invoke = Callable[..., Result]


def _plan(url: str, *, timeout: float = 20, secret: str | None = SECRETS[0], **given: Any) -> Plan:
    target = Target(url=url, secret=secret, timeout=timeout)
    return Plan(target=target, **{"rate": 500.0, "count": 50} | given)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.delenv("GOFAX_SIGNING_SECRET", raising=False)
    return lambda *arguments: CliRunner().invoke(main, ["load", *map(str, arguments)])


def test_every_event_arrives_once_and_signed() -> None:
    with serving(Endpoint()) as endpoint:
        recorder = run_load(_plan(endpoint.url))

    measured = recorder.measured()
    assert measured.is_success
    assert measured.statuses == {200: 50}
    texts = [each["text"].split()[0] for each in endpoint.effects]
    assert sorted(texts) == recorder.plan.ids()


def test_the_rate_is_kept(receiver: Any, secret: str) -> None:
    started = time.monotonic()

    measured = run_load(_plan(receiver.url, secret=secret, rate=50.0, count=50)).measured()

    # 49 gaps of 20 ms; what a loaded machine adds is not the rate's fault.
    assert time.monotonic() - started >= 0.98
    assert measured.sent_per_second == pytest.approx(50, rel=0.2)
    assert len(receiver.received) == 50


class _Stalls(Endpoint):
    """Holds up its first request."""

    def receive(self, body: bytes, signature: str) -> int:
        if not self.effects:
            threading.Event().wait(0.6)
        return super().receive(body, signature)


def test_a_stall_counts_for_every_event_that_it_made_late() -> None:
    with serving(_Stalls()) as endpoint:
        plan = _plan(endpoint.url, rate=100.0, count=40, connections=1)
        measured = run_load(plan).measured()

    assert measured.is_success
    # Half of them were due while the first held the only connection.
    assert measured.latency_ms[50.0] > 150
    assert measured.service_ms[50.0] < measured.latency_ms[50.0] / 2
    assert measured.latency_ms[100.0] >= measured.service_ms[100.0] >= 600


def test_connections_are_the_most_that_there_are_at_the_same_time() -> None:
    with serving(_Counts()) as endpoint:
        run_load(_plan(endpoint.url, rate=10_000.0, count=60, connections=3))

    assert 1 < endpoint.most <= 3


class _Counts(Endpoint):
    now, most = 0, 0

    def receive(self, body: bytes, signature: str) -> int:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        threading.Event().wait(0.01)
        status = super().receive(body, signature)
        with self._lock:
            self.now -= 1
        return status


def test_a_silent_receiver_ends_the_load_in_time(silent_url: str) -> None:
    started = time.monotonic()

    measured = run_load(_plan(silent_url, timeout=0.5, count=100, connections=2)).measured()

    assert time.monotonic() - started < 10
    assert measured.accepted == 0
    assert measured.sent < 100
    assert sum(measured.errors.values()) == measured.sent
    assert any("no complete answer within 0.5 s" in each for each in measured.errors)


def test_nobody_there_is_counted_by_reason(unreachable_url: str) -> None:
    measured = run_load(_plan(unreachable_url, count=10)).measured()

    assert measured.sent == 10
    assert list(measured.errors.values()) == [10]
    assert "connection refused" in next(iter(measured.errors))


def test_refusals_are_counted_by_status(receiver: Any) -> None:
    recorder = run_load(_plan(receiver.url, secret="another", count=10))

    assert recorder.measured().statuses == {401: 10}
    assert set(recorder.fates) == {REFUSED}


@given(st.integers(0, 10**6))
def test_an_event_of_a_load_is_one_of_gofax(number: int) -> None:
    plan = _plan("http://127.0.0.1/")

    fields = json.loads(Mould(plan).body(number))

    assert fields["messageId"] == plan.message_id(number)
    assert fields["messageBody"].split()[0] == plan.message_id(number)
    assert fields["from"].startswith("+6149")
    assert len(fields["from"]) == 12
    assert list(fields) == [
        *("eventType", "eventTimestamp", "messageId", "direction", "from", "to"),
        *("messageBody", "metadata", "signature"),
    ]


def test_customers_are_as_many_as_asked_for() -> None:
    mould = Mould(_plan("http://127.0.0.1/", customers=7))

    assert len({json.loads(mould.body(n))["from"] for n in range(50)}) == 7


#: What is known of an event, how often it is there, and what that is called.
JUDGED = {
    (ACCEPTED, 1): None,
    (ACCEPTED, 0): "lost",
    (ACCEPTED, 2): "doubled",
    # Without an answer it may have arrived or not; twice is wrong all the same.
    (UNKNOWN, 0): None,
    (UNKNOWN, 1): None,
    (UNKNOWN, 2): "doubled",
    (REFUSED, 0): None,
    (REFUSED, 1): "unasked",
    (UNSENT, 0): None,
    (UNSENT, 1): "unasked",
}


def test_what_is_there_is_compared_with_what_was_answered() -> None:
    for (fate, count), expected in JUDGED.items():
        seen = {"a": Sighting(count=count, is_pending=False, said="")}

        verified = judge(["a"], [fate], seen, witness="records")

        found = [each for each in ("lost", "doubled", "unasked") if getattr(verified, each)]
        assert found == ([expected] if expected else []), (fate, count)
        assert verified.is_right == (expected is None)


def test_the_command_verifies_every_id(invoke: Invoke) -> None:
    with serving(Endpoint()) as endpoint:
        done = invoke(
            *("--url", endpoint.url, "--secret", SECRETS[0], "--rate", "500/s", "--count", 60),
            *("--records", endpoint.records),
        )

    assert done.exit_code == 0, done.output
    assert "60 of 60 sent, 60 accepted" in done.stdout
    assert "✓ records: 60 there, 0 lost, 0 doubled, 0 unasked" in done.stdout
    for part in ("asked", "p99.9", "from when it was due", "answered 200: 60"):
        assert part in done.stdout


class _Forgets(Endpoint):
    def receive(self, body: bytes, signature: str) -> int:
        status = super().receive(body, signature)
        if len(self.effects) > 5:
            self.effects.pop()
        return status


class _Doubles(Endpoint):
    def receive(self, body: bytes, signature: str) -> int:
        status = super().receive(body, signature)
        self.effects.append(self.effects[-1])
        return status


@pytest.mark.parametrize(("kind", "fault"), [(_Forgets, "15 lost"), (_Doubles, "20 doubled")])
def test_a_receiver_that_loses_or_doubles_fails(
    invoke: Invoke, kind: type[Endpoint], fault: str
) -> None:
    with serving(kind()) as endpoint:
        done = invoke(
            *("--url", endpoint.url, "--secret", SECRETS[0], "--count", 20, "--connections", 1),
            *("--records", endpoint.records, "--patience", "0.2"),
        )

    assert done.exit_code == 1
    assert fault in done.stdout


def test_json_is_one_object(invoke: Invoke, receiver: Any, secret: str) -> None:
    receiver.status = 503

    done = invoke("--url", receiver.url, "--secret", secret, "--count", 5, "--json")

    assert done.exit_code == 1
    measured = json.loads(done.stdout)
    assert measured["statuses"] == {"503": 5}
    assert (measured["planned"], measured["sent"], measured["accepted"]) == (5, 5, 0)
    assert set(measured["latency_ms"]) == {"50.0", "90.0", "99.0", "99.9", "100.0"}
    assert measured["verified"] == []


def test_only_this_machine_is_loaded(invoke: Invoke) -> None:
    for host in ("192.0.2.1", "10.0.0.1", "0.0.0.0", "[2001:db8::1]"):
        done = invoke("--url", f"http://{host}/hook", "--count", 1)

        assert done.exit_code == 2
        assert "is not this machine" in done.stderr
        assert "--i-own-this-host" in done.stderr


def test_loopback_is_this_machine() -> None:
    for host in ("127.0.0.1", "127.8.9.1", "localhost", "[::1]"):
        check_is_ours(f"http://{host}:8080/hook")


def test_a_host_that_nobody_knows_is_not_loaded() -> None:
    with pytest.raises(SenderError, match="host name not found"):
        check_is_ours("http://nowhere.invalid/")


def test_another_host_is_loaded_if_it_is_said_to_be_ours(invoke: Invoke) -> None:
    done = invoke(
        *("--url", "http://192.0.2.1/hook", "--count", 1, "--timeout", "0.3"),
        "--i-own-this-host",
    )

    assert done.exit_code == 1
    assert "0 accepted" in done.stdout


UNUSABLE = {
    ("--duration", "1s", "--count", "5"): "exclude each other",
    ("--duration", "soon"): "is not a duration",
    ("--duration", "0s"): "is not a duration",
    ("--rate", "0"): "is not a rate",
    ("--count", "0"): "not in the range",
    ("--connections", "5000"): "not in the range",
}


def test_bad_use_exits_2(invoke: Invoke) -> None:
    for arguments, said in UNUSABLE.items():
        done = invoke("--url", "http://127.0.0.1:9/hook", *arguments)

        assert done.exit_code == 2
        assert said in done.stderr


def test_without_the_extra_the_rest_works_and_load_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = None; sys.modules['hdrh'] = None\n"
        "from sender.cli import main; main(prog_name='gofax-sender')"
    )
    command = [sys.executable, "-c", code]
    url = ["--url", "http://127.0.0.1:9/hook"]

    listed = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    loaded = subprocess.run([*command, "load", *url], capture_output=True, text=True, check=False)

    assert listed.returncode == 0
    assert loaded.returncode == 1
    assert "pip install 'gofax-relay[load]'" in loaded.stderr
    assert "Traceback" not in loaded.stderr


def test_ctrl_c_ends_the_load_and_shows_what_was_measured(
    receiver: Any, secret: str, store_file: Path
) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "sender", "load", "--url", receiver.url, "--secret", secret),
            *("--rate", "50/s", "--duration", "10m"),
        ],
        env=os.environ | {"GOFAX_SENDER_STORE": str(store_file)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ends_at = time.monotonic() + 30
    while len(receiver.received) < 5 and time.monotonic() < ends_at:
        threading.Event().wait(0.02)

    process.send_signal(signal.SIGINT)
    said, faults = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "of 30000 sent" in said
    assert "from when it was due" in said
    assert "Traceback" not in faults


def test_a_terminal_shows_how_far_it_is(
    run_in_terminal: Callable[..., str], receiver: Any, secret: str
) -> None:
    options = ["--url", receiver.url, "--secret", secret, "--rate", "100", "--count", "60"]

    shown = run_in_terminal("load", *options, columns=80)

    assert "/60" in shown
    assert "60 of 60 sent, 60 accepted" in shown
