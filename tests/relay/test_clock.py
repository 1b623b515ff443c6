"""The relay's clock: ahead with the machine's, never back with it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from fakes import NOON, Clock
from hypothesis import given
from hypothesis import strategies as st

from relay.clock import SteadyClock

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


class Machine:
    """A machine whose clock can be set."""

    def __init__(self) -> None:
        self.wall = Clock()
        self.elapsed = 0.0
        self.steady = SteadyClock(now=self.wall, elapsed=lambda: self.elapsed)

    def run(self, seconds: float) -> None:
        self.elapsed += seconds
        self.wall.advance(seconds)

    def put(self, change: timedelta) -> None:
        self.wall.advance(change.total_seconds())


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_it_goes_with_the_machine(machine: Machine) -> None:
    machine.run(5)

    assert machine.steady() == NOON + 5 * SECOND


def test_it_goes_forward_with_a_clock_that_is_put_forward(machine: Machine) -> None:
    machine.put(HOUR)

    assert machine.steady() == NOON + HOUR


def test_it_goes_on_by_itself_when_the_clock_is_put_back(machine: Machine) -> None:
    machine.put(-HOUR)
    machine.run(7)

    assert machine.steady() == NOON + 7 * SECOND


def test_it_goes_with_the_machine_again_once_that_has_caught_up(machine: Machine) -> None:
    machine.put(-HOUR)
    machine.steady()
    machine.run(100)
    machine.put(2 * HOUR)

    assert machine.steady() == NOON + HOUR + 100 * SECOND


def test_a_clock_that_is_steered_is_followed(machine: Machine) -> None:
    machine.run(100)
    machine.put(-SECOND / 2)

    assert machine.steady() == NOON + 99.5 * SECOND


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e5, 1e5)), max_size=30))
def test_it_never_goes_back(changes: list[tuple[float, float]]) -> None:
    machine = Machine()
    seen: list[datetime] = [machine.steady()]
    for seconds, jump in changes:
        machine.run(seconds)
        machine.put(timedelta(seconds=jump))
        seen.append(machine.steady())

    assert seen == sorted(seen)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e5, 1e5)), max_size=30))
def test_it_is_never_behind_the_machine_nor_further_ahead_than_that_was_put_back(
    changes: list[tuple[float, float]],
) -> None:
    machine, ahead = Machine(), timedelta()
    for seconds, jump in changes:
        machine.run(seconds)
        machine.put(timedelta(seconds=jump))
        ahead += timedelta(seconds=max(-jump, 0))

        assert timedelta() <= machine.steady() - machine.wall() <= ahead + SECOND / 1000


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e5, -1)), max_size=30))
def test_a_wait_lasts_as_long_as_it_says_while_the_clock_is_put_back(
    changes: list[tuple[float, float]],
) -> None:
    machine, waited = Machine(), 0.0
    for seconds, jump in changes:
        machine.run(seconds)
        machine.put(timedelta(seconds=jump))
        waited += seconds

        assert abs(machine.steady() - NOON - waited * SECOND) <= SECOND / 1000
