"""A Zendesk account on a real socket, with a list of its calls and with troubles to come."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import requests
from flask import Response, request
from stand_ins import StandInApp
from werkzeug.serving import make_server

from connectors import Event, Http, Receipt
from connectors.sandbox.records import Records
from connectors.sandbox.zendesk import StandIn
from connectors.testing import sample_event
from connectors.zendesk.connector import Zendesk

OURS = "+61700000000"
#: In two pieces, so that nobody takes it for a real one.
SECRET = "not-a-" + "real-one-4711"
# Shared by fifty threads: unlike a generator, a map over a count may be.
keys = map("key-{}".format, itertools.count())


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request that arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(kw_only=True)
class Trouble:
    """What the account answers instead of the truth, *times* times."""

    method: str
    path: str
    status: int | None = None
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Seconds before the answer.
    wait: float = 0.0
    #: Do as asked before the trouble begins.
    act: bool = False
    times: int = 1

    def meets(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and path.endswith(self.path)


class Clock:
    """The account's own clock: the real one, put forward at will."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead

    def pass_by(self, time: timedelta | None) -> None:
        self.ahead += time.total_seconds() if time else 0.0


class Account:
    """The stand-in, reachable at *url*."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.troubles: list[Trouble] = []
        self._lock = threading.Lock()
        self.start_anew()
        self.server = make_server("127.0.0.1", 0, self.app, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}/zendesk"

    def start_anew(self) -> None:
        """Forget everything, as a restarted stand-in does."""
        self.records = Records()
        self.clock = Clock()
        self.stand_in = StandIn(self.records, clock=self.clock)
        self.app = StandInApp("connectors.sandbox")
        self.app.before_request(self._arrive)
        self.app.after_request(self._leave)
        self.app.register_blueprint(self.stand_in.blueprint(), url_prefix="/zendesk")
        if hasattr(self, "server"):
            self.server.app = self.app

    def expect(self, method: str, path: str, **trouble: Any) -> Trouble:
        """Answer the next call of *method* and *path* (its end) with *trouble*."""
        self.troubles.append(Trouble(method=method, path=path, **trouble))
        return self.troubles[-1]

    def made(self, method: str, path: str = "") -> list[Call]:
        """Return the calls so far of *method* whose path ends in *path*."""
        return [each for each in self.calls if each.method == method and each.path.endswith(path)]

    def paths(self) -> list[str]:
        return [str(each) for each in self.calls if not each.path.startswith("/oauth")]

    def texts(self) -> list[str]:
        return [each["text"] for each in self.records.listing()]

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Do what an agent or another program does; the call is not listed."""
        headers = {"Authorization": "Bearer an-agent", "X-Agent": "yes"}
        url = f"{self.url}/api/v2/{path}"
        answer = requests.request(method, url, headers=headers, timeout=5, **options)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def search_finds(self, *users: dict[str, Any]) -> None:
        """Let the next search bring up just *users*, in this order."""
        found = json.dumps({"users": users, "count": len(users), "next_page": None})
        self.expect("GET", "/users/search", status=200, body=found)

    def set_status(self, thread: str, status: str) -> None:
        self.ask("PUT", f"tickets/{thread}", json={"ticket": {"status": status}})

    def comments(self, thread: str | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", f"tickets/{thread}/comments")["comments"]
        return found

    def connector(self, **options: Any) -> Zendesk:
        sign_in = {"client_id": "relay", "client_secret": SECRET}
        if options.keys() & {"access_token", "email"}:
            sign_in = {}
        given = {"subdomain": "acme", "base_url": self.url} | sign_in | options
        return Zendesk(Zendesk.Options(**given), http=Http(allow=["127.0.0.0/8"]))

    def _arrive(self) -> Response | None:
        if "X-Agent" in request.headers:
            return None
        path = request.path.removeprefix("/zendesk").removesuffix(".json")
        text = request.get_data(as_text=True)
        call = Call(
            method=request.method,
            path=path,
            query=request.args.to_dict(),
            headers=dict(request.headers),
            body=json.loads(text) if text else None,
        )
        with self._lock:
            self.calls.append(call)
            trouble = next((t for t in self.troubles if t.meets(request.method, path)), None)
            if trouble is None:
                return None
            trouble.times -= 1
        if trouble.act:
            request.environ["trouble"] = trouble
            return None
        return self._answer(trouble)

    def _leave(self, response: Response) -> Response:
        trouble: Trouble | None = request.environ.pop("trouble", None)
        return self._answer(trouble, response) or response if trouble else response

    def _answer(self, trouble: Trouble, response: Response | None = None) -> Response | None:
        time.sleep(trouble.wait)
        if trouble.status is None:
            return response
        return Response(trouble.body, trouble.status, headers=dict(trouble.headers))


@contextmanager
def opened() -> Iterator[Account]:
    account = Account()
    thread = threading.Thread(target=account.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield account
    finally:
        account.server.shutdown()
        thread.join()
        account.server.server_close()


def deliver(
    connector: Zendesk,
    event: Event | None = None,
    *,
    key: str | None = None,
    thread: str | None = None,
    repeat: bool = False,
    deadline: float = 10.0,
) -> Receipt:
    return connector.deliver(
        event or sample_event(),
        key=key or next(keys),
        thread=thread,
        repeat=repeat,
        deadline=deadline,
    )
