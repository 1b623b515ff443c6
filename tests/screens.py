"""Make a picture of every page of the console: on a desktop, on a phone, and in the dark.

    python tests/screens.py [FOLDER]      into FOLDER, by default screens/
    python tests/screens.py --docs        the six of the documentation, into docs/images/

The pages are those of the real application, on a store that tells a story: a helpdesk that is
down since this morning, a customer who waits, a request that was refused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from werkzeug.serving import make_server

sys.path.insert(0, str(Path(__file__).parent / "relay"))

import consoles  # noqa: E402
from consoles import ANN, BEN, CAT, DAN, Console  # noqa: E402

from connectors.base import Receipt  # noqa: E402
from relay import migrations  # noqa: E402
from relay.rules.access import Role  # noqa: E402
from relay.rules.delivery import Outcome, OutcomeKind, Policy  # noqa: E402
from relay.rules.kinds import Kind  # noqa: E402
from relay.rules.problems import Finding  # noqa: E402
from relay.store import connect  # noqa: E402
from relay.store.traffic import Traffic  # noqa: E402

ROOT = Path(__file__).parents[1]
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

MODES: Mapping[str, Mapping[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 860}},
    "phone": {"viewport": {"width": 375, "height": 780}, "device_scale_factor": 2},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
}
#: What the documentation shows.
DOCS = ("attention", "conversation", "event", "stopped", "routes-tried", "destination")

#: How the CRM and the helpdesk say what became of a message.
TIMELINE = Receipt(reference="communication 1021", url="https://app.hubspot.com/contacts/1021")
CARD = Receipt(reference="accepted (202), not confirmed")


def _ticket(number: int) -> Receipt:
    url = f"https://acme.zendesk.com/agent/tickets/{number}"
    return Receipt(reference=f"ticket {number}", url=url, thread=str(number))


def tell(console: Console) -> Mapping[str, str]:
    """Put the story into the store; return names of pages and their paths."""
    arrived = OutcomeKind.DELIVERED

    def deliver(ago: timedelta, ticket: int | None) -> None:
        console.attempt("crm", Outcome(kind=arrived, receipt=TIMELINE), ago=ago)
        console.attempt("front-desk", Outcome(kind=arrived, receipt=CARD), ago=ago)
        if ticket is not None:
            console.attempt("helpdesk", Outcome(kind=arrived, receipt=_ticket(ticket)), ago=ago)

    for number, (customer, text) in enumerate(_CHATTER):
        console.sms(f"gf-{7300 + number}", text, customer=customer, ago=23 * HOUR - number * HOUR)
        deliver(23 * HOUR - number * HOUR - 2 * MINUTE / 60, 1000 + number)
    console.sms("gf-7401", "Hi, is my order 4711 ready?", ago=5 * DAY)
    deliver(5 * DAY, 1013)
    console.sms(
        "gf-7402", "Yes, you can pick it up from 9.", type="SMS_SENT", direction="outbound",
        ago=5 * DAY - 6 * MINUTE,
    )  # fmt: skip
    console.sms("gf-7405", "Thanks! I will come on Tuesday.", ago=5 * DAY - 8 * MINUTE)
    deliver(5 * DAY - 8 * MINUTE, 1013)
    last = console.sms("gf-7466", "I was there and it is the wrong size. Urgent!", ago=2 * HOUR)
    deliver(2 * HOUR, None)
    away = Outcome(kind=OutcomeKind.TRANSIENT, detail="503 Service Unavailable", status=503)
    later = Policy(schedule=(HOUR,))
    console.attempt("helpdesk", away, policy=later, ago=2 * HOUR)
    console.sms("gf-7467", "Hello? Anybody there?", ago=50 * MINUTE)
    deliver(50 * MINUTE, None)
    for number, (customer, text) in enumerate(_REFUSED):
        console.sms(f"gf-{7480 + number}", text, customer=customer, ago=3 * HOUR)
        deliver(3 * HOUR, None)
    refused = Outcome(kind=OutcomeKind.REFUSED, detail="422: requester is suspended", status=422)
    console.attempt("helpdesk", refused, ago=3 * HOUR)
    request = console.refuse(ago=40 * MINUTE)
    console.services.problems.judge(
        [
            Finding(
                kind=Kind.FAILING,
                subject="helpdesk",
                said="helpdesk fails again and again: the relay keeps trying, "
                "and gofax-relay destinations shows the last error",
                number=2,
            ),
            Finding(kind=Kind.DEAD, subject="helpdesk", said="3 deliveries are dead", number=3),
            Finding(
                kind=Kind.SIGNATURES,
                subject="/webhooks/gofax",
                said="signed requests to /webhooks/gofax are refused",
                number=4,
            ),
        ],
        channels=lambda problem, change: [],
    )
    while Traffic(console.database).count(limit=2000):
        pass
    return {
        "attention": "/console/",
        "search": "/console/search?q=000123",
        "conversation": f"/console/conversations/{ANN}",
        "event": f"/console/events/{last}",
        "events": "/console/events",
        "requests": "/console/requests?standing=refused",
        "request": f"/console/requests/{request}",
        "stopped": "/console/stopped",
        "destinations": "/console/destinations",
        "destination": "/console/destinations/helpdesk",
        "routes": "/console/routes",
        "routes-tried": "/console/routes#try",
        "api-call": "/console/api?call=resend_deliveries",
        "settings": "/console/settings",
        "people": "/console/settings/people",
        "audit": "/console/settings/audit",
        "privacy": "/console/settings/privacy",
        "api": "/console/api",
    }


_CHATTER = [
    (BEN, "Can I still change my booking?"),
    (CAT, "Where do I park?"),
    (DAN, "Running ten minutes late, sorry"),
    (BEN, "Perfect, thank you"),
    (CAT, "\u05ea\u05d5\u05d3\u05d4 \u05e8\u05d1\u05d4!"),
    (DAN, "What does it cost to have it delivered?"),
    (CAT, "OK see you then"),
    (BEN, "Do you have it in blue?"),
]
_REFUSED = [
    ("+61400000131", "My card was declined, what now?"),
    ("+61400000132", "Please send me the invoice again"),
    ("+61400000133", "Is anybody working today?"),
]


@contextmanager
def served(folder: Path) -> Iterator[tuple[Console, str]]:
    """Serve the console on a store of its own; yield it with its address."""
    database = connect(f"sqlite:///{folder / 'relay.db'}")
    with closing(database):
        migrations.upgrade(database)
        with consoles.console(folder, database) as console:
            server = make_server("127.0.0.1", 0, console.app, threaded=True)
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            yield console, f"http://127.0.0.1:{server.port}"
            server.shutdown()


def open_page(browser: Browser, console: Console, role: Role, **mode: Any) -> Any:
    """Open a page of *browser* in which somebody of *role* is signed in."""
    visitor = console.visitor(role, name="mary")
    cookie = visitor.client.get_cookie("gofax_console", path="/console")
    assert cookie is not None
    context = browser.new_context(**mode)
    context.add_cookies(
        [{"name": cookie.key, "value": cookie.value, "domain": "127.0.0.1", "path": "/console"}]
    )
    return context.new_page()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "screens")
    parser.add_argument("--docs", action="store_true", help="only those of the documentation")
    parser.add_argument("--only", nargs="*", help="names of pages")
    given = parser.parse_args()
    folder = ROOT / "docs" / "images" if given.docs else given.folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, served(Path(temporary)) as (console, url):
        pages = tell(console)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox"]
            )
            for mode, options in MODES.items():
                if given.docs and mode != "desktop":
                    continue
                page = open_page(browser, console, Role.ADMIN, **options)
                for name, path in pages.items():
                    if given.docs and name not in DOCS or given.only and name not in given.only:
                        continue
                    page.goto(url + path)
                    if name == "routes-tried":
                        page.click("text=Try it")
                    target = folder / (f"{name}.png" if given.docs else f"{name}-{mode}.png")
                    page.screenshot(path=target, full_page=not given.docs)
                    sys.stdout.write(f"{target.name}: {page.title()}\n")
            browser.close()


if __name__ == "__main__":
    main()
