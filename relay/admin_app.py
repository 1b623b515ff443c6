"""The Flask application of the inner listener, which no sender reaches: metrics."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from flask import Flask, Response, abort, request
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import WWWAuthenticate

from relay.config.model import Admin
from relay.telling.exposition import CONTENT_TYPE


def create_admin_app(admin: Admin, *, scrape: Callable[[], bytes]) -> Flask:
    """Make the application; *scrape* returns the metrics."""
    app = Flask("relay.admin", static_folder=None)
    token = admin.metrics_token and admin.metrics_token.get_secret_value().strip()

    @app.get("/metrics")
    def metrics() -> ResponseReturnValue:
        if token and not _has(token):
            abort(401, www_authenticate=WWWAuthenticate("bearer"))
        return Response(scrape(), content_type=CONTENT_TYPE)

    return app


def _has(token: str) -> bool:
    """Return whether the request brings *token*."""
    given = request.authorization
    if given is None or given.type != "bearer" or given.token is None:
        return False
    return hmac.compare_digest(given.token.encode(), token.encode())
