"""Events, requests and what stopped: filtered, paged, taken away, and acted upon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import consoles
import pytest
from consoles import ANN, BEN, DAN, THEIRS, Console, Filled, Page
from fakes import eventually, failed

from relay.console import sheets
from relay.rules.delivery import OutcomeKind
from relay.store import Database
from relay.store.search import STOPPED, Filter


@pytest.fixture
def console(tmp_path: Path, database: Database) -> Iterator[Console]:
    with consoles.console(tmp_path, database) as made:
        yield made


@pytest.fixture
def filled(filled_once: tuple[Path, Filled]) -> Filled:
    return filled_once[1]


CSV_HEAD = "received,event,message_id,type,standing,test,endpoint,from,to,text"


def events(console: Console, **asked: str) -> Page:
    return console.visitor("viewer").get("/console/events", query_string=asked)


#: What is asked for, a text that is there, and one that is not.
ASKED = [
    ({}, "URGENT call me", "nothing"),
    ({"customer": "0400 000 124"}, "My order 4711", "I need a quote"),
    ({"customer": "0123"}, "I need a quote", "My order 4711"),
    ({"text": "order brok"}, "My order 4711", "URGENT"),
    ({"message_id": "m-held"}, "URGENT", "My order 4711"),
    ({"type": "SMS_OTHER"}, "STOP", "URGENT"),
    ({"destination": "front-desk"}, "URGENT", "My order 4711"),
    ({"state": "dead"}, "My order 4711", "URGENT"),
    ({"standing": "conflict"}, "Something else", "URGENT"),
    ({"endpoint": "/webhooks/gofax"}, "URGENT", "nothing"),
    ({"since": "1h"}, "URGENT", "I need a quote"),
    ({"until": "1d12h"}, "I need a quote", "URGENT"),
    ({"tests": "hide"}, "URGENT", "This is a test"),
]


def test_events_are_those_that_are_asked_for(console: Console, filled: Filled) -> None:
    for asked, there, not_there in ASKED:
        page = events(console, **asked)

        assert there in page.text and not_there not in page.text, asked
        fields = page.form("Filter").fields
        assert {name: fields[name] for name in asked} == asked


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({"customer": "12"}, "too many numbers end so"),
        ({"text": "!!"}, "a word or a number"),
        ({"since": "yesterday"}, "2h or 3d (ago)"),
        ({"since": "1h", "until": "2h"}, "nothing is between them"),
        ({"state": "lost"}, "one of waiting"),
        ({"type": "x" * 600}, "at most 500 characters"),
    ],
)
def test_a_filter_that_is_wrong_is_named_and_kept(
    console: Console, filled: Filled, asked: dict[str, str], fault: str
) -> None:
    page = events(console, **asked)

    assert page.status == 422
    assert fault in page.text and "URGENT" not in page.text
    assert 'aria-invalid="true"' in page.html
    fields = page.form("Filter").fields
    assert {name: fields[name] for name in asked} == asked


def test_pages_of_events_have_each_once(console: Console) -> None:
    for number in range(105):
        console.sms(f"m{number}", f"text {number:03}")
    viewer, seen, path = console.visitor("viewer"), "", "/console/events?type=SMS_REPLY"

    while path:
        page = viewer.get(path)
        seen += page.text
        path = page.link("Older")

    assert [seen.count(f"text {number:03}") for number in range(105)] == [1] * 105


def test_a_page_of_events_asks_the_store_little(console: Console) -> None:
    for number in range(60):
        console.sms(f"m{number}", f"text {number}", customer=f"+6140000{number:04}")
    viewer = console.visitor("viewer")
    viewer.get("/console/")

    with consoles.counted(console.database) as asked:
        viewer.get("/console/events")

    assert len(asked) < 15


def test_events_are_taken_away_as_asked_for(console: Console, filled: Filled) -> None:
    console.sms("m-formula", "=HYPERLINK(1)", customer=DAN)
    viewer = console.visitor("viewer")

    everything = viewer.get("/console/events/export.csv")
    some = viewer.get("/console/events/export.csv?state=dead")

    assert everything.headers["Content-Type"].startswith("text/csv")
    assert everything.html.startswith(f"\ufeff{CSV_HEAD}")
    assert ",'=HYPERLINK(1)," in everything.html
    assert f",{ANN}," in everything.html
    assert "My order 4711" in some.html and "URGENT" not in some.html
    assert viewer.get("/console/events/export.csv?since=x").location == "/console/events?since=x"


def test_a_file_that_would_be_too_long_says_so(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "MOST", 3)
    for number in range(4):
        console.sms(f"m{number}")

    lines = console.visitor("viewer").get("/console/events/export.csv").html.splitlines()

    assert len(lines) == 5
    assert lines[-1] == "only the newest 3 are here: narrow down what you ask for"


def test_requests_say_what_became_of_them(console: Console, filled: Filled) -> None:
    viewer = console.visitor("viewer")

    everything = viewer.get("/console/requests")
    refused = viewer.get("/console/requests?standing=refused")

    assert f"/console/events/{filled.dead}" in everything.html
    assert f"/console/requests/{filled.signed}" in refused.html
    assert "/console/events/evt" not in refused.html
    assert "signature does not match the secret" in refused.text
    assert viewer.get("/console/requests?standing=lost").status == 422
    assert "no such endpoint" in viewer.get("/console/requests/export.csv").html


def test_pages_of_requests_have_each_once(console: Console) -> None:
    for number in range(60):
        console.sms(f"m{number}")
        console.refuse()
    viewer, seen, path = console.visitor("viewer"), "", "/console/requests"

    while path:
        page = viewer.get(path)
        seen += page.html
        path = page.link("Older")

    assert seen.count("/console/requests/req_") == seen.count("/console/events/evt_") == 60


def test_another_secret_is_tried_and_never_kept(
    console: Console, filled: Filled, tmp_path: Path
) -> None:
    operator = console.visitor("operator")
    page = operator.get(f"/console/requests/{filled.signed}")
    assert "No secret explains the signature in" in page.text
    assert '"messageBody": "let me in"' in page.text

    assert operator.press(page, "Try it", secret="").status == 422
    assert "not explained either" in operator.press(page, "Try it", secret="another").text
    found = operator.press(page, "Try it", secret=THEIRS)

    assert "The secret that you typed explains the signature. It was not kept." in found.text
    assert THEIRS not in found.html
    assert all(
        THEIRS.encode() not in file.read_bytes() for file in tmp_path.iterdir() if file.is_file()
    )


def test_what_no_secret_proves_stays_out(console: Console, filled: Filled) -> None:
    operator = console.visitor("operator")

    look = operator.press(operator.get(f"/console/requests/{filled.signed}"), "Let in…")

    assert "Nothing would change" in look.text and "stays out" in look.text


def test_what_todays_secret_proves_is_let_in(console: Console) -> None:
    id_ = console.refuse(secret=consoles.OURS)
    operator = console.visitor("operator")

    look = operator.press(operator.get(f"/console/requests/{id_}"), "Let in…")
    assert "comes in as SMS_REPLY, and goes to crm, helpdesk" in look.text
    assert console.services.queries.event("m-refused") is None
    done = operator.press(look, "Let in", why="the secret was renewed")

    after = operator.follow(done)
    assert "It is in." in after.text and "let me in" in after.text
    assert set(console.states("m-refused")) == {"crm", "helpdesk"}


def test_all_that_todays_secret_proves_is_let_in(console: Console, filled: Filled) -> None:
    for number in range(3):
        said = f'{{"messageId": "late-{number}", "eventType": "SMS_REPLY", "from": "{DAN}"}}'
        console.refuse(body=said.encode(), secret=consoles.OURS)
    operator = console.visitor("operator")
    page = operator.get("/console/requests?standing=refused&since=1h")

    look = operator.press(page, "Let in what today's secrets verify…")
    assert "3 requests: will be let in" in look.text and "1 request: left" in look.text
    after = operator.follow(operator.press(look, "Let in"))

    assert "3 requests let in." in after.text and not after.has_button("Undo")
    assert all(console.services.queries.event(f"late-{number}") for number in range(3))


def test_a_persons_word_needs_a_reason(console: Console, filled: Filled) -> None:
    operator = console.visitor("operator")
    page = operator.get(f"/console/requests/{filled.unsigned}")
    assert not page.has_button("Let in…")

    look = operator.press(page, "Let in on my word…")
    assert look.status == 200
    refused = operator.press(look, "Let in", why="")
    assert (refused.status, "why: write a few words" in refused.text) == (422, True)
    done = operator.press(refused, "Let in", why="GoFax confirmed it")

    assert "It is in." in operator.follow(done).text
    (action, *_) = console.event("m-refused").actions
    assert action.why == "GoFax confirmed it"


def test_what_stopped_is_grouped_by_destination_and_cause(
    console: Console, filled: Filled
) -> None:
    viewer = console.visitor("viewer")

    page = viewer.get("/console/stopped")
    only = viewer.get("/console/stopped?destination=helpdesk")
    listed = viewer.get("/console/stopped/list?destination=helpdesk")

    assert "helpdesk 1 delivery" in page.text and "front-desk 1 delivery" in page.text
    assert "requester is suspended" in page.text
    assert "front-desk" not in only.text
    assert BEN in listed.text and f"/console/events/{filled.dead}" in listed.html
    exported = viewer.get("/console/stopped/export.csv?destination=helpdesk").html
    assert f",helpdesk,dead,{BEN}," in exported and "front-desk" not in exported


def test_nothing_stopped_says_so(console: Console) -> None:
    assert "Nothing has stopped." in console.visitor("viewer").get("/console/stopped").text


def stop_many(console: Console, number: int) -> None:
    for each in range(number):
        console.sms(f"m{each}", customer=f"+6140000{each:04}", type="SMS_RECEIVED")
    for _ in range(-(-number // 100)):
        console.attempt("crm", failed(OutcomeKind.REFUSED, "403 the account is over"))


def test_a_small_group_is_resent_at_once_and_taken_back(console: Console) -> None:
    stop_many(console, 12)
    operator = console.visitor("operator")
    page = operator.get("/console/stopped")

    look = operator.press(page, "Resend")
    assert "12 deliveries: will be resent" in look.text
    assert console.services.recovery.count(Filter(states=STOPPED)) == 12
    after = operator.follow(operator.press(look, "Resend", why="it is paid"))
    assert "12 deliveries resent." in after.text
    assert console.services.recovery.count(Filter(states=STOPPED)) == 0

    undo = operator.press(after, "Undo")
    operator.press(undo, "Undo")
    assert console.services.recovery.count(Filter(states=STOPPED)) == 12


def test_a_large_group_has_a_page_that_shows_how_far_it_is(console: Console) -> None:
    stop_many(console, 120)
    operator = console.visitor("operator")

    look = operator.press(operator.get("/console/stopped"), "Resend")
    assert "120 deliveries: will be resent" in look.text
    wrong = operator.press(look, "Resend", rate="fast")
    assert (wrong.status, "at most: write a rate" in wrong.text) == (422, True)
    assert wrong.form("Resend").fields["rate"] == "fast"
    begun = operator.press(look, "Resend", rate="50/1h")

    act = begun.location
    running = operator.follow(begun)
    eventually(lambda: "50 of 120 deliveries looked at" in operator.get(act).text)
    assert 'data-live="1"' in running.html and running.has_button("Stop")
    operator.press(operator.get(act), "Stop")
    eventually(lambda: "Stopped: 50 deliveries resent" in operator.get(act).text)
    over = operator.get(act)
    assert "data-live" not in over.html and over.has_button("Undo")
    assert console.services.recovery.count(Filter(states=STOPPED)) == 70

    undo = operator.press(over, "Undo")
    operator.press(undo, "Undo")
    eventually(lambda: console.services.recovery.count(Filter(states=STOPPED)) == 120)


def test_a_form_that_is_sent_twice_acts_once(console: Console) -> None:
    stop_many(console, 120)
    operator = console.visitor("operator")
    look = operator.press(operator.get("/console/stopped"), "Resend")

    begun = operator.press(look, "Resend", rate="50/1h")
    again = operator.press(look, "Resend", rate="50/1h")

    assert again.location == begun.location
    assert "That was sent twice, and is done once." in operator.follow(again).text
    assert len(console.services.runner.all()) == 1
    operator.press(operator.get(begun.location), "Stop")


def test_a_small_group_is_resent_once_by_a_form_that_is_sent_twice(console: Console) -> None:
    stop_many(console, 2)
    operator = console.visitor("operator")
    look = operator.press(operator.get("/console/stopped"), "Resend")

    operator.press(look, "Resend")
    again = operator.press(look, "Resend")

    assert "That was sent twice, and is done once." in operator.follow(again).text
    assert len(console.event("m0").actions) == 1


def test_a_form_can_be_sent_again_if_it_could_not_begin(console: Console) -> None:
    stop_many(console, 220)
    operator = console.visitor("operator")
    looks = [operator.press(operator.get("/console/stopped"), "Resend") for _ in range(5)]
    begun = [operator.press(look, "Resend", rate="1/1h") for look in looks[:4]]
    many = operator.press(looks[4], "Resend", rate="1/1h")
    assert "acts run already" in operator.follow(many).text

    operator.press(operator.get(begun[0].location), "Stop")
    eventually(lambda: "Stopped: " in operator.get(begun[0].location).text)
    again = operator.press(looks[4], "Resend", rate="1/1h")

    assert again.location.startswith("/console/acts/")
    for act in [*begun[1:], again]:
        operator.press(operator.get(act.location), "Stop")


def test_a_reason_that_no_group_can_have_is_a_fault(console: Console) -> None:
    page = console.visitor("operator").post("/console/stopped/resend", reason="x" * 60_000)

    assert (page.status, "reason: at most 10,000 characters" in page.text) == (422, True)


def test_what_is_said_after_an_act_fits_into_a_cookie(console: Console) -> None:
    id_ = console.refuse(path=f"/{'x' * 5000}")
    operator = console.visitor("operator")

    after = operator.post(f"/console/requests/{id_}/admit", confirmed="1")

    assert len(after.headers["Set-Cookie"]) < 2000
    assert "It stays out: there is no endpoint /xxx" in operator.follow(after).text


def test_an_act_that_nobody_did_has_no_page(console: Console) -> None:
    assert console.visitor("viewer").get("/console/acts/act_never").status == 404
