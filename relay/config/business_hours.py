"""Business hours in the YAML file, and time zones by name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from relay.config.section import Date, Section
from relay.rules import hours
from relay.rules.hours import DAYS_PATTERN, HOURS_PATTERN, Hours


def _time_zone(value: str) -> str:
    try:
        if value != "UTC":
            ZoneInfo(value)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        raise ValueError(
            "this system knows no such time zone: write one such as Australia/Sydney"
        ) from error
    return value


TimeZone = Annotated[str, AfterValidator(_time_zone)]


def zone(name: str) -> tzinfo:
    """Return the time zone of a valid *name*."""
    # A system without a time zone database knows this one, too.
    return UTC if name == "UTC" else ZoneInfo(name)


def _days(written: str) -> str:
    hours.days(written)
    return written


def _span(written: str) -> str:
    hours.span(written)
    return written


Days = Annotated[str, AfterValidator(_days), Field(json_schema_extra={"pattern": DAYS_PATTERN})]
DayHours = Annotated[
    str, AfterValidator(_span), Field(json_schema_extra={"pattern": HOURS_PATTERN})
]
Several = Annotated[tuple[DayHours, ...], Field(min_length=1)]
DayHoursOrMore = Annotated[
    Several,
    BeforeValidator(
        lambda given: given if isinstance(given, list | tuple) else [given],
        json_schema_input_type=DayHours | Several,
    ),
]


class BusinessHours(Section):
    """When the business is open, for ``when: {hours: …}`` and for what is unusual then."""

    time_zone: TimeZone | None = Field(
        None, description="Time zone of the hours; default: the time_zone of the file"
    )
    days: Mapping[Days, DayHoursOrMore] = Field(
        min_length=1,
        description="Hours by days, such as mon-fri; a day that is not here is closed",
        json_schema_extra={"additionalProperties": False},
    )
    holidays: tuple[Date, ...] = Field((), description="Dates on which no hours begin")

    @field_validator("days")
    @classmethod
    def _each_once(cls, given: Mapping[str, Several]) -> Mapping[str, Several]:
        of_day: dict[int, str] = {}
        for names in given:
            for day in hours.days(names):
                if day in of_day:
                    name = hours.WEEKDAYS[day]
                    raise ValueError(
                        f"{name} is in {of_day[day]} and in {names}: write its hours as one list"
                    )
                of_day[day] = names
        return given

    def resolved(self, *, time_zone: str) -> Hours:
        """Return them for the rules; *time_zone* counts if they name none."""
        return Hours(
            zone=zone(self.time_zone or time_zone),
            week={
                day: tuple(map(hours.span, spans))
                for names, spans in self.days.items()
                for day in hours.days(names)
            },
            holidays=frozenset(self.holidays),
        )
