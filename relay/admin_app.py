"""The Flask application of the inner listener, which no sender reaches: console, API, metrics."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as WerkzeugResponse

from relay.api import views as api
from relay.api.blueprint import PREFIX, SECURITY
from relay.api.description import complete
from relay.api.problem import Fault, Problem, of_validation
from relay.api.reading import Json
from relay.api.services import Services, install
from relay.config.model import Admin
from relay.console import sign_in
from relay.console import views as console
from relay.node import version
from relay.rules.access import IDLE
from relay.store import StoreUnavailable
from relay.telling.exposition import CONTENT_TYPE

#: Longest body of a form or a call.
MAX_BODY = 1 << 20
#: Sent with everything. No page of ours has a script or a style within it.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def create_admin_app(admin: Admin, services: Services, *, scrape: Callable[[], bytes]) -> OpenAPI:
    """Make the application; *scrape* returns the metrics."""
    app = OpenAPI(
        "relay.admin",
        info=Info(title="gofax-relay", version=version()),
        security_schemes=SECURITY,
        doc_ui=False,
        validation_error_status=422,
        validation_error_model=Problem,
        validation_error_callback=lambda error: of_validation(error).response(),
        static_folder=None,
    )
    app.config.update(
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=IDLE,
        MAX_CONTENT_LENGTH=MAX_BODY,
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_CHECK_DEFAULT=True,
    )
    app.session_interface = sign_in.Sessions()
    app.json = Json(app)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    install(app, services)
    app.before_request(lambda: _refuse_foreign_host(admin))
    protection = CSRFProtect(app)
    for each in api.blueprints():
        protection.exempt(each)
        app.register_api(each)
    app.register_blueprint(console.blueprint())
    app.after_request(_guard)

    @app.get("/", doc_ui=False)
    def start() -> WerkzeugResponse:
        return redirect(url_for("console.attention"))

    @app.get(f"{PREFIX}/openapi.json", doc_ui=False)
    def description() -> dict[str, Any]:
        return app.api_doc

    app.register_blueprint(metrics(admin, scrape))
    _handle_errors(app)
    complete(app)
    return app


def metrics(admin: Admin, scrape: Callable[[], bytes]) -> Blueprint:
    """Make the part that answers ``/metrics``, which needs no store."""
    made = Blueprint("metrics", "relay.admin")

    @made.get("/metrics")
    def read() -> Response:
        token = admin.metrics_token and admin.metrics_token.get_secret_value().strip()
        if token and not _has(token):
            abort(401, www_authenticate=WWWAuthenticate("bearer"))
        return Response(scrape(), content_type=CONTENT_TYPE)

    return made


def _handle_errors(app: OpenAPI) -> None:
    @app.errorhandler(Fault)
    def fault(error: Fault) -> ResponseReturnValue:
        return error.response()

    @app.errorhandler(StoreUnavailable)
    def away(error: StoreUnavailable) -> ResponseReturnValue:
        headers = {"Retry-After": "5"}
        return _answer(503, "The store cannot be used now; nothing was changed.", headers=headers)

    @app.errorhandler(CSRFError)
    def forged(error: CSRFError) -> ResponseReturnValue:
        return _answer(400, "This form is from an earlier session. Go back, reload, try again.")

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> ResponseReturnValue:
        if error.response is not None:
            return error.response
        headers = {k: v for k, v in error.get_headers() if not k.startswith("Content-")}
        return _answer(error.code or 500, error.description or error.name, headers=headers)


def _answer(status: int, said: str, *, headers: dict[str, str] | None = None) -> Response:
    """Say what is wrong in the way of the part that was asked."""
    if request.path.startswith("/api/"):
        return Fault(status, said, headers=headers).response()
    if request.path.startswith("/console"):
        page = render_template("error.html", status=status, said=said)
        return Response(page, status, headers, mimetype="text/html")
    return Response(json.dumps({"error": said}), status, headers, mimetype="application/json")


def _refuse_foreign_host(admin: Admin) -> None:
    """Refuse names that are not ours: a page elsewhere may have pointed its own name here."""
    if request.path == "/metrics" or sign_in.is_local(request.host):
        return
    name = urlsplit(f"//{request.host}").hostname or ""
    ours = {admin.host, urlsplit(admin.url or "").hostname}
    if name not in ours:
        abort(421, "This is not the console's address. Write it in the config: admin.url")


def _guard(answer: Response) -> Response:
    answer.headers.update(HEADERS)
    if request.endpoint != "console.static":
        answer.headers["Cache-Control"] = "no-store"
    return answer


def _has(token: str) -> bool:
    """Return whether the request brings *token*."""
    given = request.authorization
    if given is None or given.type != "bearer" or given.token is None:
        return False
    return hmac.compare_digest(given.token.encode(), token.encode())
