"""Checks of what is left in the system: C03, C09, C10, C12, C17."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any

import pytest

from connectors.base import Receipt, Refused
from connectors.testing import killing
from connectors.testing.bench import Bench, Case
from connectors.testing.findings import Findings, check
from connectors.testing.gateway import Asked, Fault, Plan, once
from connectors.testing.hooks import Hooks, over_http_only

#: A template that no engine of the Jinja kind can fill in.
BROKEN = "{{ 1 // 0 }}"
THREADS = 50
#: Most places at which a connector without HTTP is killed.
MOST_LINES = 400
#: Short texts that have to arrive as they are.
SCRIPTS = ("Grüße aus Köln – fünf Äpfel", "👩‍👩‍👧‍👦 🇦🇺 👍🏽", "مرحبا بك", "東京で会いましょう")
#: Texts that may be shortened, cleaned or refused, but must do no harm.
ODD_BODIES = {
    "a long SMS": "All is well. " * 124,
    "a megabyte": "x" * 1_000_000,
    "NUL and other control characters": "a\x00b\x07c\x1bd\x7fe\x85f",
    "half a surrogate pair": "a\ud83db",
    "direction marks": "\u202ereversed\u202c \u200bzero\u200b",
    "mark-up": "<script>alert(1)</script> <at>All</at> **b** [l](javascript:x) {{7*7}} &amp; %s",
    "nothing": "",
    "blanks": " \t\r\n ",
}
#: Events that lack what most have.
ODD_EVENTS: dict[str, dict[str, Any]] = {
    "no text": {"body": None},
    "no number of ours": {"ours": None, "recipient": None, "type": "SMS_STATUS"},
    "no customer": {"customer": None, "sender": None},
    "a short code": {"customer": "GoFax", "sender": "GoFax"},
    "no time, no id": {"occurred_at": None, "message_id": None, "account_id": None},
    "an unknown type": {"type": "FAX_RECEIVED\n<b>", "direction": None},
    "odd metadata": {"metadata": {"a": [None, {"b": "\x00"}]}, "payload": {"to": 7}},
}


class EffectChecks(Hooks):
    """What people find in the system afterwards; the stand-in counts it."""

    @check
    def test_C03_same_key_twice_has_one_effect(self) -> None:
        findings = Findings()
        with self.bench() as bench:
            for make in (bench.first, bench.next):
                usual, _ = bench.usual(make)
                findings.expect(usual, "a delivery left nothing: effects() must count it")
                case = make()
                before = bench.effects()
                with bench.line() as line:
                    bench.settle(line.connector, case)
                for _ in range(2):
                    with bench.line() as line:
                        bench.settle(line.connector, case, repeat=True)
                _compare(findings, bench, before, usual, f"{case.name} event, three times")
        findings.report()

    @check
    def test_C03_repetition_without_a_first_attempt_delivers(self) -> None:
        findings = Findings()
        with self.bench() as bench:
            for make in (bench.first, bench.next):
                usual, _ = bench.usual(make)
                case = make()
                before = bench.effects()
                with bench.line() as line:
                    bench.settle(line.connector, case, repeat=True)
                _compare(findings, bench, before, usual, f"{case.name} event, repeat=True at once")
        findings.report()

    @check
    def test_C03_lost_answers_have_one_effect(self) -> None:
        over_http_only(self)
        faults = {
            "500": Fault(acts=True, status=500),
            "503": Fault(acts=True, status=503),
            "garbage": Fault(acts=True, body=b"<html>"),
            "reset": Fault(acts=True, ends="reset"),
        }
        findings = Findings()
        with self.bench() as bench:
            for make in (bench.first, bench.next):
                usual, requests = bench.usual(make)
                for at in range(1, requests + 1):
                    for name, fault in faults.items():
                        case = make()
                        before = bench.effects()
                        with bench.line(once(fault, at=at)) as line:
                            bench.settle(line.connector, case)
                        what = f"{case.name} event, acted and then {name} at request {at}"
                        _compare(findings, bench, before, usual, what)
        findings.report()

    @check
    def test_C09_texts_of_all_scripts_arrive(self) -> None:
        findings = Findings()
        with self.bench() as bench, bench.line() as line:
            for text in SCRIPTS:
                bench.settle(line.connector, bench.first(body=text))
                found = any(text in effect.text for effect in bench.stand_in.effects())
                findings.expect(found, "a text did not arrive as it was", at=repr(text))
        findings.report()

    @check
    def test_C09_odd_events_are_delivered_or_refused(self) -> None:
        odd = {name: {"body": body} for name, body in ODD_BODIES.items()} | ODD_EVENTS
        findings = Findings()
        with self.bench() as bench:
            for name, changes in odd.items():
                with bench.line() as line:
                    outcome: Receipt | Exception
                    try:
                        outcome = bench.settle(line.connector, bench.first(**changes))
                    except Exception as error:
                        outcome = error
                findings.judge(
                    isinstance(outcome, (Receipt, Refused)),
                    outcome,
                    wanted="a Receipt or Refused",
                    at=name,
                )
        findings.report()

    @check
    def test_C10_destinations_share_nothing(self) -> None:
        findings = Findings()
        with self.bench() as one, self.bench() as other:
            usual, _ = one.usual(one.first)
            other.usual(other.first)
            cases = [one.first() for _ in range(3)]
            before = {bench: bench.effects() for bench in (one, other)}
            with one.line() as here, other.line() as there:
                for case in cases:
                    one.settle(here.connector, case)
                    other.settle(there.connector, case)
            for name, bench in (("one", one), ("the other", other)):
                what = f"three events to two destinations, in {name}"
                _compare(findings, bench, before[bench], _times(usual, 3), what)
        findings.report()

    @check
    def test_C10_fifty_threads(self) -> None:
        findings = Findings()
        with self.bench() as bench, _tight_switching():
            usual, _ = bench.usual(bench.first)
            cases = [bench.first() for _ in range(THREADS)]
            before = bench.effects()
            with bench.line() as line:
                _at_once([partial(bench.settle, line.connector, case) for case in cases])
            what = f"{THREADS} customers at once"
            _compare(findings, bench, before, _times(usual, THREADS), what)
            _find_texts(findings, bench, cases, what)
        findings.report()

    @check
    def test_C10_two_conversations_of_one_customer_at_once(self) -> None:
        findings = Findings()
        with self.bench() as bench:
            bench.usual(bench.first)
            before = bench.effects()
            with bench.line() as line:
                for case in _pair(bench):
                    bench.settle(line.connector, case)
            usual = bench.effects() - before
            for _ in range(3):
                pair = _pair(bench)
                before = bench.effects()
                with bench.line(_in_step(len(pair))) as line:
                    _at_once([partial(bench.settle, line.connector, case) for case in pair])
                what = "two conversations of a new customer at once"
                _compare(findings, bench, before, usual, what)
                _find_texts(findings, bench, pair, what)
        findings.report()

    @check
    def test_C10_close_may_be_called_twice(self) -> None:
        with self.bench() as bench, bench.line() as line:
            line.connector.close()
            line.connector.close()
            with bench.line() as used:
                bench.settle(used.connector, bench.first())
                used.connector.close()
                used.connector.close()

    @check
    def test_C12_template_errors_name_field_and_event(self) -> None:
        if not self.templates:
            pytest.skip("not applicable: the suite declares no templates")
        findings = Findings()
        for name, changes in self.templates.items():
            with self.bench(**changes) as bench, bench.line() as line:
                case = bench.first()
                outcome = bench.attempt(line.connector, case)
                refused = isinstance(outcome, Refused)
                findings.judge(refused, outcome, wanted="Refused", at=name)
                named = {"option": name, "event": case.event.id}
                for what, word in named.items():
                    said = f"the error names no {what}"
                    findings.expect(word in str(outcome), said, at=f"{name}: {word}")
                nothing = not bench.effects()
                findings.expect(nothing, "something was left in the system", at=name)
        findings.report()

    @check
    def test_C17_a_killed_process_leaves_one_effect_of_each_kind(self) -> None:
        findings = Findings()
        with self.bench() as bench:
            for make in (bench.first, bench.next):
                usual, requests = bench.usual(make)
                kill = self._kill_at_request if self.over_http else self._kill_at_line
                killed = 0
                for at in range(1, (requests if self.over_http else MOST_LINES) + 1):
                    case = make()
                    before = bench.effects()
                    if not kill(bench, case, at):
                        break
                    killed += 1
                    with bench.line() as line:
                        bench.settle(line.connector, case, repeat=True)
                    what = f"{case.name} event, killed at {self._place} {at} and repeated"
                    _compare(findings, bench, before, usual, what)
                findings.expect(killed, "no process was killed: is over_http as it should be?")
        findings.report()

    @property
    def _place(self) -> str:
        return "request" if self.over_http else "line"

    def _kill_at_request(self, bench: Bench, case: Case, at: int) -> bool:
        """Kill a delivery when request *at* has had its effect; say whether it came so far."""
        started: SimpleQueue[BaseProcess] = SimpleQueue()
        # Nothing that comes after SIGKILL, such as the end of the connection, is noticed.
        fault = Fault(acts=True, ends="close", meanwhile=lambda: started.get().kill())
        with bench.line(once(fault, at=at)) as line:
            assert line.gateway is not None
            process = killing.start(bench.call(line.gateway.url, case))
            started.put(process)
            return not killing.ended(process)

    def _kill_at_line(self, bench: Bench, case: Case, at: int) -> bool:
        """Kill a delivery at its line *at*; say whether it came so far."""
        files = self.files or (str(sys.modules[self.connector.__module__].__file__),)
        call = bench.call(bench.stand_in.url, case)
        return not killing.ended(killing.start(call, at_line=at, files=files))


def _compare(
    findings: Findings, bench: Bench, before: Counter[str], usual: Counter[str], what: str
) -> None:
    """Note where the effects since *before* are not the usual ones."""
    now = bench.effects() - before
    for kind in sorted(set(now) | set(usual)):
        cause = f"{now[kind]} of kind {kind}, wanted {usual[kind]}"
        findings.expect(now[kind] == usual[kind], cause, at=what)


def _find_texts(findings: Findings, bench: Bench, cases: Sequence[Case], what: str) -> None:
    """Note which texts of *cases* stand nowhere."""
    found = [effect.text for effect in bench.stand_in.effects()]
    lost = [case for case in cases if not any(str(case.event.body) in each for each in found)]
    findings.expect(not lost, f"{len(lost)} of {len(cases)} texts did not arrive", at=what)


def _times(usual: Counter[str], factor: int) -> Counter[str]:
    return Counter({kind: count * factor for kind, count in usual.items()})


def _pair(bench: Bench) -> list[Case]:
    """Make the first events of two conversations of a new customer."""
    one = bench.first()
    changes = {"ours": "+61700000001", "recipient": "+61700000001"}
    customer = one.event.customer
    return [one, bench.first(customer=customer, sender=customer, **changes)]


def _at_once(tasks: Sequence[Callable[[], object]]) -> None:
    """Run *tasks* in threads that start together, and raise what the first of them raises."""
    gate = threading.Barrier(len(tasks))

    def run(task: Callable[[], object]) -> None:
        gate.wait(30)
        task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        list(pool.map(run, tasks))


def _in_step(count: int) -> Plan:
    """Pass requests on in groups of *count*, so that all have asked before one of them acts."""
    gate = threading.Barrier(count)

    def plan(_: Asked) -> None:
        try:
            gate.wait(0.1)
        except threading.BrokenBarrierError:
            gate.reset()  # the others have nothing to ask now

    return plan


@contextmanager
def _tight_switching() -> Iterator[None]:
    """Change threads so often that what they share by mistake comes to light."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
