"""Business hours in the config: zones, days, and routes that ask for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_files import (
    ENDPOINT,
    Faults,
    Read,
)

from relay.config.document import ConfigError


def test_faults_of_business_hours_are_named_with_their_lines(faults: Faults) -> None:
    text = f"""{ENDPOINT}
business_hours:
  time_zone: Sydney
  days:
    mon-fri: 9-17
    monday: "9:00-17:00"
    sat: ["9:00-12:00", "9:00-29:00"]
    sun:
  holidays: [25 December, 20261225]
"""

    found = faults(text)

    dates = "write a date such as 2026-12-25"
    assert found == [
        "4: business_hours.time_zone: this system knows no such time zone: write one such as "
        "Australia/Sydney",
        "6: business_hours.days.mon-fri[0]: write hours such as 9:00-17:30",
        "7: business_hours.days.monday: write a day such as mon, or days such as mon-fri "
        "(mon, tue, wed, thu, fri, sat, sun)",
        "8: business_hours.days.sat[1]: 29:00 is no time of a day",
        "9: business_hours.days.sun[0]: input should be a valid string",
        f"10: business_hours.holidays[0]: {dates}",
        f"10: business_hours.holidays[1]: {dates}",
    ]


def test_a_day_has_its_hours_in_one_place(faults: Faults) -> None:
    text = f'{ENDPOINT}business_hours: {{days: {{mon-fri: "9:00-17:00", fri-sun: "9:00-12:00"}}}}'

    [fault] = faults(text)

    assert "business_hours.days: fri is in mon-fri and in fri-sun: write its hours as one" in fault


def test_business_hours_are_in_the_zone_of_the_file_or_their_own(read: Read) -> None:
    said = 'business_hours: {days: {mon: "9:00-17:00"}%s}'

    zones = [
        read(f"{ENDPOINT}time_zone: Australia/Sydney\n{said % own}").hours
        for own in ("", ", time_zone: Australia/Perth")
    ]

    assert [str(each and each.zone) for each in zones] == ["Australia/Sydney", "Australia/Perth"]
    assert read(ENDPOINT).hours is None


@pytest.mark.parametrize(
    ("said", "is_fault"),
    [
        ('{mon-sun: "0:00-24:00"}', True),
        ('{mon-sun: ["12:00-0:00", "0:00-12:00"]}', True),
        ('{mon-sat: "0:00-24:00"}', False),
        ('{mon-sun: "0:00-24:00"}, holidays: [2026-12-25]', False),
    ],
)
def test_a_route_for_closed_hours_needs_some(
    read: Read, file: Path, said: str, is_fault: bool
) -> None:
    text = f"""{ENDPOINT}
destinations: {{a: {{connector: plain}}}}
business_hours: {{days: {said}}}
routes: [{{to: [a], when: {{not: {{hours: closed}}}}}}]
"""

    if not is_fault:
        read(text)
        return
    with pytest.raises(ConfigError, match=r":5: routes.* never holds: business_hours have no end"):
        read(text)


def test_a_route_by_the_hours_needs_business_hours(read: Read) -> None:
    text = f"{ENDPOINT}\nroutes: [{{to: [a], when: {{any: [{{hours: open}}]}}}}]"

    with pytest.raises(ConfigError, match="nobody knows the hours without business_hours at the"):
        read(text)
