"""When is a business open? By the clock on its wall, whatever the sun and the holidays do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.rules.hours import Hours, Span, days, is_open, open_time, span

SYDNEY = ZoneInfo("Australia/Sydney")


def hours(zone: str = "Australia/Sydney", *holidays: str, **week: str) -> Hours:
    return Hours(
        zone=ZoneInfo(zone),
        week={
            day: [span(each) for each in written.split(",")]
            for names, written in week.items()
            for day in days(names.replace("_", "-"))
        },
        holidays=frozenset(map(date.fromisoformat, holidays)),
    )


OFFICE = hours(
    "Australia/Sydney", "2026-12-25", "2026-12-28", mon_fri="9:00-17:30", sat="9:00-12:00"
)
LUNCH = hours(mon="9:00-12:00,13:00-17:00")
NIGHT = hours("Australia/Sydney", "2026-12-26", fri_sat="22:00-06:00")
ROUND_THE_CLOCK = hours(mon_sun="0:00-24:00")
#: On Sunday 4 October 2026 Sydney's clocks go from 2:00 to 3:00, on 5 April from 3:00 to 2:00.
SMALL_HOURS = hours(sun="1:00-2:30")
IN_THE_GAP = hours(sun="2:30-5:00")
NEW_YORK = hours("America/New_York", mon_fri="9:00-17:00")


@pytest.mark.parametrize(
    ("moment", "when", "expected"),
    [
        # Sydney is 11 hours before UTC in summer, 10 in winter.
        ("2026-11-23T21:59:59Z", OFFICE, False),  # Tuesday, a second before nine
        ("2026-11-23T22:00:00Z", OFFICE, True),  # the first moment counts
        ("2026-11-24T06:29:59Z", OFFICE, True),
        ("2026-11-24T06:30:00Z", OFFICE, False),  # the last does not
        ("2026-06-22T22:30:00Z", OFFICE, False),  # in winter, half past eight
        ("2026-06-22T23:00:00Z", OFFICE, True),
        ("2026-11-28T00:00:00Z", OFFICE, True),  # Saturday in Sydney, still Friday evening in Rio
        ("2026-11-28T01:00:00Z", OFFICE, False),  # Saturday noon
        ("2026-11-29T00:00:00Z", OFFICE, False),  # Sunday, of which nothing is written
        ("2026-12-24T22:30:00Z", OFFICE, False),  # Christmas has begun in Sydney
        ("2026-12-24T05:00:00Z", OFFICE, True),  # and not yet here
        ("2026-12-28T00:00:00Z", OFFICE, False),  # a Monday that is a holiday
        ("2026-12-29T00:00:00Z", OFFICE, True),
        ("2026-11-23T01:30:00Z", LUNCH, False),
        ("2026-11-23T02:00:00Z", LUNCH, True),
        ("2026-11-27T12:00:00Z", NIGHT, True),  # Friday 23:00
        ("2026-11-27T13:00:00Z", NIGHT, True),  # midnight
        ("2026-11-27T18:59:59Z", NIGHT, True),  # Saturday 05:59:59
        ("2026-11-27T19:00:00Z", NIGHT, False),
        ("2026-11-28T18:00:00Z", NIGHT, True),  # Sunday 05:00: Saturday's
        ("2026-11-29T12:00:00Z", NIGHT, False),  # Sunday night
        ("2026-12-25T14:00:00Z", NIGHT, True),  # 1:00 on the holiday: Friday's hours go on
        ("2026-12-26T12:00:00Z", NIGHT, False),  # 23:00 on it
        ("2026-12-26T14:00:00Z", NIGHT, False),  # and what would have gone on after it
        ("2026-11-28T13:00:00Z", ROUND_THE_CLOCK, True),
        ("2026-11-28T12:59:59Z", ROUND_THE_CLOCK, True),
        # 2:15 comes twice and is open twice; 2:45 is not.
        ("2026-04-04T15:15:00Z", SMALL_HOURS, True),
        ("2026-04-04T15:45:00Z", SMALL_HOURS, False),
        ("2026-04-04T16:15:00Z", SMALL_HOURS, True),
        ("2026-04-04T16:45:00Z", SMALL_HOURS, False),
        # After 1:59:59 comes 3:00: half past two has passed.
        ("2026-10-03T15:59:59Z", IN_THE_GAP, False),
        ("2026-10-03T16:00:00Z", IN_THE_GAP, True),
        ("2026-10-03T16:00:00Z", SMALL_HOURS, False),
        # The weeks in which one hemisphere has changed its clocks and the other has not.
        ("2026-03-09T13:00:00Z", NEW_YORK, True),
        ("2026-03-06T13:30:00Z", NEW_YORK, False),
        ("2026-11-02T13:30:00Z", NEW_YORK, False),
        ("2026-11-02T14:00:00Z", NEW_YORK, True),
    ],
)  # fmt: skip
def test_it_is_open(moment: str, when: Hours, expected: bool) -> None:
    assert is_open(datetime.fromisoformat(moment), when) is expected


def test_a_moment_may_come_in_any_zone() -> None:
    nine = datetime(2026, 11, 24, 9, tzinfo=SYDNEY)

    assert is_open(nine, OFFICE)
    assert is_open(nine.astimezone(UTC), OFFICE)
    assert not is_open(nine.astimezone(ZoneInfo("Europe/London")) - timedelta(seconds=1), OFFICE)


@pytest.mark.parametrize(
    ("since", "until", "when", "expected"),
    [
        ("2026-11-24T09:00", "2026-11-24T10:30", OFFICE, 1.5),
        ("2026-11-24T08:00", "2026-11-24T18:00", OFFICE, 8.5),
        ("2026-11-27T17:00", "2026-11-30T10:00", OFFICE, 0.5 + 3 + 1),  # over a weekend
        ("2026-12-24T17:00", "2026-12-29T10:00", OFFICE, 0.5 + 3 + 1),  # Christmas and its Monday
        ("2026-11-28T12:00", "2026-11-30T09:00", OFFICE, 0),
        ("2026-11-24T10:00", "2026-11-24T10:00", OFFICE, 0),
        ("2026-11-24T10:00", "2026-11-24T09:30", OFFICE, 0),  # a clock that went back
        ("2026-11-23T11:00", "2026-11-23T14:00", LUNCH, 2),
        ("2026-11-27T20:00", "2026-11-28T05:00", NIGHT, 7),
        ("2026-11-28T05:00", "2026-11-28T23:00", NIGHT, 2),
        ("2026-11-01T00:00", "2026-11-08T00:00", ROUND_THE_CLOCK, 168),
    ],
)
def test_open_time(since: str, until: str, when: Hours, expected: float) -> None:
    begin, end = (datetime.fromisoformat(each).replace(tzinfo=SYDNEY) for each in (since, until))

    assert open_time(when, since=begin, until=end) == timedelta(hours=expected)


def test_hours_that_overlap_count_once() -> None:
    doubled = hours(mon="9:00-12:00,10:00-11:00,11:30-13:00", sun="20:00-10:00")
    begin = datetime(2026, 11, 23, tzinfo=SYDNEY)

    found = open_time(doubled, since=begin, until=begin + timedelta(days=1))

    assert found == timedelta(hours=13)


@given(
    st.timedeltas(timedelta(), timedelta(days=700)), st.timedeltas(timedelta(), timedelta(days=9))
)
def test_open_time_is_never_more_than_the_time(after: timedelta, wait: timedelta) -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC) + after
    found = open_time(OFFICE, since=since, until=since + wait)

    assert timedelta() <= found <= wait + timedelta(hours=1)
    if not wait:
        assert not found


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("9-17", "write hours such as 9:00-17:30"),
        ("9:00 to 17:00", "write hours such as"),
        ("9:00-25:00", "25:00 is no time of a day"),
        ("9:60-10:00", "9:60 is no time of a day"),
        ("24:00-3:00", "hours begin before 24:00"),
        ("9:00-9:00", "write 0:00-24:00 for the whole day"),
    ],
)
def test_hours_that_cannot_be_read_are_a_fault(written: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        span(written)


def test_hours_are_read_with_blanks_and_leading_zeros() -> None:
    assert span(" 09:00 - 17:30 ") == Span(timedelta(hours=9), timedelta(hours=17.5))
    assert span("22:00-0:00") == Span(timedelta(hours=22), timedelta(hours=24))


def test_a_day_that_cannot_be_read_is_a_fault() -> None:
    with pytest.raises(ValueError, match="write a day such as mon, or days such as mon-fri"):
        days("monday")
