"""The rules that say where events go: as JSON, and in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from pydantic import JsonValue
from typing_extensions import TypedDict

from relay.rules.routing import Route, When

#: How a condition is said, before its values.
_SAID = {
    "event": "the event is",
    "direction": "the direction is",
    "from_": "it comes from",
    "to": "it goes to",
    "account": "the account is",
    "endpoint": "it came to the endpoint",
    "body": "the text matches",
    "keyword": "the whole text is",
    "sentiment": "the text sounds",
}


class RuleJson(TypedDict):
    """A route of the config."""

    name: str
    #: Its conditions in words, all of which must hold; none: it takes every event.
    says: list[str]
    when: JsonValue
    to: list[str]
    stop: bool


def rule_json(route: Route) -> RuleJson:
    """Return a route as the config writes it, and in words."""
    when = route.when.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "name": route.name,
        "says": conditions(route.when),
        "when": cast(JsonValue, when),
        "to": list(route.to),
        "stop": route.stop,
    }


def conditions(when: When) -> list[str]:
    """Return the conditions of a route in words: all of them must hold."""
    return list(_conditions(when))


def _conditions(when: When) -> Iterator[str]:
    for name, said in _SAID.items():
        if (values := getattr(when, name)) is not None:
            yield f"{said} {_either(values)}"
    for key, values in (when.metadata or {}).items():
        yield f"metadata.{key} is {_either(values or ())}"
    if when.has_body is not None:
        yield "it has a text" if when.has_body else "it has no text"
    if when.hours is not None:
        yield f"it comes while the business is {when.hours}"
    if when.test is not None:
        yield "it is a test" if when.test else "it is no test"
    if when.any_ is not None:
        yield f"one of these holds: {_parts(when.any_)}"
    if when.all_ is not None:
        yield f"each of these holds: {_parts(when.all_)}"
    if when.not_ is not None:
        yield f"this does not hold: {_parts([when.not_])}"


def _either(values: Sequence[str]) -> str:
    return " or ".join(values)


def _parts(parts: Sequence[When]) -> str:
    return "; ".join(f"({' and '.join(_conditions(each)) or 'always'})" for each in parts)
