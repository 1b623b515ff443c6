"""The blueprint of ``/api/v1``, on which every file of views registers what it answers."""

from __future__ import annotations

from typing import Any

from flask_openapi3.blueprint import APIBlueprint

from relay.api.identity import authenticate
from relay.api.problem import documented

PREFIX = "/api/v1"
#: How a bearer token is described.
SECURITY: dict[str, Any] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token made by `gofax-relay tokens add`.",
    }
}


def blueprint(name: str) -> APIBlueprint:
    """Make a blueprint of views that need a token."""
    made = APIBlueprint(
        f"api_{name}",
        f"relay.api.{name}",
        url_prefix=PREFIX,
        abp_security=[{"token": []}],
        abp_responses=documented(401, 403, 404, 422, 503),
    )
    made.before_request(authenticate)
    return made
