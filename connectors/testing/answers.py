"""Checks of what a connector makes of a system's answers, and of none: C04 to C07, C11."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from connectors.base import (
    Ambiguous,
    DeliveryError,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.testing.bench import Bench
from connectors.testing.findings import Findings, check
from connectors.testing.gateway import Asked, Fault, Plan, lasting
from connectors.testing.hooks import Hooks, over_http_only

Verdict = type[DeliveryError] | tuple[type[DeliveryError], ...]

#: Bodies that no system of this world means as a success.
GARBAGE = {
    "a page of a proxy": b"<html><body>It works!</body></html>",
    "JSON that was cut off": b'{"id": "12',
    "bytes that are no text": b"\xff\xfe\x00\x9f" * 50,
    "nesting without end": b"[" * 5000,
}
#: Bodies that some systems may mean as one; they must lead to no error of another kind.
ODD = {
    "nothing": b"",
    "null": b"null",
    "an empty list": b"[]",
    "an empty object": b"{}",
    "a number": b"7",
    "fields of other types": b'{"id": null, "results": 7, "error": [], "ticket": "x", "user": 0}',
    "another character set": '{"id": "grüße"}'.encode("utf-16"),
}
REFUSED = (400, 404, 405, 409, 410, 413, 415, 422, 451)
#: Seconds that a hung attempt may take, and those that a loaded machine may add.
SHORT, GRACE = 1.0, 3.0


class AnswerChecks(Hooks):
    """What the connector raises; every request of a delivery has its turn to go wrong."""

    @check
    def test_C04_garbage_behind_2xx_is_no_success(self) -> None:
        over_http_only(self)
        findings = Findings()
        with self.bench() as bench:
            _, requests = bench.usual(bench.first)
            for at in range(1, requests + 1):
                for name, body in (GARBAGE | ODD).items():
                    outcome = _struck(bench, lasting(Fault(body=body), since=at))
                    success = isinstance(outcome, Receipt) and (self.takes_any_2xx or name in ODD)
                    findings.judge(
                        success or isinstance(outcome, DeliveryError),
                        outcome,
                        wanted="a DeliveryError",
                        at=f"200 with {name} from request {at} on",
                    )
        findings.report()

    @check
    def test_C05_refusals_are_told_apart(self) -> None:
        over_http_only(self)
        wanted: dict[int, Verdict] = dict.fromkeys(REFUSED, Refused)
        wanted |= {401: Unauthorized, 403: Unauthorized, 408: Transient, 425: Transient}
        self._expect_statuses(wanted | dict(self.verdicts), token=Unauthorized)

    @check
    def test_C06_too_fast_is_throttled(self) -> None:
        over_http_only(self)
        findings = Findings()
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
        with self.bench() as bench:
            _, requests = bench.usual(bench.first)
            for at in range(1, requests + 1):
                for value, low, high in (("7", 7, 8), (date, 5, 40), ("", 0, 1e9)):
                    headers = {"Retry-After": value} if value else {}
                    fault = Fault(status=429, headers=headers)
                    outcome = _struck(bench, lasting(fault, since=at))
                    waits = getattr(outcome, "retry_after", None)
                    findings.judge(
                        isinstance(outcome, Throttled) and _waits(outcome, low, high, said=value),
                        outcome,
                        wanted=f"Throttled with a retry_after of {low:g} to {high:g} s",
                        at=f"429 with {headers} from request {at} on, waits {waits}",
                    )
        findings.report()

    @check
    def test_C06_a_failing_systems_wait_is_kept(self) -> None:
        over_http_only(self)
        findings = Findings()
        fault = Fault(status=503, headers={"Retry-After": "7"})
        with self.bench() as bench:
            _, requests = bench.usual(bench.first)
            for at in range(1, requests + 1):
                outcome = _struck(bench, lasting(fault, since=at))
                findings.judge(
                    isinstance(outcome, DeliveryError) and _waits(outcome, 7, 8, said="7"),
                    outcome,
                    wanted="an error with a retry_after of 7 s",
                    at=f"503 with Retry-After: 7 from request {at} on",
                )
        findings.report()

    @check
    def test_C07_trouble_of_the_system_is_transient_or_ambiguous(self) -> None:
        over_http_only(self)
        wanted: dict[int, Verdict] = dict.fromkeys((500, 502, 503, 504), (Transient, Ambiguous))
        own = {status: verdict for status, verdict in self.verdicts.items() if status in wanted}
        self._expect_statuses(wanted | own, token=(Transient, Ambiguous))

    def _expect_statuses(self, wanted: dict[int, Verdict], *, token: Verdict) -> None:
        findings = Findings()
        with self.bench() as bench:
            _, requests = bench.usual(bench.first)
            for at in range(1, requests + 1):
                for status, verdict in wanted.items():
                    struck: list[Asked] = []
                    plan = _noting(lasting(Fault(status=status), since=at), struck)
                    outcome = _struck(bench, plan)
                    last = struck[-1] if struck else None
                    if last and any(part in last.target for part in self.token_paths):
                        verdict = _either(verdict, token)
                    findings.judge(
                        isinstance(outcome, verdict),
                        outcome,
                        wanted=_names(verdict),
                        at=f"{status} from request {at} on, last to {last}",
                    )
        findings.report()

    @check
    def test_C07_broken_connections_are_transient_or_ambiguous(self) -> None:
        over_http_only(self)
        findings = Findings()
        faults = {"reset": Fault(ends="reset"), "closed": Fault(ends="close")}
        with self.bench() as bench:
            _, requests = bench.usual(bench.first)
            for at in range(1, requests + 1):
                for name, fault in faults.items():
                    outcome = _struck(bench, lasting(fault, since=at))
                    findings.judge(
                        isinstance(outcome, (Transient, Ambiguous)),
                        outcome,
                        wanted="Transient or Ambiguous",
                        at=f"{name} at request {at}",
                    )
        findings.report()

    @check
    def test_C07_tls_error_is_transient(self) -> None:
        over_http_only(self)
        with (
            self.bench() as bench,
            bench.line(readdress=lambda url: re.sub("^http:", "https:", url)) as line,
        ):
            outcome = bench.attempt(line.connector, bench.first())

        findings = Findings()
        wanted = isinstance(outcome, Transient)
        findings.judge(wanted, outcome, wanted="Transient", at="https to plain http")
        findings.report()

    @check
    def test_C07_silence_ends_as_transient_or_ambiguous(self) -> None:
        self._expect_in_time(
            {
                "silence before acting": Fault(ends="hang"),
                "silence after acting": Fault(ends="hang", acts=True),
            }
        )

    @check
    def test_C11_slow_answers_end_at_the_deadline(self) -> None:
        dribble = {"a byte now and then": Fault(ends="dribble", body=b"{")}
        self._expect_in_time(dribble, answered=self.takes_any_2xx)

    def _expect_in_time(self, faults: dict[str, Fault], *, answered: bool = False) -> None:
        over_http_only(self)
        findings = Findings()
        with self.bench() as bench:
            _, requests = bench.usual(bench.first)
            cases = [
                (f"{name} at request {at}", lasting(fault, since=at))
                for at in range(1, requests + 1)
                for name, fault in faults.items()
            ]
            with ThreadPoolExecutor(len(cases)) as pool:
                ends = pool.map(lambda case: _timed(lambda: _hung(bench, case[1])), cases)
            for (name, _), (outcome, seconds) in zip(cases, ends, strict=True):
                findings.judge(
                    isinstance(outcome, (Transient, Ambiguous))
                    or (answered and isinstance(outcome, Receipt)),
                    outcome,
                    wanted="Transient or Ambiguous",
                    at=name,
                )
                findings.expect(
                    seconds < SHORT + GRACE,
                    f"took more than the {SHORT:g} s of its deadline",
                    at=f"{name}: {seconds:.1f} s",
                )
        findings.report()


def _struck(bench: Bench, plan: Plan, **how: Any) -> Receipt | Exception:
    with bench.line(plan) as line:
        return bench.attempt(line.connector, bench.first(), **how)


def _hung(bench: Bench, plan: Plan) -> Receipt | Exception:
    return _struck(bench, plan, deadline=SHORT)


def _noting(plan: Plan, struck: list[Asked]) -> Plan:
    def noting(asked: Asked) -> Fault | None:
        fault = plan(asked)
        if fault:
            struck.append(asked)
        return fault

    return noting


def _timed(act: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return act(), time.monotonic() - began


def _waits(error: DeliveryError, low: float, high: float, *, said: str) -> bool:
    if error.retry_after is None:
        return not said
    return low - 1 <= error.retry_after.total_seconds() <= high + 1


def _either(*verdicts: Verdict) -> tuple[type[DeliveryError], ...]:
    return tuple(
        kind
        for verdict in verdicts
        for kind in (verdict if isinstance(verdict, tuple) else (verdict,))
    )


def _names(verdict: Verdict) -> str:
    return " or ".join(kind.__name__ for kind in _either(verdict))
