"""One customer's messages as a chat, and the one search box that leads there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import consoles
import pytest
from consoles import ANN, BEN, CAT, EVE, HEBREW, LONG, Console, Filled

from relay.console import wording
from relay.store import Database


@pytest.fixture
def console(tmp_path: Path, database: Database) -> Iterator[Console]:
    with consoles.console(tmp_path, database) as made:
        yield made


@pytest.fixture
def filled(filled_once: tuple[Path, Filled]) -> Filled:
    return filled_once[1]


def said(console: Console, number: str, query: str = "") -> str:
    return console.visitor("viewer").get(f"/console/conversations/{number}{query}").text


def test_a_message_says_where_it_is_and_since_when(console: Console, filled: Filled) -> None:
    page = console.visitor("viewer").get(f"/console/conversations/{ANN}")

    assert "I need a quote, urgent please" in page.text
    assert "in Zendesk ticket 1013 since" in page.text
    assert "in the HubSpot timeline since" in page.text and "in Teams since" in page.text
    assert 'href="https://acme.zendesk.com/agent/tickets/1013"' in page.html
    assert f'href="/console/events/{filled.arrived}"' in page.html


def test_theirs_and_ours_are_on_different_sides(console: Console, filled: Filled) -> None:
    page = console.visitor("viewer").get(f"/console/conversations/{ANN}")

    assert page.html.count('class="said theirs') == 3
    assert page.html.count('class="said ours"') == 1


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (BEN, "reached us, but it is not in our helpdesk. I can see it here"),
        (BEN, "reached us, but I am not sure that it is in our team's chat."),
        (
            CAT,
            "reached us, but it is not in our helpdesk yet. It is on its way, and will be tried",
        ),
    ],
)
def test_what_did_not_arrive_has_a_sentence_to_read_out(
    console: Console, filled: Filled, number: str, sentence: str
) -> None:
    assert f"To read out: “Your message of {console.weekday}" in said(console, number)
    assert sentence in said(console, number)


def test_what_arrived_has_none(console: Console, filled: Filled) -> None:
    assert "To read out" not in said(console, ANN)


def test_what_is_held_back_is_not_said_to_be_on_its_way(console: Console, filled: Filled) -> None:
    console.pause("helpdesk")

    assert "nothing goes there now. I can see it here." in said(console, CAT)
    assert "It is on its way" not in said(console, CAT)


def test_the_end_of_a_pause_is_read_out(console: Console, filled: Filled) -> None:
    operator = console.visitor("operator")
    page = operator.get("/console/destinations/crm")
    operator.press(page, "Pause", **{"for": "2h"})
    console.sms("m-paused", "still there?", customer=EVE)

    assert "It is on its way, and will be tried again at about" in said(console, EVE)


def test_a_second_copy_on_its_way_takes_back_nothing(console: Console, filled: Filled) -> None:
    operator = console.visitor("operator")
    page = operator.get(f"/console/events/{filled.arrived}")
    operator.press(operator.press(page, "Send a second time"), "Send a second time")

    assert "To read out" not in operator.get(f"/console/events/{filled.arrived}").text


def test_tests_are_marked_and_can_be_hidden(console: Console, filled: Filled) -> None:
    assert "This is a test" in said(console, ANN)

    hidden = said(console, ANN, "?tests=hide")

    assert "This is a test" not in hidden
    assert "I need a quote" in hidden and "Show tests" in hidden


def test_texts_of_strangers_stay_texts(console: Console, filled: Filled) -> None:
    page = console.visitor("viewer").get(f"/console/conversations/{EVE}")

    assert "<script>alert" not in page.html and "<img" not in page.html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; {{ 7*7 }}" in page.html
    assert "\u202e" not in page.html and "\u2066" not in page.html and "\x07" not in page.html
    assert f'<bdi dir="auto">{HEBREW}</bdi>' in page.html
    assert LONG[:600] in page.html and "All 10,000 characters" in page.text


def test_older_messages_are_on_further_pages(console: Console) -> None:
    for number in range(120):
        console.sms(f"m{number}", f"text {number:03}")
    viewer, pages, seen = console.visitor("viewer"), 0, ""
    path = f"/console/conversations/{ANN}"

    while path:
        page = viewer.get(path)
        pages, seen = pages + 1, page.text + seen
        path = page.link("Older messages")

    assert pages == 3
    assert [seen.count(f"text {number:03}") for number in range(120)] == [1] * 120
    assert "Newest messages" in seen


def test_a_number_that_never_wrote_leads_to_the_search(console: Console) -> None:
    page = console.visitor("viewer").get("/console/conversations/+61499999999")

    assert page.location == "/console/search?q=%2B61499999999"


@pytest.mark.parametrize("customer", ["..", "a/b", "//x", "evt_1", "Acme & Sons?", "<b>"])
def test_a_customer_whom_no_address_can_say_is_found_by_an_event(
    console: Console, customer: str
) -> None:
    id_ = console.sms("m1", "it is me", customer=customer)
    viewer = console.visitor("viewer")

    page = viewer.get(f"/console/events/{id_}")

    assert "it is me" in viewer.get(page.link("Whole conversation")).text
    assert viewer.get("/console/search", query_string={"q": customer}).status in (200, 302)


@pytest.mark.parametrize("before", ["x", "-1", "9" * 30])
def test_a_place_that_is_none_is_refused(console: Console, before: str) -> None:
    page = console.visitor("viewer").get(f"/console/conversations/{ANN}?before={before}")

    assert (page.status, "before: a number" in page.text) == (400, True)


@pytest.mark.parametrize("typed", ["+61400000125", "0400 000 125", "000125", "61400000125"])
def test_the_box_leads_to_the_one_customer(console: Console, filled: Filled, typed: str) -> None:
    viewer = console.visitor("viewer")

    page = viewer.press(viewer.get("/console/"), "Search", q=typed)

    assert page.location == f"/console/conversations/{CAT}"


def test_the_box_leads_to_the_one_event_or_request(console: Console, filled: Filled) -> None:
    viewer = console.visitor("viewer")

    def leads(typed: str) -> str:
        return viewer.get("/console/search", query_string={"q": typed}).location

    assert leads("m-dead") == leads(filled.dead) == f"/console/events/{filled.dead}"
    assert leads(filled.signed) == f"/console/requests/{filled.signed}"
    delivery = console.event(filled.dead).deliveries[0].id
    assert leads(delivery) == f"/console/events/{filled.dead}"


def test_several_hits_are_listed_by_kind(console: Console, filled: Filled) -> None:
    viewer = console.visitor("viewer")

    words = viewer.get("/console/search?q=urgent").text
    ticket = viewer.get("/console/search?q=ticket+1013").text
    digits = viewer.get("/console/search?q=00000").text

    assert "Messages with these words" in words
    assert "I need a quote, urgent please" in words and "URGENT call me" in words
    assert "Tickets and records" in ticket and "ticket 1013 at helpdesk" in ticket
    assert "Nothing was found" in digits


def test_a_customer_whose_message_was_refused_is_a_click_away(console: Console) -> None:
    id_ = console.refuse()
    viewer = console.visitor("viewer")

    page = viewer.get("/console/search?q=000126")
    refused = viewer.get(page.link("look at those"))

    assert f"/console/requests/{id_}" in refused.html
    other = viewer.get(viewer.get("/console/search?q=999999").link("look at those"))
    assert f"/console/requests/{id_}" not in other.html


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (timedelta(seconds=20), "in a moment"),
        (timedelta(hours=2, seconds=-1), "in 2 h"),
        (timedelta(hours=-2, seconds=1), "1 h ago"),
        (timedelta(minutes=5, seconds=-1), "in 5 min"),
        (timedelta(days=3, seconds=-1), "in 3 days"),
    ],
)
def test_what_comes_is_not_said_to_come_too_early(ahead: timedelta, words: str) -> None:
    now = datetime(2026, 11, 29, 12, tzinfo=UTC)

    assert wording.ago(now + ahead, now) == words


def test_nothing_found_says_what_was_tried(console: Console, filled: Filled) -> None:
    page = console.visitor("viewer").get("/console/search?q=<b>never</b> said")

    assert "Nothing was found for <b>never</b> said" in page.text
    assert "as a number" in page.text and "words of a message" in page.text
    assert "<b>never" not in page.html
    assert 'value="&lt;b&gt;never&lt;/b&gt; said"' in page.html


def test_an_empty_box_says_what_it_takes(console: Console) -> None:
    assert "a customer's number" in console.visitor("viewer").get("/console/search").text
