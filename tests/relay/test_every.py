"""Loops: none ends at an error, and one that cannot go on is told of."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import eventually
from structlog.testing import capture_logs

from relay import every
from relay.every import FAULTY_AFTER, Every
from relay.store import StoreUnavailable

NewLoop = Callable[..., Every]


@pytest.fixture
def new_loop() -> Iterator[NewLoop]:
    """Make a loop that runs, and that errors do not slow down."""
    made: list[Every] = []

    def new_loop(act: Callable[[], Any], seconds: float = 0.001, **options: Any) -> Every:
        made.append(Every("work", seconds, act, away=StoreUnavailable, **options))
        made[-1].start()
        return made[-1]

    yield new_loop
    for each in made:
        each.close(20)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every, "AFTER_ERROR", 0.001)


class Act:
    """Counts its calls; raises the errors of a script, one per call, the last one for good."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        error = self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
        if error is not None:
            raise error


def test_an_unexpected_error_is_logged_with_its_stack_and_the_loop_goes_on(
    new_loop: NewLoop, impatient: None
) -> None:
    act = Act(KeyError("x"), None)

    with capture_logs() as logs:
        loop = new_loop(act)
        eventually(lambda: act.calls > 3)

    (line,) = logs
    assert (line["event"], line["loop"], line["error"]) == ("loop.failed", "work", "KeyError")
    assert (line["log_level"], line["exc_info"].__traceback__ is not None) == ("error", True)
    assert loop.fault is None


def test_the_stack_of_an_error_that_comes_again_is_logged_once(
    new_loop: NewLoop, impatient: None
) -> None:
    act = Act(KeyError("x"), KeyError("x"), ValueError("y"), None)

    with capture_logs() as logs:
        new_loop(act)
        eventually(lambda: act.calls > 3)

    assert [(line["error"], line["exc_info"] is None) for line in logs] == [
        ("KeyError", False), ("KeyError", True), ("ValueError", False),
    ]  # fmt: skip


def test_a_store_that_is_away_is_a_warning_and_no_fault(new_loop: NewLoop) -> None:
    act = Act(StoreUnavailable("locked"))

    with capture_logs() as logs:
        loop = new_loop(act)
        eventually(lambda: act.calls > FAULTY_AFTER)

    assert {(line["event"], line["log_level"]) for line in logs} == {
        ("store.unavailable", "warning")
    }
    assert loop.fault is None


def test_a_loop_that_fails_every_time_is_faulty_until_it_succeeds(
    new_loop: NewLoop, impatient: None
) -> None:
    act = Act(KeyError("x"))
    loop = new_loop(act)

    eventually(lambda: loop.fault)
    assert (loop.fault or "").startswith("work: failed ")
    assert "(KeyError)" in (loop.fault or "")
    assert every.faulty() == [loop]

    act.errors = [None]
    eventually(lambda: loop.fault is None)
    assert every.faulty() == []


def test_a_loop_whose_thread_has_ended_is_faulty(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    loop = new_loop(Act(SystemExit()))

    eventually(lambda: loop.fault == "work: its thread has ended")
    assert every.faulty() == [loop]


def test_a_loop_that_hangs_is_faulty(new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every, "LONGEST_ROUND", 0.02)
    released = threading.Event()

    loop = new_loop(lambda: released.wait(20))

    eventually(lambda: loop.fault)
    assert (loop.fault or "").startswith("work: stuck for ")
    released.set()


def test_a_long_round_that_goes_forward_is_no_fault(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(every, "LONGEST_ROUND", 0.5)
    done = threading.Event()

    def act() -> None:
        ends_at = time.monotonic() + 1.0
        while time.monotonic() < ends_at and not loop.pause(0.01):
            assert loop.fault is None
        done.set()

    loop = Every("work", math.inf, act)
    loop.wake()

    assert done.wait(20)
    assert loop.fault is None
    loop.close()


def test_a_loop_acts_when_it_is_woken_and_starts_by_that(new_loop: NewLoop) -> None:
    act = Act(None)
    loop = Every("work", math.inf, act)

    for calls in (1, 2):
        loop.wake()
        eventually(lambda calls=calls: act.calls == calls)
    loop.close()
    loop.wake()

    assert act.calls == 2


def test_the_first_round_has_a_time_of_its_own(new_loop: NewLoop) -> None:
    soon, late = Act(None), Act(None)
    new_loop(late, 0.001, first=60)
    new_loop(soon, 60, first=0)

    eventually(lambda: soon.calls)
    assert (soon.calls, late.calls) == (1, 0)


def test_a_loop_that_is_closed_is_in_no_fault(new_loop: NewLoop, impatient: None) -> None:
    loop = new_loop(Act(KeyError("x")))
    eventually(lambda: loop.fault)

    loop.close()

    assert loop.fault is None
    assert every.faulty() == []
