"""Routes: the rules in words, and what they would make of a message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from relay.api.services import services
from relay.console.pages import is_masked, needs
from relay.rules.access import Scope
from relay.rules.routing import Route, When
from relay.shapes import sample
from relay.shapes.sample import NoSample
from relay.store.search import Unknown

#: A message to begin with.
EXAMPLE = """\
{
  "messageId": "try-1",
  "eventType": "SMS_REPLY",
  "direction": "reply",
  "from": "+61400000123",
  "to": "+61755500001",
  "messageBody": "Please call me back, it is urgent"
}
"""
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


def add(console: Blueprint) -> None:
    """Add the page."""

    @console.get("/routes")
    @needs(Scope.READ)
    def routes() -> ResponseReturnValue:
        return _page(payload=EXAMPLE, event=request.args.get("event", ""))

    @console.post("/routes")
    @needs(Scope.READ)
    def try_routes() -> ResponseReturnValue:
        config = services().config
        payload, event = request.form.get("payload", ""), request.form.get("event", "").strip()
        endpoint = request.form.get("endpoint") or None
        try:
            if event:
                taken = sample.of_stored(config, services().database, event)
            else:
                taken = sample.of_bytes(
                    config, payload.encode("utf-8", "surrogatepass"), endpoint=endpoint
                )
            found = sample.shown(config, taken)
        except (NoSample, Unknown) as error:
            return _page(payload=payload, event=event, endpoint=endpoint, fault=str(error)), 422
        hidden = bool(event) and is_masked()
        return _page(
            payload=payload,
            event=event,
            endpoint=endpoint,
            tried=sample.sample_json(config, taken, found),
            sample=taken,
            hidden=hidden,
        )


def words(route: Route) -> list[str]:
    """Say when *route* matches, condition by condition; nothing: always."""
    return list(_conditions(route.when))


def _page(**values: Any) -> str:
    config = services().config
    return render_template(
        "routes.html",
        routes=[(route, words(route)) for route in config.routes],
        endpoints=config.endpoints,
        **values,
    )


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
