"""A channel of Teams on a real socket: the stand-in, its records, and connectors for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import Response, request
from flask.testing import FlaskClient
from stand_ins import StandInApp
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from connectors import Event, Http, Receipt
from connectors.sandbox.app import meet_faults
from connectors.sandbox.records import Fault, Records
from connectors.sandbox.teams import StandIn
from connectors.teams import cards
from connectors.teams.cards import CardOptions
from connectors.teams.connector import Teams
from connectors.testing import sample_event

TENANT = "3f3d1cea-0000-4000-8000-000000000001"
CLIENT = "3f3d1cea-0000-4000-8000-000000000002"
#: In two pieces, so that nobody takes it for a real one.
SECRET = "not-a-" + "real-one-4711"
CHANNEL = "19:frontdesk@thread.tacv2"


class Channel:
    """The stand-in, reachable at *url*, with a list of the requests that reached it."""

    def __init__(self) -> None:
        self.records = Records()
        self.stand_in = StandIn(self.records)
        #: Method and path of each request, and its headers.
        self.calls: list[tuple[str, Mapping[str, str]]] = []
        app = StandInApp("connectors.sandbox")
        blueprint = self.stand_in.blueprint()
        meet_faults(blueprint, self.records, system="teams")
        app.before_request(self._arrive)
        app.register_blueprint(blueprint, url_prefix="/teams")
        self.server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}/teams"

    def connector(self, **options: Any) -> Teams:
        """Make a bot of the channel; or a Workflow, if *options* have a ``url``."""
        given = {} if "url" in options else bot_options(self.url)
        return Teams(Teams.Options(**given | options), http=Http(allow=["127.0.0.0/8"]))

    def fault(self, *, times: int = 1, **fault: Any) -> None:
        """Let the next requests meet a fault, as ``POST /faults`` does."""
        self.records.inject("teams", Fault(**{"headers": {}} | fault), times=times)

    def texts(self) -> list[str]:
        return [each["text"] for each in self.records.listing()]

    def threads(self) -> list[list[str]]:
        """Return the words of the cards of each thread, the oldest thread first."""
        found = sorted(self.stand_in.threads(), key=lambda thread: thread.cards[0].record.number)
        return [[card.record.text for card in thread.cards] for thread in found]

    def paths(self) -> list[str]:
        return [call for call, _ in self.calls]

    def _arrive(self) -> Response | None:
        # As it came: percent signs included.
        path = request.environ["RAW_URI"].removeprefix("/teams")
        self.calls.append((f"{request.method} {path}", dict(request.headers)))
        return None


def bot_options(url: str) -> dict[str, Any]:
    return {
        "mode": "bot",
        "tenant_id": TENANT,
        "client_id": CLIENT,
        "client_secret": SECRET,
        "channel": CHANNEL,
        "service_url": url,
        "login_url": url,
    }


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def message(**changes: Any) -> bytes:
    """Return what a flow is given for a sample event."""
    return cards.encode(cards.message(sample_event(**changes), options=CardOptions()))


def post(client: FlaskClient, posted: bytes, path: str = "/teams", **headers: str) -> TestResponse:
    """Call a flow without a connector."""
    return client.post(path, data=posted, content_type="application/json", headers=headers)


def records(client: FlaskClient) -> list[dict[str, Any]]:
    """Return the effects so far."""
    found: list[dict[str, Any]] = client.get("/records").get_json()
    return found


@contextmanager
def opened() -> Iterator[Channel]:
    channel = Channel()
    thread = threading.Thread(target=channel.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield channel
    finally:
        channel.server.shutdown()
        thread.join()
        channel.server.server_close()


def deliver(
    connector: Teams,
    event: Event | None = None,
    *,
    thread: str | None = None,
    repeat: bool = False,
    deadline: float = 10.0,
    **changes: Any,
) -> Receipt:
    """Deliver *event*, or a sample with *changes*."""
    return connector.deliver(
        event or sample_event(**changes),
        key="key",
        thread=thread,
        repeat=repeat,
        deadline=deadline,
    )
