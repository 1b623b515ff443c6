"""All blueprints of the API."""

from __future__ import annotations

from collections.abc import Sequence

from flask_openapi3.blueprint import APIBlueprint

from relay.api import (
    acts,
    customers,
    deliveries,
    destinations,
    events,
    people,
    problems,
    requests,
    routes,
    search,
    settings,
)


def blueprints() -> Sequence[APIBlueprint]:
    """Make the blueprints of one application."""
    return [
        events.blueprint(),
        deliveries.blueprint(),
        acts.blueprint(),
        requests.blueprint(),
        destinations.blueprint(),
        problems.blueprint(),
        routes.blueprint(),
        search.blueprint(),
        settings.blueprint(),
        people.blueprint(),
        customers.blueprint(),
    ]
