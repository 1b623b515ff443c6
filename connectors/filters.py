"""The filters of templates; the time and memory of each grow with its input alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import jinja2

Value = TypeVar("Value")

#: Longest text that a filter may put together.
LONGEST = 1_000_000

_TIME_FORMAT = re.compile(r"(?:[^%]|%[aAbBdeHIjmMpSyYZz%]|%-[dHIjmMS])*")
#: Default form of times.
READABLE = "%Y-%m-%d %H:%M:%S %Z"


class Fault(jinja2.TemplateRuntimeError):
    """A template asks for something impossible; the message holds nothing of the event."""


class Json(str):
    """Text that is JSON already: inside a JSON body it stays as it is."""


def written(value: Any) -> str:
    """Write any value of an event for people; None becomes an empty text."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, datetime):
        return date(value)
    if isinstance(value, bool | Mapping | list | tuple):
        return tojson(value)
    return str(value)


def default(value: Any, fallback: Any = "", empty: bool = False) -> Any:
    """Replace a missing value; with *empty*, an empty text too."""
    missing = value is None or isinstance(value, jinja2.Undefined)
    return fallback if missing or (empty and not value) else value


def date(moment: Any, form: str = READABLE, zone: str = "UTC") -> str:
    if not isinstance(moment, datetime):
        raise Fault("date takes a time, such as occurred_at")
    if len(form) > 200 or not _TIME_FORMAT.fullmatch(form):
        raise Fault('date: write a form such as "%d %b %Y %H:%M"')
    try:
        there = UTC if zone == "UTC" else ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Fault('date: no such time zone; write one such as "Australia/Sydney"') from None
    return moment.astimezone(there).strftime(form)


def truncate(value: Any, length: int = 255, end: str = "…") -> str:
    words = written(value)
    return words if len(words) <= length else words[: max(0, length - len(end))].rstrip() + end


def replace(value: Any, old: str, new: str) -> str:
    words, old, new = written(value), written(old), written(new)
    if len(words) + words.count(old) * len(new) > LONGEST:
        raise Fault("replace: the text becomes too long")
    return words.replace(old, new)


def join(values: Iterable[Any], between: str = "") -> str:
    between = written(between)
    words: list[str] = []
    length = 0
    for each in values:
        words.append(written(each))
        length += len(words[-1]) + len(between)
        if length > LONGEST:
            raise Fault("join: the text becomes too long")
    return between.join(words)


def items(value: Any) -> list[tuple[Any, Any]]:
    if not isinstance(value, Mapping):
        raise Fault("items takes keys with values, such as metadata")
    return list(value.items())


def tojson(value: Any) -> Json:
    return Json(json.dumps(value, ensure_ascii=False, default=_jsonable, allow_nan=False))


def in_json(words: str) -> str:
    """Escape a value that stands between the quotes of a JSON text."""
    return words if isinstance(words, Json) else json.dumps(words, ensure_ascii=False)[1:-1]


def number(value: Any, fallback: float = 0.0) -> float:
    try:
        read = float(value)
    except (TypeError, ValueError, OverflowError):
        return fallback
    return read if math.isfinite(read) else fallback


def integer(value: Any, fallback: int = 0) -> int:
    try:
        return int(str(value)[:100]) if isinstance(value, str | int) else int(value)
    except (TypeError, ValueError, OverflowError):
        return fallback


def rounded(value: float, digits: int = 0) -> float:
    return round(value, max(0, min(digits, 20))) if digits else round(value)


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise Fault("tojson: a value that is not there, or no JSON; try | default(…)")


FILTERS: Mapping[str, Callable[..., Any]] = {
    "capitalize": lambda value: written(value).capitalize(),
    "d": default,
    "date": date,
    "default": default,
    "first": lambda value: value[0] if value else "",
    "float": number,
    "int": integer,
    "items": items,
    "join": join,
    "last": lambda value: value[-1] if value else "",
    "length": len,
    "lower": lambda value: written(value).lower(),
    "replace": replace,
    "round": rounded,
    "string": written,
    "title": lambda value: written(value).title(),
    "tojson": tojson,
    "trim": lambda value: written(value).strip(),
    "truncate": truncate,
    "upper": lambda value: written(value).upper(),
    "urlencode": lambda value: quote(written(value), safe=""),
}
