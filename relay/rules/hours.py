"""Is the business open? Hours by weekday, with holidays, by the clock on its wall.

The wall's clock settles what daylight saving does to a day: an hour that comes twice is open twice
if it is open at all, and hours that begin in an hour that is left out begin when it would have.
Hours belong to the day on which they begin: what begins on Friday at 22:00 and ends at 06:00 is
Friday's, also after midnight, and a holiday on Saturday does not end it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Day of a weekday, or a range of them, and hours, as people write them.
DAYS_PATTERN = rf"^({'|'.join(WEEKDAYS)})(-({'|'.join(WEEKDAYS)}))?$"
HOURS_PATTERN = r"^\s*\d{1,2}:\d{2}\s*-\s*\d{1,2}:\d{2}\s*$"

_DAYS = re.compile(DAYS_PATTERN)
_HOURS = re.compile(r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*", re.ASCII)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Span:
    """Hours of one day, counted from its midnight; an end above 24 hours is on the next day."""

    begin: timedelta
    end: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Hours:
    """When a business is open."""

    zone: tzinfo
    #: By weekday, Monday is 0; a day that is not here is closed.
    week: Mapping[int, Sequence[Span]]
    holidays: frozenset[date] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Silence:
    """How long a silence may be."""

    longest: timedelta
    #: When the business is open: no other time counts; None: all of it does.
    hours: Hours | None = None


def is_open(moment: datetime, hours: Hours) -> bool:
    """Return whether the business is open at *moment*."""
    wall = _on_the_wall(moment, hours)
    return any(begin <= wall < end for begin, end in _open(hours, wall.date(), wall.date()))


def open_time(hours: Hours, *, since: datetime, until: datetime) -> timedelta:
    """Return how long the business was open between two moments."""
    at, end_of_all = _on_the_wall(since, hours), _on_the_wall(until, hours)
    total = timedelta()
    for begin, end in sorted(_open(hours, at.date(), end_of_all.date())):
        # Hours of one day may overlap others, and count once.
        begin, end = max(begin, at), min(end, end_of_all)
        if end > begin:
            total += end - begin
            at = end
    return total


def is_always_open(hours: Hours) -> bool:
    """Return whether the business never closes."""
    begin, week = datetime(2026, 1, 5, tzinfo=UTC), timedelta(days=7)
    # A week without daylight saving shows what all of them do.
    plain = replace(hours, zone=UTC)
    return not hours.holidays and open_time(plain, since=begin, until=begin + week) == week


def days(written: str) -> list[int]:
    """Read ``mon`` or ``mon-fri``; Monday is 0. Raises ValueError.

    >>> days("mon"), days("mon-fri"), days("sat-sun"), days("fri-mon")
    ([0], [0, 1, 2, 3, 4], [5, 6], [4, 5, 6, 0])
    """
    found = _DAYS.fullmatch(written.strip().lower())
    if not found:
        raise ValueError(
            f"write a day such as mon, or days such as mon-fri ({', '.join(WEEKDAYS)})"
        )
    first = WEEKDAYS.index(found[1])
    last = WEEKDAYS.index(found[3] or found[1])
    return [(first + step) % 7 for step in range((last - first) % 7 + 1)]


def span(written: str) -> Span:
    """Read ``9:00-17:30``; an end that is not after the begin is on the next day.

    Raises ValueError.
    """
    found = _HOURS.fullmatch(written)
    if not found:
        raise ValueError("write hours such as 9:00-17:30")
    begin, end = (_clock(found[1], found[2]), _clock(found[3], found[4]))
    if begin >= _DAY:
        raise ValueError("hours begin before 24:00")
    if begin == end:
        raise ValueError("begin and end are the same: write 0:00-24:00 for the whole day")
    return Span(begin, end if end > begin else end + _DAY)


def _clock(hours: str, minutes: str) -> timedelta:
    at = timedelta(hours=int(hours), minutes=int(minutes))
    if int(minutes) > 59 or at > _DAY:
        raise ValueError(f"{hours}:{minutes} is no time of a day")
    return at


def _on_the_wall(moment: datetime, hours: Hours) -> datetime:
    return moment.astimezone(hours.zone).replace(tzinfo=None, fold=0)


def _open(hours: Hours, first: date, last: date) -> Iterator[tuple[datetime, datetime]]:
    """Yield when hours begin and end that touch a day from *first* to *last*."""
    # Hours that began yesterday may go on after midnight.
    for number in range((last - first).days + 2):
        day = first + timedelta(days=number - 1)
        if day in hours.holidays:
            continue
        midnight = datetime.combine(day, time())
        for each in hours.week.get(day.weekday(), ()):
            yield midnight + each.begin, midnight + each.end
