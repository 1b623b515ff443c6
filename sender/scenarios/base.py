"""What a scenario is: what it does to a receiver, what the right answer is, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sender.attempt import Attempt

if TYPE_CHECKING:
    from sender.scenarios.stage import Stage

Verdict = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that a right receiver does, and whether this one did."""

    what: str
    passed: bool
    #: What was seen.
    saw: str


class Skip(Exception):
    """The scenario cannot be played here; the text says what it would need."""


Play = Callable[["Stage"], Iterator[Check]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """One thing that happens to webhook receivers."""

    name: str
    #: What is done, in a few words.
    title: str
    #: What a right receiver answers, and what comes of it.
    right: str
    #: Why that is right.
    why: str
    play: Play


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """What an event must come to in the receiver, whatever was answered."""

    message_id: str
    #: Whether its text holds its id too, so that records show it.
    is_in_text: bool
    #: How often it is to take effect: at least and at most.
    least: int
    most: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of playing a scenario."""

    scenario: Scenario
    checks: Sequence[Check]
    effects: Sequence[Effect]
    seconds: float
    #: Why it was not played.
    skipped: str | None = None

    @property
    def verdict(self) -> Verdict:
        """``passed`` if every check did."""
        if self.skipped is not None:
            return "skipped"
        return "passed" if all(each.passed for each in self.checks) else "failed"

    @property
    def faults(self) -> list[Check]:
        """The checks that failed."""
        return [each for each in self.checks if not each.passed]


def scenario(name: str, *, title: str, right: str, why: str) -> Callable[[Play], Scenario]:
    """Make the decorated function a scenario: it plays it, and yields its checks."""

    def make(play: Play) -> Scenario:
        return Scenario(name=name, title=title, right=right, why=why, play=play)

    return make


def accepted(attempt: Attempt, what: str) -> Check:
    """Check for a 2xx."""
    return Check(what=f"{what}: 2xx", passed=attempt.is_success, saw=saw(attempt))


def refused(attempt: Attempt, what: str) -> Check:
    """Check for 401 or 403: whoever it is, it is not GoFax."""
    passed = attempt.answer is not None and attempt.answer.status in (401, 403)
    return Check(what=f"{what}: 401 or 403", passed=passed, saw=saw(attempt))


def answered(attempt: Attempt, what: str, *, also: Sequence[int] = range(400, 500)) -> Check:
    """Check for a 2xx or a 4xx, or for the statuses *also*: anything but a crash."""
    passed = attempt.is_success or (attempt.answer is not None and attempt.answer.status in also)
    codes = "a 4xx" if isinstance(also, range) else " or ".join(map(str, also))
    return Check(what=f"{what}: 2xx or {codes}", passed=passed, saw=saw(attempt))


def saw(attempt: Attempt) -> str:
    """Say what came of an attempt."""
    if attempt.answer is None:
        return attempt.error or "no answer"
    return f"{attempt.answer.status} after {attempt.answer.duration.total_seconds():.2f} s"
