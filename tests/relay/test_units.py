"""Times, sizes and rates, as people write them and as they do not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from relay.rules.units import Duration, Rate, RateLimit, Size, duration, rate, size

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def test_a_time_is_read() -> None:
    rows = [
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("90d", timedelta(days=90)),
        ("2w", timedelta(weeks=2)),
        ("250ms", timedelta(milliseconds=250)),  # not 250 minutes and a stray s
        ("5m250ms", timedelta(minutes=5, milliseconds=250)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("0s", timedelta()),
        (" 30s ", timedelta(seconds=30)),
        (timedelta(days=1), timedelta(days=1)),  # a default, already read
    ]

    wrong = [
        (written, got) for written, expected in rows if (got := duration(written)) != expected
    ]

    assert wrong == []


def test_what_is_no_time_says_how_to_write_one() -> None:
    rows = [
        "", " ", "30", "s", "30 s", "-5s", "5S", "5min", "1h 30m", "1.h", ".5h", "5s!", "P1D",
        30, 30.0, True, None, ["30s"],
    ]  # fmt: skip

    for written in rows:
        with pytest.raises(ValueError, match="^write a time such as 30s, 5m, 1h30m or 90d$"):
            duration(written)


def test_a_time_has_an_end() -> None:
    rows = ["9999999999w", "9" * 400 + "s"]

    for written in rows:
        with pytest.raises(ValueError, match="^too long$"):
            duration(written)


@given(st.integers(0, 10**9))
def test_any_number_of_seconds_is_read(seconds: int) -> None:
    assert duration(f"{seconds}s") == timedelta(seconds=seconds)


def test_a_size_is_read() -> None:
    rows = [
        ("1B", 1),
        ("64KiB", 65_536),
        ("64 KiB", 65_536),
        ("64kib", 65_536),
        ("64KB", 64_000),
        ("1MB", 1_000_000),
        ("1MiB", 1_048_576),
        ("2GB", 2_000_000_000),
        ("2GiB", 2_147_483_648),
        (" 1MB ", 1_000_000),
        (65_536, 65_536),
    ]

    wrong = [(written, got) for written, expected in rows if (got := size(written)) != expected]

    assert wrong == []


def test_what_is_no_size_says_how_to_write_one() -> None:
    rows = ["", "64", "64K", "1.5MB", "-1B", "1TB", "iB", "0B", "0KiB", 0, -1, 1.5, True, None]

    for written in rows:
        with pytest.raises(ValueError, match="^write a size such as 64KiB or 1MB$"):
            size(written)


def test_a_rate_is_read() -> None:
    rows = [
        ("100/10s", RateLimit(100, timedelta(seconds=10))),
        ("4/1s", RateLimit(4, timedelta(seconds=1))),
        ("1 / 1m30s", RateLimit(1, timedelta(seconds=90))),
        (" 5/1h ", RateLimit(5, timedelta(hours=1))),
        ("999999999/1ms", RateLimit(999_999_999, timedelta(milliseconds=1))),
        (RateLimit(1, timedelta(1)), RateLimit(1, timedelta(1))),  # already read
    ]

    wrong = [(written, got) for written, expected in rows if (got := rate(written)) != expected]

    assert wrong == []


def test_what_is_no_rate_says_how_to_write_one() -> None:
    rows = ["", "100", "0/1s", "01/1s", "-1/1s", "1.5/1s", "1/", "/1s", "1000000000/1s", 4, None]

    for written in rows:
        with pytest.raises(ValueError, match="^write a rate such as 100/10s or 4/1s$"):
            rate(written)


def test_a_rate_needs_a_time() -> None:
    rows = [
        ("4/s", "write a time such as"),
        ("4/1", "write a time such as"),
        ("4/0s", "a rate needs a time longer than zero"),
    ]

    for written, words in rows:
        with pytest.raises(ValueError, match=words):
            rate(written)


#: What people write, and what comes close to it.
WRITTEN = st.text(
    alphabet="0123456789.-+eE/ msMhdwkKgGiIbB\u0661\u00b2\u0130\u0131\u212a", max_size=12
)


@given(st.text() | WRITTEN)
@example("1\u212aB")  # the sign of Kelvin is a K to those who ignore case
@example("1K\u0130B")
@example("\u0661KiB")
def test_any_text_is_read_or_said_to_be_a_fault(text: str) -> None:
    for read in (duration, size, rate):
        try:
            value = read(text)
        except ValueError as error:
            assert str(error)
        else:
            assert value == timedelta() or value


@given(st.integers(1, 999_999_999), st.timedeltas(min_value=timedelta(microseconds=1)))
@example(1, timedelta(microseconds=1))
def test_any_rate_is_written_as_it_is_read(count: int, period: timedelta) -> None:
    limit = RateLimit(count, period)

    again = rate(str(limit))

    # A hundred years of microseconds are more than a float can tell apart.
    assert again.count == count
    assert abs(again.period - period) <= period * 1e-15


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.sampled_from(list(UNITS))), min_size=1, max_size=5
    )
)
def test_parts_of_a_time_add_up(parts: list[tuple[int, str]]) -> None:
    written = "".join(f"{count}{unit}" for count, unit in parts)

    added = sum((count * UNITS[unit] for count, unit in parts), timedelta())

    assert abs(duration(written) - added) <= timedelta(microseconds=1 + added.days / 1000)


def test_a_rate_is_written_as_it_is_read() -> None:
    rows = [
        (RateLimit(100, timedelta(seconds=10)), "100/10s"),
        (RateLimit(1, timedelta(milliseconds=500)), "1/0.5s"),
        (RateLimit(7, timedelta(days=12)), "7/1036800s"),
        (RateLimit(1, timedelta(microseconds=50)), "1/0.00005s"),  # not 1/5e-05s
    ]

    for limit, written in rows:
        assert (str(limit), rate(written)) == (written, limit)


FLOW_BOT = RateLimit(25, timedelta(minutes=5), burst=5)


def test_a_burst_is_written_with_its_rate() -> None:
    assert str(FLOW_BOT) == "25/300s, 5 at once"
    assert str(RateLimit(4, timedelta(seconds=1), burst=5)) == "4/1s"


def test_after_a_burst_the_rest_of_a_rate_is_spread_evenly() -> None:
    started: list[float] = []
    for second in range(1000):
        now = NOON + timedelta(seconds=second)
        recent = [each for each in started if second - each < 300]
        room = FLOW_BOT.room([NOON + timedelta(seconds=each) for each in recent], now=now)
        started += [second] * room

    assert started[:5] == [0] * 5
    assert started[5:] == list(range(15, 1000, 15))


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.integers(0, 90), max_size=60),
)
def test_whenever_it_is_asked_no_span_holds_more_than_the_rate(
    count: int, burst: int, pauses: list[int]
) -> None:
    limit, now = RateLimit(count, timedelta(seconds=60), burst=burst), NOON
    started: list[datetime] = []
    for pause in pauses:
        now += timedelta(seconds=pause)
        recent = [each for each in started if now - each < limit.memory]
        room = limit.room(recent, now=now)
        assert room <= min(burst, count)
        started += [now] * room

    for begin in started:
        assert sum(begin <= each < begin + limit.period for each in started) <= count


@pytest.mark.parametrize("limit", [FLOW_BOT, RateLimit(10, timedelta(seconds=8), burst=8)])
def test_after_a_rest_there_is_room_for_a_burst(limit: RateLimit) -> None:
    burst = [NOON] * (limit.burst or 0)

    assert limit.room([], now=NOON) == len(burst)
    assert limit.room(burst, now=NOON) == 0
    assert limit.room(burst, now=NOON + limit.memory) == len(burst)


def test_a_rate_without_a_burst_may_come_at_once() -> None:
    limit = RateLimit(3, timedelta(seconds=10))
    long_ago, ahead = NOON - limit.period, NOON + timedelta(seconds=2)

    assert limit.room([], now=NOON) == 3
    assert limit.room([ahead, NOON, long_ago], now=NOON) == 1
    assert limit.room([NOON] * 5, now=NOON) == 0


def test_models_read_all_three() -> None:
    assert TypeAdapter(Duration).validate_python("5s") == timedelta(seconds=5)
    assert TypeAdapter(Size).validate_python("1KB") == 1000
    assert TypeAdapter(Rate).validate_python("1/1s") == RateLimit(1, timedelta(seconds=1))


def test_models_name_the_fault() -> None:
    rows = [Duration, Size, Rate]

    for kind in rows:
        with pytest.raises(ValidationError, match="write a (time|size|rate) such as"):
            TypeAdapter(kind).validate_python("plenty")
