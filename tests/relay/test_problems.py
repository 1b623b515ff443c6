"""What a person should know: what is found, and how problems begin, go on and end."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.rules.health import Cause, Health, Pause
from relay.rules.hours import Hours, Silence, Span
from relay.rules.kinds import Kind
from relay.rules.problems import (
    ESCALATES_AFTER,
    GONE_FOR,
    SUSPECTED_FOR,
    Calls,
    Certificate,
    Facts,
    Finding,
    OldSecret,
    Problem,
    Process,
    Step,
    Stopped,
    findings,
    steps,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def ago(**units: float) -> datetime:
    return NOW - timedelta(**units)


def paused(cause: Cause, *, since: datetime = NOW, failures: int = 0) -> Health:
    pause = Pause(cause=cause, reason="a customer wrote this", since=since, until=None)
    return Health(failures=failures, pause=pause)


def process(name: str, role: str = "worker", **changes: Any) -> Process:
    values = {"host": "a", "started_at": ago(hours=1), "beat_at": NOW, "is_alive": True}
    return Process(name=name, role=role, **{**values, **changes})


def silent(name: str, **changes: Any) -> Process:
    return process(name, is_alive=False, beat_at=ago(seconds=30), **changes)


def used(**units: float) -> OldSecret:
    return OldSecret(position=2, of=2, used_at=ago(**units))


def ending(**units: float) -> OldSecret:
    return OldSecret(position=1, of=2, used_at=ago(hours=1), ends_at=NOW + timedelta(**units))


WORKER = process("worker-1")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, []),
        # Destinations: one finding each, the one that says most.
        ({"health": {"crm": Health(failures=2)}}, []),
        ({"health": {"crm": Health(failures=3)}}, [(Kind.FAILING, "crm")]),
        ({"health": {"crm": paused("failing", failures=10)}}, [(Kind.FAILING, "crm")]),
        ({"health": {"crm": paused("unauthorized", failures=9)}}, [(Kind.UNAUTHORIZED, "crm")]),
        ({"health": {"crm": paused("operator")}}, [(Kind.PAUSED, "crm")]),
        ({"health": {"crm": paused("throttled", since=ago(minutes=5))}}, []),
        ({"health": {"crm": paused("throttled", since=ago(minutes=6))}}, [(Kind.PAUSED, "crm")]),
        # A backlog is news only where nothing else explains it.
        ({"due_since": {"crm": ago(minutes=15)}}, []),
        ({"due_since": {"crm": ago(minutes=16)}}, [(Kind.BACKLOG, "crm")]),
        (
            {"due_since": {"crm": ago(hours=9)}, "health": {"crm": paused("operator")}},
            [(Kind.PAUSED, "crm")],
        ),
        # Deliveries that wait for a person.
        ({"stopped": {"crm": Stopped()}}, []),
        (
            {"stopped": {"crm": Stopped(dead=2, held=1)}},
            [(Kind.DEAD, "crm"), (Kind.HELD, "crm")],
        ),
        # Nodes.
        ({"nodes": [process("web-1", "web")]}, [(Kind.NO_WORKER, "")]),
        ({"nodes": [WORKER, silent("worker-2")]}, [(Kind.SILENT_NODE, "worker-2")]),
        (
            {"nodes": [silent("worker-1")]},
            [(Kind.NO_WORKER, ""), (Kind.SILENT_NODE, "worker-1")],
        ),
        # One that was started in its place: here, in its role, and since.
        ({"nodes": [process("b", started_at=ago(seconds=9)), silent("a")]}, []),
        (
            {"nodes": [process("b", started_at=ago(seconds=9), host="b"), silent("a")]},
            [(Kind.SILENT_NODE, "a")],
        ),
        (
            {"nodes": [WORKER, process("b", "web", started_at=ago(seconds=9)), silent("a")]},
            [(Kind.SILENT_NODE, "a")],
        ),
        # One for each machine, however many processes.
        (
            {"nodes": [process("a", is_outdated=True), process("b", "web", is_outdated=True)]},
            [(Kind.CONFIG, "a")],
        ),
        ({"nodes": [WORKER, silent("b", host="a", is_outdated=True)]}, [(Kind.SILENT_NODE, "b")]),
        # Signatures: some, and a share of all.
        ({"calls": {"/x": Calls(mismatched=2)}}, []),
        ({"calls": {"/x": Calls(mismatched=3)}}, [(Kind.SIGNATURES, "/x")]),
        ({"calls": {"/x": Calls(mismatched=3, accepted=12)}}, [(Kind.SIGNATURES, "/x")]),
        ({"calls": {"/x": Calls(mismatched=3, accepted=13)}}, []),
        ({"calls": {"/y": Calls(strayed=1)}}, [(Kind.UNKNOWN_PATH, "/y")]),
        # The relay itself.
        ({"no_room": "the disk is at its reserve"}, [(Kind.STORE, "")]),
        ({"unsent": {"mail-1": "no route to host"}}, [(Kind.ALERTS, "mail-1")]),
        # The way from GoFax.
        ({"certificate": Certificate(url="x")}, []),
        ({"certificate": Certificate(url="x", fault="expired")}, [(Kind.CERTIFICATE, "x")]),
        ({"certificate": Certificate(url="x", ends_at=ago(days=-14))}, []),
        ({"certificate": Certificate(url="x", ends_at=ago(days=-13))}, [(Kind.CERTIFICATE, "x")]),
        ({"old_secrets": {"/x": [used(hours=24)]}}, [(Kind.OLD_SECRET, "/x")]),
        ({"old_secrets": {"/x": [used(hours=25)]}}, []),
        # The first one matters only in its last days.
        ({"old_secrets": {"/x": [ending(days=6.9)]}}, [(Kind.OLD_SECRET, "/x")]),
        ({"old_secrets": {"/x": [ending(days=7.1)]}}, []),
        ({"old_secrets": {"/x": [ending(days=-0.1)]}}, []),
        ({"old_secrets": {"/x": [used(hours=1), ending(days=9)]}}, [(Kind.OLD_SECRET, "/x")]),
    ],
)
def test_what_is_wrong_is_found(facts: dict[str, Any], expected: list[tuple[Kind, str]]) -> None:
    found = findings(Facts(**{"nodes": [WORKER], **facts}), now=NOW)

    assert [each.key for each in found] == expected
    assert all("customer wrote" not in each.said for each in found)


@pytest.mark.parametrize(
    ("days", "level"), [(13, "warning"), (4, "warning"), (2, "error"), (-1, "error")]
)
def test_a_certificate_gets_urgent(days: float, level: str) -> None:
    shown = Certificate(url="https://x.test", ends_at=ago(days=-days))

    (found,) = findings(Facts(nodes=[WORKER], certificate=shown), now=NOW)

    assert found.level == level


@pytest.mark.parametrize(("days", "level"), [(6, "warning"), (4, "warning"), (2, "error")])
def test_the_end_of_a_secret_that_is_used_gets_urgent(days: float, level: str) -> None:
    used_ones = {"/x": [ending(days=days), used(hours=1)]}

    (found,) = findings(Facts(nodes=[WORKER], old_secrets=used_ones), now=NOW)

    assert found.level == level
    end = f"{NOW + timedelta(days=days):%Y-%m-%d}"
    assert "with secret 1 of 2 in the config" in found.said
    assert f"will be refused after its not_after, {end} (UTC)" in found.said


#: Monday to Friday, from 9 to 17; NOW is a Tuesday, 12 o'clock.
HOURS = Hours(
    zone=UTC, week={day: (Span(timedelta(hours=9), timedelta(hours=17)),) for day in range(5)}
)


@pytest.mark.parametrize(
    ("since", "hours", "found"),
    [
        (ago(hours=3.9), None, False),
        (ago(hours=4), None, True),
        # Three hours of today, and the last one of yesterday.
        (ago(hours=19.9), HOURS, False),
        (ago(hours=20), HOURS, True),
        (ago(days=999), HOURS, True),
        # None ever came: the start counts, here an hour ago.
        (None, None, False),
    ],
)
def test_a_silence_is_counted_in_business_hours(
    since: datetime | None, hours: Hours | None, found: bool
) -> None:
    facts = Facts(nodes=[WORKER], newest_event_at=since)
    silence = Silence(longest=timedelta(hours=4), hours=hours)

    kinds = [each.kind for each in findings(facts, now=NOW, silence=silence)]

    assert kinds == ([Kind.SILENCE] if found else [])
    assert findings(facts, now=NOW) == []


def test_a_silence_from_the_beginning_is_one() -> None:
    facts = Facts(nodes=[process("worker-1", started_at=ago(hours=5))])

    (found,) = findings(facts, now=NOW, silence=Silence(longest=timedelta(hours=4)))

    assert found.said.startswith("no event has ever come")


def finding(**changes: Any) -> Finding:
    return Finding(**{"kind": Kind.DEAD, "subject": "crm", "said": "so it is", **changes})


def problem(**changes: Any) -> Problem:
    values = {
        "id": "prb_1", "kind": Kind.DEAD, "subject": "crm", "level": "error", "said": "so it is",
        "number": 1, "since": ago(minutes=1), "opened_at": ago(minutes=1),
    }  # fmt: skip
    return Problem(**{**values, **changes})


SUSPECTED = SUSPECTED_FOR[Kind.NO_WORKER]


@pytest.mark.parametrize(
    ("known", "found", "told"),
    [
        # It begins, and is told once.
        ([], [finding()], ["opened"]),
        ([problem()], [finding()], []),
        ([problem()], [finding(subject="flow")], [None, "opened"]),
        # A suspicion must last.
        ([], [finding(kind=Kind.NO_WORKER)], [None]),
        (
            [problem(kind=Kind.NO_WORKER, opened_at=None, since=NOW - SUSPECTED + SECOND)],
            [finding(kind=Kind.NO_WORKER)],
            [],
        ),
        (
            [problem(kind=Kind.NO_WORKER, opened_at=None, since=NOW - SUSPECTED)],
            [finding(kind=Kind.NO_WORKER)],
            ["opened"],
        ),
        # It is over once it has been gone for a while.
        ([problem()], [], [None]),
        ([problem(gone_since=NOW - GONE_FOR + SECOND)], [], []),
        ([problem(gone_since=NOW - GONE_FOR)], [], ["resolved"]),
        ([problem(gone_since=ago(seconds=1))], [finding()], [None]),
        # It is told again when nobody has taken it on, once.
        ([problem(opened_at=NOW - ESCALATES_AFTER + SECOND)], [finding()], []),
        ([problem(opened_at=NOW - ESCALATES_AFTER)], [finding()], ["escalated"]),
        ([problem(opened_at=ago(days=1), escalated_at=ago(hours=9))], [finding()], []),
        ([problem(opened_at=ago(days=1), acknowledged_at=ago(hours=9))], [finding()], []),
        (
            [problem(opened_at=ago(days=1), level="warning")],
            [finding(level="warning")],
            [],
        ),
        # It is told again when it has grown, even to those who know.
        ([problem(number=3)], [finding(number=29)], []),
        ([problem(number=3)], [finding(number=30)], ["escalated"]),
        ([problem(number=3, acknowledged_at=NOW)], [finding(number=30)], ["escalated"]),
        # It has become an error.
        (
            [problem(level="warning", acknowledged_at=NOW)],
            [finding(level="error")],
            ["escalated"],
        ),
        # What it says is kept up to date without telling.
        ([problem()], [finding(said="otherwise")], [None]),
    ],
)
def test_a_problem_goes_on(
    known: Sequence[Problem], found: Sequence[Finding], told: list[str | None]
) -> None:
    done = steps(known, found, now=NOW, new_id=lambda: "prb_2")

    assert sorted(map(str, (each.told for each in done))) == sorted(map(str, told))


def test_a_suspicion_that_was_wrong_leaves_nothing() -> None:
    suspected = problem(kind=Kind.NO_WORKER, opened_at=None, since=NOW)

    assert steps([suspected], [], now=NOW, new_id=str) == [Step(problem=suspected, dropped=True)]


def test_a_problem_that_grows_is_told_at_each_tenfold() -> None:
    (grown,) = steps([problem()], [finding(number=40)], now=NOW, new_id=str)

    assert grown.problem.number == 40
    assert steps([grown.problem], [finding(number=399)], now=NOW, new_id=str) == []


def test_a_life_from_the_first_finding_to_the_end_tells_twice() -> None:
    ids = (f"prb_{number}" for number in itertools.count())
    known: list[Problem] = []
    told = []
    # No worker for a minute, with a moment at its middle in which there seems to be one.
    for second in range(0, 120, 5):
        is_gone = second == 30 or second >= 60
        found = [] if is_gone else [finding(kind=Kind.NO_WORKER, subject="")]
        for step in steps(known, found, now=NOW + second * SECOND, new_id=lambda: next(ids)):
            told += [step.told] if step.told else []
            known = [each for each in known if each.id != step.problem.id]
            known += [step.problem] if not (step.dropped or step.problem.resolved_at) else []

    assert told == ["opened", "resolved"]
    assert known == []
