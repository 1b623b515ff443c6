"""The blueprint of ``/api/v1``, on which every file of views registers what it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from relay.acts.bulk import TooMany
from relay.acts.recovering import UnknownNames
from relay.api.identity import authenticate
from relay.api.problem import Fault, documented
from relay.api.reading import understand
from relay.store.search import Unknown

PREFIX = "/api/v1"
#: How a bearer token is described.
SECURITY: dict[str, Any] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token made by `gofax-relay tokens add`.",
    }
}


class Views(APIBlueprint):
    """Views that need a token."""

    def post(self, rule: str, **options: Any) -> Callable[..., Any]:
        """Add a view that reads a body, with what it answers to one that it cannot read."""
        options["responses"] = documented(400, 413, 415) | options.get("responses", {})
        return super().post(rule, **options)


def blueprint(name: str, *, about: str = "") -> Views:
    """Make a blueprint of views that need a token; *about*: what they are about."""
    made = Views(
        f"api_{name}",
        f"relay.api.{name}",
        url_prefix=PREFIX,
        abp_tags=[Tag(name=name, description=about)],
        abp_security=[{"token": []}],
        abp_responses=documented(401, 403, 404, 405, 422, 503),
        operation_id_callback=_operation_id,
    )
    made.before_request(authenticate)
    made.before_request(understand)
    for error in (Unknown, UnknownNames):
        made.register_error_handler(error, _unknown)
    made.register_error_handler(TooMany, _too_many)
    return made


def _unknown(error: Exception) -> Response:
    return Fault(404, str(error)).response()


def _too_many(error: Exception) -> Response:
    return Fault(409, str(error)).response()


def _operation_id(*, name: str, **_: str) -> str:
    return name
