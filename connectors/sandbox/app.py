"""One Flask application with the three stand-ins, their records, and the faults to inject."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Blueprint, Flask, Response, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.serving import BaseWSGIServer, make_server

from connectors.sandbox import hubspot, teams, zendesk
from connectors.sandbox.records import Fault, Records

STAND_INS = {"hubspot": hubspot, "zendesk": zendesk, "teams": teams}


def create_app() -> Flask:
    """Build the sandbox with empty stand-ins at ``/hubspot``, ``/zendesk`` and ``/teams``."""
    app = Flask(__name__)
    records = Records()
    pages: dict[str, Callable[[], object]] = {}
    for name, module in STAND_INS.items():
        stand_in = module.StandIn(records)
        pages[name] = stand_in.page
        blueprint: Blueprint = stand_in.blueprint()
        _meet_faults(blueprint, records, system=name)
        app.register_blueprint(blueprint, url_prefix=f"/{name}")

    @app.get("/records")
    def listing() -> ResponseReturnValue:
        return jsonify(records.listing())

    @app.post("/faults")
    def faults() -> ResponseReturnValue:
        asked = request.get_json()
        times = asked.pop("times", 1)
        records.inject(asked.pop("system"), Fault(**{"headers": {}, **asked}), times=times)
        return "", 204

    @app.get("/")
    def page() -> ResponseReturnValue:
        shown = {name: make() for name, make in pages.items()}
        return render_template("sandbox.html", records=records.listing(), **shown)

    return app


def serve(*, host: str = "127.0.0.1", port: int = 8090) -> BaseWSGIServer:
    """Bind the sandbox to *port* (0: any free one); the caller runs ``serve_forever()``.

    Raises OSError if the port is taken.
    """
    return make_server(host, port, create_app(), threaded=True)


def _meet_faults(blueprint: Blueprint, records: Records, *, system: str) -> None:
    @blueprint.before_request
    def before() -> ResponseReturnValue | None:
        fault = records.next_fault(system, request.path)
        if fault is None:
            return None
        if fault.act:
            request.environ["sandbox.fault"] = fault
            return None
        if fault.status is None:
            time.sleep(fault.wait)
            return None
        return _faulty(fault)

    @blueprint.after_request
    def after(response: Response) -> Response:
        fault: Fault | None = request.environ.pop("sandbox.fault", None)
        return _faulty(fault, response) if fault else response


def _faulty(fault: Fault, response: Response | None = None) -> Response:
    time.sleep(fault.wait)
    if response is not None and fault.status is None:
        return response
    return Response(fault.body, fault.status, headers=dict(fault.headers))
