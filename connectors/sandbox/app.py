"""One Flask application with the stand-ins, their records, and the faults to inject."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from flask import Blueprint, Flask, Response, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from connectors.sandbox import hubspot, teams, webhook, zendesk
from connectors.sandbox.records import Fault, Records

STAND_INS = {"hubspot": hubspot, "zendesk": zendesk, "teams": teams, "webhook": webhook}
#: The page has a stylesheet and nothing else, so no script can run in it.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class Trouble(BaseModel):
    """A fault that a request brings along in the header ``X-Sandbox-Fault``."""

    model_config = ConfigDict(extra="forbid")

    status: int | None = Field(default=None, ge=200, le=599)
    headers: dict[str, str] = {}
    body: str = ""
    wait: float = Field(default=0.0, ge=0, le=600)
    act: bool = False

    def fault(self) -> Fault:
        """Return the fault alone."""
        return Fault(**self.model_dump(exclude={"system", "times"}))


class FaultOrder(Trouble):
    """The body of ``POST /faults``: a fault, and which requests it meets."""

    system: Literal["hubspot", "zendesk", "teams", "webhook"]
    times: int = Field(default=1, ge=1, le=10_000)
    path: str = ""
    method: Annotated[str, AfterValidator(str.upper)] = Field(default="", pattern="^[A-Za-z]*$")


def create_app(records: Records | None = None, **special: Any) -> Flask:
    """Build the sandbox with an empty stand-in for each system, at ``/hubspot`` and so on.

    *special*: stand-ins by name that were made with *records* and settings of their own.
    """
    app = Flask(__name__)
    records = records or Records()
    pages: dict[str, Callable[[], object]] = {}
    for name, module in STAND_INS.items():
        stand_in = special.get(name) or module.StandIn(records)
        pages[name] = stand_in.page
        blueprint: Blueprint = stand_in.blueprint()
        meet_faults(blueprint, records, system=name)
        app.register_blueprint(blueprint, url_prefix=f"/{name}")

    @app.get("/records")
    def listing() -> ResponseReturnValue:
        return jsonify(records.listing())

    @app.post("/faults")
    def faults() -> ResponseReturnValue:
        try:
            asked = FaultOrder.model_validate(request.get_json())
        except ValidationError as error:
            return _unusable(error)
        records.inject(asked.system, asked.fault(), times=asked.times)
        return "", 204

    @app.get("/faults")
    def waiting() -> ResponseReturnValue:
        return jsonify(records.waiting_faults())

    @app.delete("/faults")
    def forget() -> ResponseReturnValue:
        records.forget_faults()
        return "", 204

    @app.get("/")
    def page() -> ResponseReturnValue:
        shown = {name: make() for name, make in pages.items()}
        html = render_template("sandbox.html", records=records.listing(), **shown)
        return html, {"Content-Security-Policy": POLICY}

    return app


def serve(*, host: str = "127.0.0.1", port: int = 8090) -> BaseWSGIServer:
    """Bind the sandbox to *port* (0: any free one); the caller runs ``serve_forever()``.

    Raises OSError if the port is taken, or the host is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Bound here, because the server would end the process on failure.
    with socket.create_server((host, port), family=family) as bound:
        server = make_server(host, port, create_app(), threaded=True, fd=bound.fileno())
    # Binding would have set these.
    server.server_name, server.server_port = host, server.port
    return server


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing, because a path may hold secrets."""


@contextmanager
def serving(app: Flask | None = None) -> Iterator[str]:
    """Serve *app*, or a sandbox of its own, on a free port; yields its address."""
    server = make_server(
        "127.0.0.1", 0, app or create_app(), threaded=True, request_handler=_Quiet
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def meet_faults(blueprint: Blueprint, records: Records, *, system: str) -> None:
    @blueprint.before_request
    def before() -> ResponseReturnValue | None:
        # Read where nothing is locked, so half a request holds up no other.
        request.get_data()
        try:
            fault = _brought_along() or records.next_fault(
                system, method=request.method, path=request.path
            )
        except ValidationError as error:
            return _unusable(error)
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


def _brought_along() -> Fault | None:
    """Read the fault that a request asks for itself. Raises ValidationError."""
    asked = request.headers.get("X-Sandbox-Fault")
    return Trouble.model_validate_json(asked).fault() if asked else None


def _unusable(error: ValidationError) -> ResponseReturnValue:
    return jsonify({"error": error.errors(include_context=False, include_url=False)}), 400


def _faulty(fault: Fault, response: Response | None = None) -> Response:
    time.sleep(fault.wait)
    if response is not None and fault.status is None:
        return response
    return Response(fault.body, fault.status, headers=dict(fault.headers))
