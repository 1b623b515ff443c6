"""A HubSpot stand-in on a real socket, and connectors for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import requests
from flask import Flask, request
from stand_ins import StandInApp
from werkzeug.serving import make_server

from connectors import Event, Http, Receipt
from connectors.hubspot.connector import HubSpot
from connectors.hubspot.options import HubSpotOptions
from connectors.sandbox import app as sandbox
from connectors.sandbox.hubspot import StandIn
from connectors.sandbox.hubspot_page import Timeline
from connectors.sandbox.records import Fault, Records
from connectors.testing import sample_event

TOKEN = "-".join(["pat", "ap1", "0f9e8d7c"])
OBJECTS = "/crm/objects/2026-09"
CONTACTS = f"{OBJECTS}/contacts"
COMMUNICATIONS = f"{OBJECTS}/communications"
TICKETS = f"{OBJECTS}/tickets"
TASKS = f"{OBJECTS}/tasks"
UPSERT = CONTACTS + "/batch/upsert"
NUMBER = "+61400000000"
OURS = "+61700000000"
LIFE = timedelta(hours=1)


@dataclass
class Portal:
    """A stand-in on a real socket, and the connectors that were made for it."""

    stand_in: StandIn
    records: Records
    url: str
    app: Flask
    #: Method and path of every request.
    calls: list[str] = field(default_factory=list)
    #: The same, with the JSON that was sent.
    sent: list[tuple[str, Any]] = field(default_factory=list)
    #: Faults that wait for one method and path.
    exact: list[tuple[str, Fault]] = field(default_factory=list)
    connectors: list[HubSpot] = field(default_factory=list)

    def connector(self, **options: Any) -> HubSpot:
        options = {"access_token": TOKEN, "base_url": self.url} | options
        made = HubSpot(HubSpotOptions(**options), http=Http(allow=["127.0.0.0/8"]))
        self.connectors.append(made)
        return made

    def note(self) -> None:
        """Write down a request, and bring about the fault that waits for it."""
        call = f"{request.method} {request.path[len('/hubspot') :]}"
        self.calls.append(call)
        self.sent.append((call, request.get_json(silent=True)))
        for awaited in [each for each in self.exact if each[0] == call][:1]:
            self.exact.remove(awaited)
            self.records.inject("hubspot", awaited[1])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with requests.request(
            method, self.url + path, json=body, headers=headers, timeout=5
        ) as answer:
            return answer.json() if answer.content else None

    def contact(self, **values: str) -> str:
        """Make a contact as people do."""
        named = {"lastname": "Miller"} | values
        made = self.ask("POST", CONTACTS, {"properties": named, "associations": []})
        return str(made["id"])

    def define(self, kind: str, *names: str, **more: Any) -> None:
        """Make properties of the account's own."""
        for name in names:
            asked = {"name": name, "label": name, "type": "string", "fieldType": "text"}
            asked |= {"groupName": "contactinformation"} | more
            self.ask("POST", f"/crm/properties/2026-09/{kind}", asked)

    def property(self, contact: str, name: str) -> str | None:
        found: str | None = self.ask("GET", f"{CONTACTS}/{contact}")["properties"].get(name)
        return found

    def fail(
        self,
        status: int | None,
        *,
        path: str = "",
        body: Any = "",
        only: str = "",
        **more: Any,
    ) -> None:
        """Let the next requests to *path*, or the next that is exactly *only*, meet a fault."""
        text = body if isinstance(body, str) else json.dumps(body)
        headers = {"Content-Type": "application/json"} | more.pop("headers", {})
        times = more.pop("times", 1)
        fault = Fault(status=status, headers=headers, body=text, path=path, **more)
        if only:
            self.exact.append((only, fault))
            return
        self.records.inject("hubspot", fault, times=times)

    def made(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of one kind of effect."""
        return [record for record in self.records.listing() if record["kind"] == kind]

    def timeline(self) -> Timeline:
        """Return the one contact that there is, with all that happened to it."""
        [found] = self.stand_in.page()
        return found

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """Return every object of a kind, with its properties."""
        found: list[dict[str, Any]] = self.ask("GET", f"{OBJECTS}/{kind}?limit=100")["results"]
        return found

    def texts(self) -> list[str]:
        return [record["text"] for record in self.records.listing()]

    def bodies(self) -> list[str]:
        """Return what was posted as communications, mark-up included."""
        wanted = {
            "inputs": [{"id": record["reference"]} for record in self.records.listing()],
            "properties": ["hs_communication_body"],
            "propertiesWithHistory": [],
        }
        rows = self.ask("POST", COMMUNICATIONS + "/batch/read", wanted)["results"]
        return [row["properties"]["hs_communication_body"] for row in rows]


Open = Callable[..., Portal]


@contextmanager
def opened(**settings: Any) -> Iterator[Portal]:
    """Start a stand-in with *settings*, and stop it and its connectors in the end."""
    records = Records()
    stand_in = StandIn(records, **settings)
    app = StandInApp(sandbox.__name__)
    routes = stand_in.blueprint()
    sandbox.meet_faults(routes, records, system="hubspot")
    app.register_blueprint(routes, url_prefix="/hubspot")
    server = make_server("127.0.0.1", 0, app, threaded=True)
    portal = Portal(stand_in, records, f"http://127.0.0.1:{server.port}/hubspot", app)
    app.before_request(portal.note)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield portal
    finally:
        for connector in portal.connectors:
            connector.close()
        server.shutdown()
        thread.join()
        server.server_close()


def deliver(connector: HubSpot, event: Event | None = None, **options: Any) -> Receipt:
    """Deliver *event*, or the sample, as the relay would."""
    options = {"key": "key-1", "thread": None, "repeat": False, "deadline": 10.0} | options
    return connector.deliver(event or sample_event(), **options)
