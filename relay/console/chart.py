"""One chart: what came in and what arrived over time, as figures for an SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

WIDTH, HEIGHT = 960, 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One span of time."""

    at: datetime
    came: int
    arrived: int
    x: float
    width: float
    #: Tops and heights of what came and what arrived.
    came_y: float
    came_height: float
    arrived_y: float
    arrived_height: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Bars side by side below one line that names the largest figure."""

    bars: Sequence[Bar]
    top: int
    came: int
    arrived: int


def chart(spans: Sequence[tuple[datetime, int, int]]) -> Chart:
    """Draw *spans*: when each began, what came and what arrived in it."""
    top = _round(max((max(came, arrived) for _, came, arrived in spans), default=0))
    slot = WIDTH / max(len(spans), 1)
    bars = []
    for number, (at, came, arrived) in enumerate(spans):
        came_height, arrived_height = (HEIGHT * each / top for each in (came, arrived))
        bars.append(
            Bar(
                at=at,
                came=came,
                arrived=arrived,
                x=round(number * slot + slot * 0.12, 1),
                width=round(slot * 0.36, 1),
                came_y=round(HEIGHT - came_height, 1),
                came_height=round(came_height, 1),
                arrived_y=round(HEIGHT - arrived_height, 1),
                arrived_height=round(arrived_height, 1),
            )
        )
    return Chart(
        bars=bars,
        top=top,
        came=sum(came for _, came, _ in spans),
        arrived=sum(arrived for _, _, arrived in spans),
    )


def _round(number: int) -> int:
    """Return the next number above that people find round."""
    if number <= 5:
        return 5
    step: int = 10 ** math.floor(math.log10(number))
    return next(step * each for each in (1, 2, 5, 10) if step * each >= number)
