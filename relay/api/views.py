"""All blueprints of the API."""

from __future__ import annotations

from collections.abc import Sequence

from flask_openapi3.blueprint import APIBlueprint

from relay.api import problems


def blueprints() -> Sequence[APIBlueprint]:
    """Make the blueprints of one application."""
    return [problems.blueprint()]
