"""How times, numbers and states are said on pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, tzinfo
from typing import Any

from flask import g
from markupsafe import Markup

from relay.api.services import services
from relay.rules.delivery import State

_DAY = timedelta(days=1)
#: Spans and how they are said, largest first.
_SPANS = (
    (timedelta(days=365), "year"),
    (timedelta(days=30), "month"),
    (_DAY, "day"),
    (timedelta(hours=1), "h"),
    (timedelta(minutes=1), "min"),
)
#: What a delivery is doing, for people who never read a manual.
STATES: Mapping[State, str] = {
    State.WAITING: "waits its turn",
    State.PENDING: "will be sent",
    State.IN_FLIGHT: "being sent",
    State.DELIVERED: "arrived",
    State.DEAD: "did not arrive",
    State.HELD: "needs a decision",
}


def zone() -> tzinfo:
    return services().config.zone


def now() -> datetime:
    if "now" not in g:
        g.now = services().now()
    found: datetime = g.now
    return found


def ago(time: datetime, at: datetime) -> str:
    """Say how long before (or after) *at* a time is: ``2 h ago``, ``in 5 min``."""
    span = abs(at - time)
    if time > at and span > timedelta(minutes=1):
        # In two hours, said a moment after it was asked for, is no "in 1 h".
        span = -(-span // timedelta(minutes=1)) * timedelta(minutes=1)
    for length, name in _SPANS:
        if span >= length:
            number = span // length
            plural = "s" if number != 1 and name not in ("h", "min") else ""
            said = f"{number} {name}{plural}"
            return f"{said} ago" if time <= at else f"in {said}"
    return "just now" if time <= at else "in a moment"


def brief(time: datetime, at: datetime, zone: tzinfo) -> str:
    """Write a time as short as it is clear: ``10:04``, ``Tue 10:04``, ``24 Nov 2025``."""
    local, today = time.astimezone(zone), at.astimezone(zone)
    if local.date() == today.date():
        return f"{local:%H:%M}"
    if timedelta() < today - local < 6 * _DAY:
        return f"{local:%a %H:%M}"
    if local.year == today.year:
        return f"{local.day} {local:%b %H:%M}"
    return f"{local.day} {local:%b %Y}"


def when(time: datetime | None) -> Markup | str:
    """Return a time as ``10:04, 2 h ago``, with the full one on hover."""
    if time is None:
        return "never"
    full = time.astimezone(zone())
    return Markup('<time datetime="{}" title="{}">{}<span class="ago">, {}</span></time>').format(
        time.isoformat(timespec="seconds"),
        f"{full:%A} {full.day} {full:%B %Y, %H:%M:%S %Z}",
        brief(time, now(), zone()),
        ago(time, now()),
    )


def clock(time: datetime | None) -> Markup | str:
    """Return a time without how long ago it is, for tables and chats."""
    if time is None:
        return ""
    full = time.astimezone(zone())
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        time.isoformat(timespec="seconds"),
        f"{full:%A} {full.day} {full:%B %Y, %H:%M:%S %Z}",
        brief(time, now(), zone()),
    )


def hour(time: datetime) -> str:
    """Write a time for the axis of the chart."""
    return brief(time, now(), zone())


def day(time: datetime | None) -> str:
    """Write the day of a time of which no more is known."""
    return "never" if time is None else f"{time.astimezone(zone()):%-d %b %Y}"


def pretty(value: Any) -> str:
    """Write JSON for people; text is as it is."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def count(number: int, one: str, many: str) -> str:
    """Write a number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def foreign(text: Any) -> Markup:
    """Return text that strangers wrote, isolated so that its direction changes nothing else."""
    return Markup('<bdi dir="auto">{}</bdi>').format(_visible(str(text))) if text else Markup("")


def lines(text: str | None) -> Markup:
    """Return a text of several lines that strangers wrote."""
    return Markup("<br>").join(
        Markup('<bdi dir="auto">{}</bdi>').format(_visible(line))
        for line in (text or "").splitlines()
    )


def state(value: State | str) -> str:
    """Say what a delivery is doing."""
    return STATES[State(value)]


def _visible(text: str) -> str:
    """Return *text* with a sign in place of each control or direction character."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "when": when,
    "clock": clock,
    "hour": hour,
    "day": day,
    "pretty": pretty,
    "count": count,
    "foreign": foreign,
    "lines": lines,
    "state": state,
}
