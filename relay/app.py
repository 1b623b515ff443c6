"""The Flask application of the public listener: endpoints, ``/livez`` and ``/readyz``."""

from __future__ import annotations

from flask import Flask, Request, Response, jsonify
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import MapAdapter

from relay import every, receive
from relay.callers import Callers, Rates
from relay.config.model import Config
from relay.refused import Refusals
from relay.store import Database, Inbox, StoreUnavailable
from relay.telling.metrics import NO_ENDPOINT, Metrics
from relay.telling.watch import OldSecrets


class _ByPath(Flask):
    """Flask that looks at path and method alone: whatever name leads here, it is the same relay.

    To find and encode the name took a tenth of a view.
    """

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None:
            return None
        return MapAdapter(
            self.url_map,
            server_name="",
            script_name=request.root_path,
            subdomain="",
            url_scheme=request.scheme,
            path_info=request.path,
            default_method=request.method,
        )


def create_app(
    config: Config,
    *,
    database: Database,
    inbox: Inbox,
    refusals: Refusals,
    metrics: Metrics | None = None,
    old_secrets: OldSecrets | None = None,
) -> Flask:
    """Wire the endpoints of *config* to a store whose tables exist."""
    app = _ByPath("relay", static_folder=None)
    app.url_map.strict_slashes = True
    app.url_map.redirect_defaults = False
    app.url_map.merge_slashes = False
    if config.server.trusted_proxies:
        hops = config.server.trusted_proxies
        # The caller's address is read by relay.rules.addresses, which a caller cannot mislead.
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # Flask's documented way
            app.wsgi_app, x_for=0, x_proto=hops, x_host=hops
        )
    callers = Callers(threads=config.server.threads)
    rates = Rates()
    metrics = metrics or Metrics()
    made = receive.blueprint(
        config,
        inbox=inbox,
        refusals=refusals,
        callers=callers,
        rates=rates,
        clock=database.clock,
        metrics=metrics,
        old_secrets=old_secrets or OldSecrets(),
    )
    app.register_blueprint(made)
    strays = receive.Strays(
        config=config, refusals=refusals, callers=callers, rates=rates, clock=database.clock
    )

    @app.get("/livez")
    def alive() -> ResponseReturnValue:
        return {"status": "alive"}

    @app.get("/readyz")
    def ready() -> ResponseReturnValue:
        # It takes the store's lock. A proxy that asks beside its callers' requests is not one.
        if over := strays.over(kind="/readyz "):
            return over.response(close=True)
        try:
            inbox.probe()
        except StoreUnavailable:
            return {"status": "store unavailable"}, 503
        if loops := [loop for loop in every.faulty() if loop.is_vital]:
            return {"status": "not working", "loops": [loop.name for loop in loops]}, 503
        return {"status": "ready"}

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        if error.code in (404, 405) and (over := strays.over()):
            metrics.answered(NO_ENDPOINT, over.status, "refused")
            return over.response(close=True)
        metrics.answered(NO_ENDPOINT, error.code or 500, "refused")
        if error.code in (404, 405):
            strays.note(error.code)
        answer = jsonify(error=error.name.lower())
        answer.status_code = error.code or 500
        for name, value in error.get_headers():
            if name not in ("Content-Type", "Content-Length"):
                answer.headers[name] = value
        return answer

    return app
