"""Routes: the rules in words, and what they would make of a message."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from relay.api.services import services
from relay.console.pages import is_masked, needs
from relay.rules.access import Scope
from relay.shapes import sample
from relay.shapes.routes import words
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


def _page(**values: Any) -> str:
    config = services().config
    return render_template(
        "routes.html",
        routes=[(route, words(route)) for route in config.routes],
        endpoints=config.endpoints,
        connectors={name: each.connector for name, each in config.destinations.items()},
        **values,
    )
