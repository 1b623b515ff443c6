"""The rules that say where events go: as JSON, and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import JsonValue
from typing_extensions import TypedDict

from relay.rules.routing import Route, When

_WORDS: Mapping[str, str] = {
    "event": "the event is",
    "direction": "the direction is",
    "from": "it is from",
    "to": "it is to",
    "account": "the account is",
    "endpoint": "it came to the endpoint",
    "body": "the text matches",
    "keyword": "the keyword is",
    "sentiment": "the tone is",
    "hours": "the business is",
}


class RuleJson(TypedDict):
    """A route of the config; what `says` has in words must all hold, and nothing means always."""

    name: str
    says: list[str]
    when: JsonValue
    to: list[str]
    stop: bool


def rule_json(route: Route) -> RuleJson:
    """Return a route as the config writes it, and in words."""
    when = route.when.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "name": route.name,
        "says": words(route),
        "when": cast(JsonValue, when),
        "to": list(route.to),
        "stop": route.stop,
    }


def words(route: Route) -> list[str]:
    """Say when *route* matches, condition by condition; nothing: always."""
    return list(_conditions(route.when))


def _conditions(when: When) -> Iterator[str]:
    for name, value in when.model_dump(by_alias=True, exclude_none=True).items():
        yield from _condition(when, name, value)


def _condition(when: When, name: str, value: Any) -> Iterator[str]:
    match name:
        case "any" | "all":
            parts = getattr(when, f"{name}_")
            joint = " or " if name == "any" else " and "
            yield joint.join(f"({' and '.join(_conditions(part))})" for part in parts)
        case "not":
            assert when.not_ is not None
            yield f"not ({' and '.join(_conditions(when.not_))})"
        case "metadata":
            for key, wanted in value.items():
                yield f"metadata.{key} is {_alternatives(wanted)}"
        case "has_body":
            yield "it has a text" if value else "it has no text"
        case "test":
            yield "it is a test" if value else "it is no test"
        case _:
            yield f"{_WORDS[name]} {_alternatives(value)}"


def _alternatives(value: Any) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
