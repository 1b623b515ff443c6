"""How a time is written: for programs by ISO 8601, for people in their time zone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import overload

#: Writes a time for people.
ShowTime = Callable[[datetime], str]


@overload
def iso(time: datetime) -> str: ...
@overload
def iso(time: None) -> None: ...
@overload
def iso(time: datetime | None) -> str | None: ...
def iso(time: datetime | None) -> str | None:
    """Write a time for programs."""
    return None if time is None else time.isoformat()


def full_time(time: datetime, *, zone: tzinfo = UTC) -> str:
    """Write a time for people, in full."""
    local = time.astimezone(zone)
    return local.strftime("%Y-%m-%d %H:%M:%S") + zone_of(local, zone)


def zone_of(local: datetime, zone: tzinfo) -> str:
    """Write the zone of a time for people."""
    return "Z" if zone is UTC else f" {local:%Z}"
