"""A console with a well-filled store, and people who look at its pages: for tests of all pages."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from fakes import failed, finish, take
from flask import Flask
from gofax import sign
from werkzeug.test import TestResponse

from connectors.base import Receipt
from relay.admin_app import create_admin_app
from relay.api.services import Services, install
from relay.config import installed
from relay.config.load import load
from relay.config.model import Config
from relay.intake import Intake
from relay.rules.access import Role
from relay.rules.delivery import Outcome, OutcomeKind, Policy
from relay.store import Database, Inbox, Queue, Recovery, StoreUnavailable
from relay.store.actions import Act
from relay.store.ids import new_id
from relay.store.values import Request

#: Two secrets, in pieces that no scanner takes for such.
OURS, THEIRS = "hush" * 3, "shush" * 3
CONFIG = f"""\
time_zone: Australia/Brisbane
dedupe_horizon: 400d
admin: %s
endpoints:
  - {{path: /webhooks/gofax, signing_secrets: [{OURS}]}}
destinations:
  helpdesk: {{connector: zendesk, subdomain: acme, access_token: test}}
  crm: {{connector: hubspot, access_token: test}}
  front-desk: {{connector: teams, url: "https://example.com/flow", on_ambiguous: hold}}
routes:
  - {{name: all to the CRM, when: {{event: [SMS_REPLY, SMS_RECEIVED]}}, to: [crm]}}
  - {{name: replies become tickets, when: {{event: SMS_REPLY}}, to: [helpdesk]}}
  - {{name: urgent to the front desk, when: {{body: "(?i)urgent"}}, to: [front-desk]}}
"""
#: What strangers may write: markup, template marks, controls, and characters that turn a line.
HOSTILE = '<script>alert(1)</script> {{ 7*7 }} "><img src=x onerror=a()> \u202egpj.exe\u2066 \x07'
LONG = "a" * 10_000
HEBREW = "\u05e9\u05dc\u05d5\u05dd, \u05de\u05ea\u05d9 \u05d0\u05ea\u05dd \u05e4\u05ea\u05d5\u05d7\u05d9\u05dd?"  # noqa: E501
ORIGIN = "127.0.0.1"

ANN, BEN, CAT, DAN = ("+61400000123", "+61400000124", "+61400000125", "+61400000126")
EVE = "+61400000127"
OUR_NUMBER = "+61700000000"

#: Marks within a line, which part no words.
_WITHIN = re.compile(r"</?(?:a|b|bdi|code|i|span|time)\b[^>]*>")
_CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Form:
    """A form of a page, as a browser would send it."""

    method: str
    action: str
    fields: Mapping[str, str]
    buttons: Sequence[str]


class Page:
    """An answer of the console, as a person or a browser reads it."""

    def __init__(self, answer: TestResponse) -> None:
        self.status = answer.status_code
        self.headers = answer.headers
        self.html = answer.get_data(as_text=True)
        #: Where a form goes that says nothing else.
        self.path = answer.request.full_path
        #: Where it leads, if it is a redirect.
        self.location = answer.headers.get("Location", "")

    @property
    def text(self) -> str:
        """Return the words of the page, without marks."""
        shown = re.sub(r"<(script|style)\b.*?</\1>", " ", self.html, flags=re.DOTALL)
        shown = _WITHIN.sub("", shown)
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", shown)).split())

    @property
    def forms(self) -> Sequence[Form]:
        reader = _Forms(self.path)
        reader.feed(self.html)
        return reader.forms

    def form(self, button: str) -> Form:
        """Return the one form that has this button."""
        found = [each for each in self.forms if button in each.buttons]
        assert found, f"no button {button!r} among {[each.buttons for each in self.forms]}"
        return found[0]

    def link(self, said: str) -> str:
        """Return where the link with these words leads; nothing if there is none."""
        found = re.search(rf'<a [^>]*href="([^"]*)"[^>]*>\s*{re.escape(said)}\s*</a>', self.html)
        return html.unescape(found[1]) if found else ""

    def has_button(self, button: str) -> bool:
        return any(button in each.buttons for each in self.forms)


class _Forms(HTMLParser):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self.forms: list[Form] = []
        self._open: dict[str, Any] | None = None
        self._button: str | None = None
        self._select: str | None = None
        self._area: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            action, method = given.get("action", self._path), given.get("method", "get")
            self._open = {"method": method, "action": action, "fields": {}, "buttons": []}
        if self._open is None:
            return
        fields, name = self._open["fields"], given.get("name", "")
        if tag == "button":
            self._button = ""
            if name:
                self._open.setdefault("values", {})[name] = given.get("value", "")
        if tag == "textarea" and name:
            self._area, fields[name] = name, ""
        if tag == "select":
            self._select = name
        if (
            tag == "option"
            and self._select
            and ("selected" in given or self._select not in fields)
        ):
            fields[self._select] = given.get("value", "")
        kind = given.get("type", "text")
        if tag == "input" and name and (kind not in ("checkbox", "radio") or "checked" in given):
            fields[name] = given.get("value", "on" if kind == "checkbox" else "")

    def handle_data(self, data: str) -> None:
        if self._button is not None:
            self._button += data
        if self._area is not None and self._open is not None:
            self._open["fields"][self._area] += data

    def handle_endtag(self, tag: str) -> None:
        if self._open is None:
            return
        if tag == "button" and self._button is not None:
            self._open["buttons"].append(" ".join(self._button.split()))
            self._button = None
        if tag == "textarea":
            self._area = None
        if tag == "select":
            self._select = None
        if tag == "form":
            made = self._open
            self.forms.append(
                Form(made["method"], made["action"], made["fields"], made["buttons"])
            )
            self._open = None


class Visitor:
    """Somebody with a browser: signed in with a role, or nobody."""

    def __init__(self, app: Flask, *, name: str | None, role: Role | None) -> None:
        self.name, self.role = name, role
        self.client = app.test_client()

    def get(self, path: str, **options: Any) -> Page:
        return Page(self.client.get(path, **options))

    def post(self, path: str, *, has_token: bool = True, **fields: str) -> Page:
        """Send a form with the token of the start page, or without."""
        if has_token:
            found = _CSRF.search(self.get("/console/").html)
            assert found is not None
            fields["csrf_token"] = found[1]
        return Page(self.client.post(path, data=fields))

    def press(self, page: Page, button: str, **fields: str) -> Page:
        """Fill in and send the form of *page* that has *button*."""
        form = page.form(button)
        sent = {**form.fields, **fields}
        if form.method.lower() == "get":
            return Page(self.client.get(form.action, query_string=sent))
        return Page(self.client.post(form.action, data=sent))

    def follow(self, page: Page) -> Page:
        """Go where a redirect leads."""
        assert page.location, f"no redirect: {page.status} {page.text[:200]}"
        return self.get(page.location)


@dataclass(frozen=True, kw_only=True)
class Console:
    """The real application on a real store."""

    app: Flask
    config: Config
    database: Database
    inbox: Inbox
    services: Services
    queue: Queue
    _visitors: dict[Role, Visitor] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        return self.database.clock()

    @property
    def weekday(self) -> str:
        """Return today by the clock on the wall there."""
        return f"{self.now.astimezone(self.config.zone):%A}"

    @property
    def nobody(self) -> Visitor:
        return Visitor(self.app, name=None, role=None)

    def visitor(self, role: Role | str, *, name: str = "") -> Visitor:
        """Return somebody who has signed in, without the price of a password."""
        role = Role(role)
        if role not in self._visitors:
            self._visitors[role] = self._sign_in(role, name or f"{role} <b>")
        return self._visitors[role]

    def sms(
        self,
        message_id: str | None,
        body: str | None = "hello",
        *,
        customer: str = ANN,
        ours: str = OUR_NUMBER,
        type: str = "SMS_REPLY",
        direction: str = "reply",
        ago: timedelta = timedelta(minutes=10),
        **further: Any,
    ) -> str:
        """Accept a message through today's routes, *ago* from now, and return its event's id."""
        from_, to = (customer, ours) if direction != "outbound" else (ours, customer)
        said = {"messageId": message_id, "eventType": type, "direction": direction, "from": from_,
                "to": to, "messageBody": body, **further}  # fmt: skip
        raw = json.dumps(said).encode()
        request = Request(
            id=new_id("req"),
            at=self.now - ago,
            endpoint="/webhooks/gofax",
            method="POST",
            remote="198.51.100.7",
            headers={"content-type": "application/json", "user-agent": "GoFax"},
            status=200,
            reason="signature good",
        )
        intake = Intake.of(self.config, self.config.endpoints[0], judge=None)
        arrival = intake.arrival(request, raw, charset=None)
        return self.inbox.accept(arrival).event_id

    def refuse(
        self,
        *,
        body: bytes = b'{"messageId": "m-refused", "eventType": "SMS_REPLY", '
        b'"from": "+61400000126", "to": "+61700000000", "messageBody": "let me in"}',
        secret: str | None = THEIRS,
        path: str = "/webhooks/gofax",
        status: int = 401,
        reason: str = "signature does not match the secret",
        ago: timedelta = timedelta(minutes=5),
    ) -> str:
        """Keep a request that was refused, signed with *secret*, and return its id."""
        headers = {"content-type": "application/json"}
        if secret:
            headers["x-gofax-signature"] = sign(body, secret)
        request = Request(
            id=new_id("req"),
            at=self.now - ago,
            endpoint=path,
            method="POST",
            remote="198.51.100.9",
            headers=headers,
            status=status,
            outcome="refused",
            reason=reason,
            body=body,
            signed=secret is not None,
            whole=True,
        )
        self.inbox.refuse([request])
        return request.id

    def attempt(
        self,
        destination: str,
        outcome: Outcome | None = None,
        *,
        policy: Policy | None = None,
        ago: timedelta = timedelta(minutes=9),
    ) -> None:
        """Attempt what is due at *destination*, each with this outcome; None: it runs still."""
        now = self.now - ago
        # What runs still does so when the store that was filled is used much later, too.
        for claim in take(self.queue, destination=destination, now=now, lease=timedelta(days=1)):
            if outcome is not None:
                finish(self.queue, claim, outcome, now=now, policy=policy)

    def event(self, name: str) -> Any:
        view = self.services.queries.event(name)
        assert view is not None
        return view

    def states(self, name: str) -> dict[str, str]:
        """Return the state of each delivery of an event."""
        return {each.destination: each.state.value for each in self.event(name).deliveries}

    def pause(self, destination: str) -> None:
        act = Act(who="ann", why="it is moved", at=self.now, origin=ORIGIN)
        Recovery(self.database).pause(destination, act)

    def _sign_in(self, role: Role, name: str) -> Visitor:
        now = self.now
        act = Act(who="test", why=None, at=now, origin=ORIGIN)
        user = self.services.users.add(name, role, act)
        assert user is not None
        visitor = Visitor(self.app, name=name, role=role)
        at = now.timestamp()
        with visitor.client.session_transaction("/console/") as session:
            session.permanent = True
            session.update(user=name, epoch=user.epoch, began=at, seen=at, confirmed=at)
        return visitor


#: Applications of this process that nobody uses now, by whether they mask.
_FREE: dict[str, list[Flask]] = {}


@contextmanager
def console(
    folder: Path, database: Database, *, mask: bool = False, url: str | None = None
) -> Iterator[Console]:
    """Make the application on the store *database*; *mask*: viewers see no number and no text."""
    file = folder / "config.yaml"
    admin = json.dumps({"listen": "127.0.0.1:8081", "mask": mask} | ({"url": url} if url else {}))
    file.write_text(CONFIG % admin, encoding="utf-8")
    config = load(file, find_connector=installed.find)
    assert config.admin is not None
    services = Services(config, database)
    # To describe the API takes most of the time, so an application is used again.
    free = _FREE.setdefault(admin, [])
    app = free.pop() if free else create_admin_app(config.admin, services, scrape=lambda: b"")
    install(app, services)
    with suppress(StoreUnavailable):
        app.secret_key = services.users.secret()
    queue = Queue(database, node="worker-1", again=0.005)
    with closing(Inbox(database)) as inbox, closing(queue):
        yield Console(
            app=app, config=config, database=database, inbox=inbox, services=services, queue=queue
        )
        services.runner.close(within=10)
    free.append(app)


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """Yield the statements that the store is asked meanwhile."""
    asked: list[str] = []

    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        asked.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    yield asked
    sa.event.remove(database.engine, "before_cursor_execute", note)


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """Ids of what a well-filled store has."""

    #: Ann's: arrived everywhere, in ticket 1013.
    arrived: str
    #: Ben's: the helpdesk refused it.
    dead: str
    #: Ben's: nobody knows whether the card is in Teams.
    held: str
    #: Cat's: will be tried again at the helpdesk.
    pending: str
    #: Cat's: waits for the one before.
    waiting: str
    #: Dan's: an attempt runs at the helpdesk.
    in_flight: str
    #: Eve's: markup and characters that turn lines; a long one; one from right to left.
    hostile: str
    long: str
    hebrew: str
    #: No route matched; a test; a conflict; ours to Ann.
    unrouted: str
    test: str
    conflict: str
    outbound: str
    #: Requests: signed with another secret, without a signature, at a path that is none.
    signed: str
    unsigned: str
    elsewhere: str


def fill(console: Console) -> Filled:
    """Put events in, with deliveries in every state, and requests that were refused."""
    ticket = Receipt(
        reference="ticket 1013",
        url="https://acme.zendesk.com/agent/tickets/1013",
        thread="1013",
    )
    timeline = Receipt(reference="communication 77", url="https://app.hubspot.com/contacts/77")
    card = Receipt(reference="accepted (202), not confirmed")
    day = timedelta(days=1)

    arrived = console.sms("m-arrived", "I need a quote, urgent please", ago=2 * day)
    for name, receipt in (("helpdesk", ticket), ("crm", timeline), ("front-desk", card)):
        outcome = Outcome(kind=OutcomeKind.DELIVERED, receipt=receipt)
        console.attempt(name, outcome, ago=2 * day - timedelta(minutes=1))
    outbound = console.sms(
        "m-outbound", "It will cost $200.", type="SMS_SENT", direction="outbound", ago=day
    )

    dead = console.sms(
        "m-dead", "My order 4711 is broken", customer=BEN, ago=3 * timedelta(hours=1)
    )
    refused = failed(OutcomeKind.REFUSED, "422 Unprocessable: requester is suspended", status=422)
    console.attempt("helpdesk", refused)
    console.attempt("crm", Outcome(kind=OutcomeKind.DELIVERED, receipt=timeline))
    held = console.sms("m-held", "URGENT call me", customer=BEN, ours="+61700000009")
    console.attempt("crm", Outcome(kind=OutcomeKind.DELIVERED, receipt=timeline))
    console.attempt("helpdesk", Outcome(kind=OutcomeKind.DELIVERED, receipt=ticket))
    doubt = failed(OutcomeKind.AMBIGUOUS, "timed out after 25 s; the card may be there")
    console.attempt("front-desk", doubt, policy=Policy(on_ambiguous="hold"))

    pending = console.sms("m-pending", "Where are you?", customer=CAT)
    away = failed(OutcomeKind.TRANSIENT, "503 Service Unavailable", status=503)
    in_an_hour = Policy(schedule=(timedelta(hours=1),))
    console.attempt("helpdesk", away, policy=in_an_hour)
    waiting = console.sms("m-waiting", "Hello?", customer=CAT, ago=timedelta(minutes=2))
    hostile = console.sms("m-hostile", HOSTILE, customer=EVE, type="SMS_RECEIVED")
    long = console.sms("m-long", LONG, customer=EVE, type="SMS_RECEIVED")
    hebrew = console.sms("m-hebrew", HEBREW, customer=EVE, type="SMS_RECEIVED")
    console.attempt("crm", Outcome(kind=OutcomeKind.DELIVERED, receipt=timeline))
    in_flight = console.sms("m-in-flight", "One moment", customer=DAN)
    console.attempt("helpdesk", None, ago=timedelta(seconds=5))

    unrouted = console.sms("m-unrouted", "STOP", customer=DAN, type="SMS_OTHER")
    test = console.sms(f"test-{'0' * 24}", "This is a test", ours="+61700000001")
    console.sms("m-arrived", "I need a quote, urgent please", ago=day)
    conflict = console.sms("m-arrived", "Something else", ago=timedelta(minutes=20))
    return Filled(
        arrived=arrived,
        dead=dead,
        held=held,
        pending=pending,
        waiting=waiting,
        in_flight=in_flight,
        hostile=hostile,
        long=long,
        hebrew=hebrew,
        unrouted=unrouted,
        test=test,
        conflict=conflict,
        outbound=outbound,
        signed=console.refuse(),
        unsigned=console.refuse(secret=None, reason="no signature"),
        elsewhere=console.refuse(
            path="/wp-login.php", secret=None, status=404, reason="no such endpoint"
        ),
    )
