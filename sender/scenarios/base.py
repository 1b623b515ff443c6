"""Scenarios: what each does to a receiver, what the right answer is, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sender.attempt import Attempt

if TYPE_CHECKING:
    from sender.scenarios.stage import Stage

Verdict = Literal["passed", "failed", "skipped"]

#: Why 400 is no good answer to a bad signature.
NOT_400 = "400 says that a request is unreadable; 401 or 403 says that its secret is wrong"


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that a right receiver does, and whether this one did."""

    what: str
    passed: bool
    #: What was seen.
    saw: str
    #: What would be better, though it is not wrong.
    warning: str | None = None


class Skip(Exception):
    """The scenario cannot be played here; the text says what it would need."""


Play = Callable[["Stage"], Iterator[Check]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """One thing that happens to webhook receivers."""

    name: str
    #: What is done, in a few words.
    title: str
    #: What a right receiver answers, and which effects follow.
    right: str
    #: Why that is right.
    why: str
    play: Play


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """How often an event must take effect in the receiver, whatever was answered."""

    message_id: str
    #: Whether its text holds its id too, so that records show it.
    is_in_text: bool
    #: Bounds of how often it takes effect.
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

    @property
    def warnings(self) -> list[str]:
        """The warnings of its checks, each once."""
        return list(dict.fromkeys(each.warning for each in self.checks if each.warning))


def scenario(name: str, *, title: str, right: str, why: str) -> Callable[[Play], Scenario]:
    """Make the decorated function a scenario: it plays it, and yields its checks."""

    def make(play: Play) -> Scenario:
        return Scenario(name=name, title=title, right=right, why=why, play=play)

    return make


def accepted(attempt: Attempt, what: str) -> Check:
    """Check for a 2xx."""
    return Check(what=f"{what}: 2xx", passed=attempt.is_success, saw=saw(attempt))


def refused(attempt: Attempt, what: str) -> Check:
    """Check for 401 or 403; 400 passes with a warning."""
    status = attempt.answer.status if attempt.answer else None
    return Check(
        what=f"{what}: 401 or 403",
        passed=status in (400, 401, 403),
        saw=saw(attempt),
        warning=NOT_400 if status == 400 else None,
    )


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
