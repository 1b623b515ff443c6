"""Limits on callers: shares of the threads, and rates."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.callers import ALWAYS, Callers, Rates, TooMany, share
from relay.rules import units


@pytest.mark.parametrize(
    ("held", "callers", "most"),
    [
        # Nobody is there yet, or one: half of 512 threads.
        (0, 0, 256),
        (200, 1, 256),
        # The more there are, the less for each.
        (200, 2, 128),
        (300, 10, 25),
        (300, 50, 5),
        (383, 300, ALWAYS),
        # The last quarter is for those that hold next to none.
        (384, 1, ALWAYS),
        (512, 400, ALWAYS),
    ],
)
def test_a_caller_may_hold_a_share(held: int, callers: int, most: int) -> None:
    assert share(512, held=held, callers=callers) == most


def _taken(callers: Callers, name: str, stack: ExitStack, *, tries: int) -> int:
    """Return how many bodies of a caller are let in, which all stay."""
    for number in range(tries):
        try:
            stack.enter_context(callers.reading(name))
        except TooMany:
            return number
    return tries


def test_a_caller_that_has_its_share_is_let_in_again_when_a_body_was_read() -> None:
    callers = Callers(threads=8)
    with ExitStack() as stack:
        assert _taken(callers, "a", stack, tries=3) == 3
        with callers.reading("a"), pytest.raises(TooMany, match="a: reads 4 bodies already"):
            stack.enter_context(callers.reading("a"))
        with callers.reading("a"):
            pass

    assert _taken(callers, "a", ExitStack(), tries=9) == 4


def test_a_body_that_breaks_off_is_no_longer_held() -> None:
    callers = Callers(threads=8)
    for _ in range(20):
        with pytest.raises(OSError, match="gone"), callers.reading("a"):
            raise OSError("gone")

    assert _taken(callers, "b", ExitStack(), tries=9) == 4


@given(tries=st.lists(st.integers(1, 600), min_size=1, max_size=60))
def test_sixty_callers_leave_threads_for_one_more(tries: list[int]) -> None:
    callers = Callers(threads=512)
    with ExitStack() as stack:
        held = sum(
            _taken(callers, f"slow-{number}", stack, tries=count)
            for number, count in enumerate(tries)
        )

        assert held <= 512 - ALWAYS
        assert _taken(callers, "honest", stack, tries=ALWAYS) == ALWAYS


def test_a_rate_may_span_less_than_a_second() -> None:
    now = 0.0
    rates, limit = Rates(clock=lambda: now), units.rate("3/300ms")

    assert [rates.over(limit, "a") for _ in range(5)] == [0, 0, 0, 1, 1]
    now = 0.29
    assert rates.over(limit, "a") == 1
    now = 0.3
    assert [rates.over(limit, "a") for _ in range(4)] == [0, 0, 0, 1]


def test_who_called_longest_ago_is_forgiven_where_memory_ends() -> None:
    rates, limit = Rates(room=4, clock=lambda: 0.0), units.rate("2/1m")
    for who in ("a", "a", "b", "b", "a"):
        rates.over(limit, who)

    # Whoever goes on calling is remembered, though what it called is refused.
    rates.over(limit, "c")
    assert [rates.over(limit, who) > 0 for who in ("a", "b")] == [True, False]
    assert len(rates._times) <= 4
    many = Rates(room=1, clock=lambda: 0.0)
    assert [many.over(limit, "a") > 0 for _ in range(3)] == [False, False, True]
