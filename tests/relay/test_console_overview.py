"""What needs attention, how destinations stand, what routes make of a message, what runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import consoles
import pytest
from consoles import ANN, HOSTILE, Console, Filled

from relay.rules.access import Role
from relay.rules.advice import ADVICE
from relay.rules.delivery import Outcome, OutcomeKind
from relay.rules.kinds import Kind
from relay.rules.pages import REPOSITORY
from relay.rules.problems import Finding
from relay.rules.signature import fingerprint
from relay.shapes.receipt import is_ours, read_receipt
from relay.store import Database
from relay.store.secret import store_secret
from relay.store.traffic import Traffic


@pytest.fixture
def console(tmp_path: Path, database: Database) -> Iterator[Console]:
    with consoles.console(tmp_path, database) as made:
        yield made


@pytest.fixture
def filled(filled_once: tuple[Path, Filled]) -> Filled:
    return filled_once[1]


def _problems(console: Console, *found: Finding) -> None:
    console.services.problems.judge(found, channels=lambda problem, change: [])
    console.services.shared.forget()


FAILING = Finding(kind=Kind.FAILING, subject="helpdesk", said="helpdesk fails, see doctor")


def test_all_is_well_is_said_so(console: Console) -> None:
    page = console.visitor(Role.VIEWER).get("/console/")

    assert "All is well" in page.text
    assert "0 messages came in" in page.text


def test_a_problem_says_what_it_means_who_waits_and_what_to_do(
    console: Console, filled: Filled
) -> None:
    _problems(console, FAILING)

    page = console.visitor(Role.OPERATOR).get("/console/")

    assert "“helpdesk” does not work" in page.text
    assert "Nothing is lost" in page.text
    assert "What to do:" in page.text
    # Cat waits for a try, Dan's message is on its way.
    assert "2 customers" in page.text
    assert 'href="/console/destinations/helpdesk"' in page.html
    assert f'href="{REPOSITORY}/docs/mending.md#failing"' in page.html
    assert "All is well" not in page.text


def test_the_chart_counts_what_came_and_arrived(console: Console) -> None:
    for number in range(3):
        console.sms(f"m{number}", customer=f"+6140000000{number}", ago=timedelta(minutes=9))
    console.attempt("crm", Outcome(kind=OutcomeKind.DELIVERED), ago=timedelta(minutes=8))
    while Traffic(console.database).count():
        pass

    week = console.visitor(Role.VIEWER).get("/console/?span=week")

    assert "3 messages came in" in week.text
    assert "3 deliveries arrived" in week.text
    assert console.visitor(Role.VIEWER).get("/console/?span=year").status == 404


def test_somebody_takes_a_problem_on(console: Console) -> None:
    _problems(console, FAILING)
    operator, viewer = console.visitor(Role.OPERATOR), console.visitor(Role.VIEWER)
    assert not viewer.get("/console/").has_button("I know")

    page = operator.follow(operator.press(operator.get("/console/"), "I know"))

    assert "operator <b> knows" in page.text
    assert not page.has_button("I know")
    (entry,) = console.services.actions.newest(limit=1)
    assert (entry.action.what, entry.action.who) == ("acknowledge", "operator <b>")
    assert entry.action.origin == "127.0.0.1"


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_problem_has_plain_words(kind: Kind) -> None:
    advice = ADVICE[kind]

    assert advice.title and advice.means and advice.do
    assert bool(advice.page) == bool(advice.button)
    assert "gofax-relay" not in advice.title + advice.means


def test_every_kind_of_problem_leads_to_a_page_that_exists(console: Console) -> None:
    findings = [
        Finding(kind=kind, subject="helpdesk" if "{}" in ADVICE[kind].title else "", said="x")
        for kind in Kind
    ]
    _problems(console, *findings)
    console.database.clock = lambda now=console.database.clock: now() + timedelta(hours=2)
    _problems(console, *findings)
    visitor = console.visitor(Role.VIEWER)

    page = visitor.get("/console/")

    assert [kind for kind in Kind if ADVICE[kind].means not in page.text] == []
    targets = re.findall('class="button main" href="([^"]*)"', page.html)
    assert [target for target in set(targets) if visitor.get(target).status != 200] == []


def test_a_destination_is_paused_for_a_while_and_served_again(
    console: Console, filled: Filled
) -> None:
    visitor = console.visitor(Role.OPERATOR)
    page = visitor.get("/console/destinations/helpdesk")

    wrong = visitor.press(page, "Pause", **{"for": "two hours", "why": "they move"})
    assert (wrong.status, 'value="two hours"' in wrong.html) == (422, True)
    assert 'value="they move"' in wrong.html
    assert console.services.queries.pauses() == {}

    paused = visitor.follow(visitor.press(page, "Pause", **{"for": "2h", "why": "they move"}))
    assert "helpdesk is paused" in paused.text
    assert "they move" in paused.text
    pause = console.services.queries.pauses()["helpdesk"]
    assert pause.until is not None
    assert timedelta(minutes=119) < pause.until - console.now <= timedelta(hours=2)

    served = visitor.follow(visitor.press(paused, "Resume"))
    assert "helpdesk is served again" in served.text
    assert console.services.queries.pauses() == {}


def test_destinations_show_what_waits_and_what_stopped(console: Console, filled: Filled) -> None:
    visitor = console.visitor(Role.VIEWER)

    page = visitor.get("/console/destinations")
    one = visitor.get("/console/destinations/helpdesk")

    assert [name in page.text for name in ("helpdesk", "crm", "front-desk")] == [True] * 3
    assert "3 waiting" in one.text
    assert "1 did not arrive" in one.text
    assert "503 Service Unavailable" in one.text
    assert not one.has_button("Pause")
    assert visitor.get("/console/destinations/none").status == 404


def test_a_destination_that_failed_last_does_not_look_well(
    console: Console, filled: Filled
) -> None:
    visitor = console.visitor(Role.VIEWER)
    failed = "served, last attempt failed"

    page = visitor.get("/console/destinations")

    assert page.text.count(failed) == 2  # of three
    assert failed in visitor.get("/console/destinations/helpdesk").text
    assert failed not in visitor.get("/console/destinations/crm").text


def test_a_pasted_message_shows_what_it_would_make(console: Console, filled: Filled) -> None:
    visitor = console.visitor(Role.VIEWER)
    page = visitor.get("/console/routes")
    assert "If the event is SMS_REPLY" in page.text

    payload = {"messageId": "try", "eventType": "SMS_REPLY", "from": ANN, "to": "+61700000000",
               "messageBody": HOSTILE + " urgent"}  # fmt: skip
    before = len(list(console.services.queries.events()))
    tried = visitor.press(page, "Try it", payload=json.dumps(payload))

    assert tried.status == 200
    assert "These routes send it to" in tried.text and "front-desk (teams)" in tried.text
    assert "replies become tickets" in tried.text
    assert "<script>alert" not in tried.html
    assert tried.html.count("What would be sent") >= 3
    assert len(list(console.services.queries.events())) == before


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("", "no endpoint takes form"),
        ("{", "could not read it"),
        ("[1, 2]", "could not read it"),
        ('{"a": ' * 5, "could not read it"),
        ("{" + " " * 70_000, "more than 65,536 bytes"),
    ],
)
def test_what_cannot_be_tried_is_named_and_kept(console: Console, payload: str, said: str) -> None:
    visitor = console.visitor(Role.VIEWER)

    page = visitor.press(visitor.get("/console/routes"), "Try it", payload=payload)

    assert page.status == 422
    assert said in page.text
    assert payload[:20].strip() in page.form("Try it").fields["payload"]


def test_a_stored_event_is_tried_again(console: Console, filled: Filled) -> None:
    visitor = console.visitor(Role.VIEWER)
    page = visitor.get("/console/routes")

    tried = visitor.press(page, "Try it", event=filled.arrived)
    unknown = visitor.press(page, "Try it", event="evt_nothing")

    assert "I need a quote" in tried.text
    assert (unknown.status, "no event" in unknown.text) == (422, True)


def test_settings_show_the_config_without_secrets(console: Console) -> None:
    page = console.visitor(Role.VIEWER).get("/console/settings")

    assert consoles.OURS not in page.html
    assert f"fingerprint {fingerprint(consoles.OURS)}" in page.text
    assert "**********" in page.text
    assert '"time_zone": "Australia/Brisbane"' in page.text
    assert "zendesk" in page.text


def test_the_audit_log_is_filtered_and_goes_on(console: Console) -> None:
    admin = console.visitor(Role.ADMIN)
    for number in range(60):
        console.services.actions.note(
            consoles.Act(who="cat", why=HOSTILE, at=console.now, origin="198.51.100.1"),
            "resend" if number % 2 else "settle",
            detail=f"number {number}",
        )

    first = admin.get("/console/settings/audit?who=cat&what=resend")
    whole = admin.get("/console/settings/audit")
    earlier = admin.get(whole.html.split('class="pager"><a class="button" href="')[1].split('"')[0]
                        .replace("&amp;", "&"))  # fmt: skip

    assert "number 59" in first.text and "number 58" not in first.text
    assert "<script>" not in first.html
    assert "number 59" in whole.text and "number 59" not in earlier.text
    assert "number 0" in earlier.text
    assert admin.get("/console/settings/audit?before=x").status == 404
    assert admin.get(f"/console/settings/audit?before={'9' * 30}").status == 200


def test_a_customer_is_erased_after_a_look_and_exported(console: Console, filled: Filled) -> None:
    admin = console.visitor(Role.ADMIN)
    page = admin.get("/console/settings/privacy")

    exported = admin.press(page, "Export", number="0400 000 123", why="asked by mail")
    assert exported.headers["Content-Type"] == "application/json"
    assert {each["message_id"] for each in json.loads(exported.html)["events"]} >= {"m-arrived"}

    looked = admin.press(page, "See what would go", number=ANN)
    assert "Would be removed" in looked.text
    assert console.services.queries.event(filled.arrived) is not None

    erased = admin.press(looked, "Erase it for ever", why="asked by mail")
    assert "Removed" in erased.text
    assert "https://acme.zendesk.com/agent/tickets/1013" in erased.text
    assert console.services.queries.event(filled.arrived) is None
    saved = admin.press(erased, "Save the receipt")
    receipt = read_receipt(saved.html)
    assert is_ours(receipt, store_secret(console.services.database))
    assert receipt["why"] == "asked by mail" and ANN not in saved.html
    forged = saved.html.replace("asked by mail", "nobody asked")
    assert admin.press(erased, "Save the receipt", receipt=forged).status == 422
    assert admin.press(erased, "Save the receipt", receipt="{}").status == 422
    assert admin.press(page, "Export", number=ANN).status == 422
    audit = admin.get("/console/settings/audit").text
    assert "erase" in audit and ANN not in audit
