"""Times, sizes and rates as people write them: ``30s``, ``64KiB``, ``100/10s``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveInt

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_BYTES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+", re.ASCII)
# Without ASCII, letters of other alphabets would match K and I when case is ignored.
_SIZE = re.compile(r"(\d+)\s*([KMG]?i?B)", re.IGNORECASE | re.ASCII)
_RATE = re.compile(r"([1-9]\d{0,8})\s*/\s*(\S+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most *count* in any *period*, up to *burst* of them at once."""

    count: int
    period: timedelta
    #: None: all of them may come at once.
    burst: int | None = None

    def __str__(self) -> str:
        seconds = f"{self.period.total_seconds():.6f}".rstrip("0").rstrip(".")
        at_once = f", {self.burst} at once" if self.is_spread else ""
        return f"{self.count}/{seconds}s{at_once}"

    @property
    def is_spread(self) -> bool:
        """Say whether less may come at once than in the whole period."""
        return self.burst is not None and self.burst < self.count

    @property
    def memory(self) -> timedelta:
        """For how long a start can matter to later ones."""
        if self.burst is None or not self.is_spread:
            return self.period
        return max(self.period, self.period * self.burst / (self.count - self.burst))

    def room(self, started: Sequence[datetime], *, now: datetime) -> int:
        """Return how many may start now; *started*: when others did within :attr:`memory`.

        A burst is a credit that fills up again by ``count - burst`` a period: so many at once, the
        others evenly, and in any period no more than *count*. What is not known is the credit
        before the first start; it is taken to be as little as it can have been.
        """
        moments = sorted(min(moment, now) for moment in started)
        left = self.count - sum(now - moment < self.period for moment in moments)
        if self.burst is None or not self.is_spread:
            return max(left, 0)
        # In times, which are exact: a start costs a period.
        refill, full = self.count - self.burst, self.burst * self.period
        credit, since = timedelta(), now - self.memory
        for moment in moments:
            credit = min(credit + refill * (moment - since), full)
            credit, since = max(credit - self.period, timedelta()), moment
        credit = min(credit + refill * (now - since), full)
        return max(min(credit // self.period, left), 0)


def duration(value: object) -> timedelta:
    """Read ``30s``, ``1h30m``, ``90d``. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not _DURATION.fullmatch(value.strip()):
        raise ValueError("write a time such as 30s, 5m, 1h30m or 90d")
    parts = _DURATION_PART.findall(value)
    try:
        return timedelta(seconds=sum(float(count) * _SECONDS[unit] for count, unit in parts))
    except OverflowError:
        raise ValueError("too long") from None


def written(length: timedelta) -> str:
    """Write a time as people do: ``25s``, ``90d``."""
    seconds = length.total_seconds()
    fits = [(unit, size) for unit, size in _UNITS if seconds and seconds % size == 0]
    return f"{seconds / fits[0][1]:.0f}{fits[0][0]}" if fits else f"{seconds * 1000:.0f}ms"


def size(value: object) -> int:
    """Read ``64KiB`` as a number of bytes. Raises ValueError."""
    if type(value) is int and value > 0:
        return value
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found or not int(found[1]):
        raise ValueError("write a size such as 64KiB or 1MB")
    return int(found[1]) * _BYTES[found[2].upper()]


def rate(value: object) -> RateLimit:
    """Read ``100/10s``: at most 100 in any 10 seconds. Raises ValueError."""
    if isinstance(value, RateLimit):
        return value
    found = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        raise ValueError("write a rate such as 100/10s or 4/1s")
    period = duration(found[2])
    if not period:
        raise ValueError("a rate needs a time longer than zero")
    return RateLimit(int(found[1]), period)


#: The form of each, for the JSON Schema of the file.
_DurationText = Annotated[str, Field(pattern=rf"^\s*{_DURATION.pattern}\s*$")]
_SizeText = Annotated[str, Field(pattern=r"^\s*\d+\s*([KkMmGg]?[Ii]?[Bb])\s*$")] | PositiveInt
_RateText = Annotated[str, Field(pattern=rf"^\s*{_RATE.pattern}\s*$")]

Duration = Annotated[timedelta, BeforeValidator(duration, json_schema_input_type=_DurationText)]
Size = Annotated[int, BeforeValidator(size, json_schema_input_type=_SizeText)]
Rate = Annotated[RateLimit, BeforeValidator(rate, json_schema_input_type=_RateText)]
