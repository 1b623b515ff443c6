"""One event: what it says, and what one may do, seen before it is done and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import consoles
import pytest
from consoles import BEN, LONG, Console, Filled, Visitor

from relay.store import Database


@pytest.fixture
def console(tmp_path: Path, database: Database) -> Iterator[Console]:
    with consoles.console(tmp_path, database) as made:
        yield made


@pytest.fixture
def filled(filled_once: tuple[Path, Filled]) -> Filled:
    return filled_once[1]


def test_it_says_what_came_why_it_went_there_and_what_comes_next(
    console: Console, filled: Filled
) -> None:
    page = console.visitor("viewer").get(f"/console/events/{filled.dead}")

    assert f"From {BEN}" in page.text and "My order 4711 is broken" in page.text
    assert "signature good" in page.text and "application/json" in page.text
    assert '"messageBody": "My order 4711 is broken"' in page.text
    assert "matched replies become tickets → helpdesk" in page.text
    assert "did not match urgent to the front desk" in page.text
    assert "was refused HTTP 422" in page.text
    assert "Nothing more happens by itself" in page.text
    assert "In the HubSpot timeline".lower() in page.text.lower()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("held", "It may have arrived or not: somebody looks, and decides."),
        ("pending", "It will be tried again at"),
        (
            "waiting",
            "It waits for 1 message before it in this conversation; that one will be",
        ),
        ("in_flight", "It is being sent now."),
        ("unrouted", "No route matched."),
        ("test", "It is a test, and no route is for tests."),
        ("conflict", "Its messageId was used before"),
    ],
)
def test_each_state_says_what_comes_next(
    console: Console, filled: Filled, name: str, says: str
) -> None:
    page = console.visitor("viewer").get(f"/console/events/{getattr(filled, name)}")

    assert says in page.text


def test_a_paused_destination_is_named(console: Console, filled: Filled) -> None:
    console.pause("helpdesk")

    page = console.visitor("viewer").get(f"/console/events/{filled.waiting}")

    assert "helpdesk is paused by ann since" in page.text
    assert "(it is moved)" in page.text


def test_a_page_renews_itself_as_long_as_something_moves(console: Console, filled: Filled) -> None:
    viewer = console.visitor("viewer")

    assert 'data-live="5"' in viewer.get(f"/console/events/{filled.pending}").html
    assert "data-live" not in viewer.get(f"/console/events/{filled.arrived}").html


def test_an_event_is_found_by_its_message_id_too(console: Console, filled: Filled) -> None:
    assert console.visitor("viewer").get("/console/events/m-dead").status == 200
    assert console.visitor("viewer").get("/console/events/never").status == 404


def test_texts_of_strangers_stay_texts(console: Console, filled: Filled) -> None:
    page = console.visitor("viewer").get(f"/console/events/{filled.hostile}")

    assert "<script>alert" not in page.html and "<img" not in page.html
    assert "\u202e" not in page.html and "\x07" not in page.html
    assert LONG in console.visitor("viewer").get(f"/console/events/{filled.long}").html


def test_a_resend_is_shown_done_and_taken_back(console: Console, filled: Filled) -> None:
    operator = console.visitor("operator")
    page = operator.get(f"/console/events/{filled.dead}")

    look = operator.press(page, "Resend")
    assert "This is what would happen" in look.text
    assert "helpdesk: sent again, beside the order of its conversation" in look.text
    assert console.states(filled.dead)["helpdesk"] == "dead"

    done = operator.press(look, "Resend", why="the requester is well again")
    assert console.states(filled.dead)["helpdesk"] == "pending"
    after = operator.follow(done)
    assert "Sent again: helpdesk." in after.text
    assert "because: the requester is well again" in after.text

    undo = operator.press(after, "Undo")
    assert "helpdesk: as it was before: did not arrive" in undo.text
    operator.press(undo, "Undo")
    assert console.states(filled.dead)["helpdesk"] == "dead"


def test_a_second_effect_has_a_button_of_its_own(console: Console, filled: Filled) -> None:
    operator = console.visitor("operator")

    look = operator.press(operator.get(f"/console/events/{filled.arrived}"), "Send a second time")
    assert "will be sent a second time, although it has arrived" in look.text
    operator.press(look, "Send a second time")

    assert len(console.event(filled.arrived).deliveries) == 4


def test_a_held_delivery_is_settled(console: Console, filled: Filled) -> None:
    operator = console.visitor("operator")
    page = operator.get(f"/console/events/{filled.held}")

    look = operator.press(page, "Settle as arrived")
    assert "front-desk: settled as arrived" in look.text
    operator.press(look, "Settle as arrived")

    assert console.states(filled.held)["front-desk"] == "delivered"


def test_a_replay_adds_what_todays_routes_miss(console: Console, filled: Filled) -> None:
    operator = console.visitor("operator")

    look = operator.press(
        operator.get(f"/console/events/{filled.unrouted}"), "Replay through today's routes"
    )

    assert "Nothing would change" in look.text
    assert not look.has_button("Replay")


def test_a_stale_event_is_delivered_when_a_person_says_so(console: Console) -> None:
    id_ = console.sms("m-old", "from long ago", eventTimestamp="2020-01-01T00:00:00Z")
    operator = console.visitor("operator")
    page = operator.get(f"/console/events/{id_}")
    assert "so old that it may have been delivered long ago" in page.text

    look = operator.press(page, "Deliver it anyway")
    assert "crm: will be sent, beside the order of its conversation" in look.text
    after = operator.follow(operator.press(look, "Replay"))

    assert "Added: crm, helpdesk." in after.text and after.has_button("Undo")
    assert set(console.states(id_)) == {"crm", "helpdesk"}


def test_what_changed_meanwhile_is_said(console: Console, filled: Filled) -> None:
    operator = console.visitor("operator")
    look = operator.press(operator.get(f"/console/events/{filled.dead}"), "Resend")
    operator.press(look, "Resend")

    after = operator.follow(operator.press(look, "Resend"))

    assert "Nothing was changed: due already" in after.text


def test_a_reason_that_is_too_long_changes_nothing(console: Console, filled: Filled) -> None:
    operator = console.visitor("operator")
    look = operator.press(operator.get(f"/console/events/{filled.dead}"), "Resend")

    again = operator.press(look, "Resend", why="x" * 501)

    assert (again.status, "why: at most 500 characters" in again.text) == (422, True)
    assert again.form("Resend").fields["why"] == "x" * 501
    assert console.states(filled.dead)["helpdesk"] == "dead"


def test_an_end_that_is_none_is_refused(console: Console, filled: Filled) -> None:
    delivery = console.event(filled.held).deliveries[-1].id

    page = console.visitor("operator").post(
        f"/console/events/{filled.held}/settle", **{"delivery": delivery, "as": "lost"}
    )

    assert page.status == 400


def test_a_redirect_leads_to_no_other_site(console: Console, filled: Filled) -> None:
    delivery = console.event(filled.dead).deliveries[-1].id

    page = console.visitor("operator").post(
        f"/console/events/{filled.dead}/resend",
        delivery=delivery, confirmed="1", back="https://evil.example/console/",
    )  # fmt: skip

    assert page.location.startswith("/console/")


def _posts(console: Console, filled: Filled) -> list[tuple[str, dict[str, str]]]:
    delivery = {"delivery": console.event(filled.dead).deliveries[-1].id, "confirmed": "1"}
    event = f"/console/events/{filled.dead}"
    return [
        (f"{event}/resend", delivery),
        (f"{event}/settle", {**delivery, "as": "delivered"}),
        (f"{event}/replay", {"confirmed": "1"}),
        ("/console/stopped/resend", {"confirmed": "1"}),
        ("/console/stopped/settle", {"as": "delivered", "confirmed": "1"}),
        (f"/console/requests/{filled.signed}/admit", {"confirmed": "1"}),
        (f"/console/requests/{filled.signed}/diagnose", {"secret": "x"}),
        ("/console/acts/act_1/undo", {"confirmed": "1"}),
        ("/console/acts/act_1/stop", {}),
    ]


def test_a_viewer_sees_no_button_and_is_refused(console: Console, filled: Filled) -> None:
    viewer = console.visitor("viewer")

    for path in (
        f"events/{filled.dead}", f"events/{filled.held}", "stopped",
        f"requests/{filled.signed}", f"conversations/{BEN}",
    ):  # fmt: skip
        buttons = [each.buttons for each in viewer.get(f"/console/{path}").forms]
        assert buttons == [["Search"], ["Sign out"]], path
    for path, fields in _posts(console, filled):
        assert viewer.post(path, **fields).status == 403, path
    assert console.states(filled.dead)["helpdesk"] == "dead"


def test_a_form_from_elsewhere_is_refused(console: Console, filled: Filled) -> None:
    for path, fields in _posts(console, filled):
        page = console.visitor("operator").post(path, has_token=False, **fields)
        assert page.status == 400, path
    assert console.states(filled.dead)["helpdesk"] == "dead"


class TestMasked:
    """A viewer of a console that hides numbers and texts."""

    @pytest.fixture
    def console(self, tmp_path: Path, database: Database) -> Iterator[Console]:
        with consoles.console(tmp_path, database, mask=True) as made:
            yield made

    @pytest.fixture
    def viewer(self, console: Console) -> Visitor:
        return console.visitor("viewer")

    def test_no_number_and_no_text_is_on_any_page(
        self, console: Console, filled: Filled, viewer: Visitor
    ) -> None:
        texts = (
            "need a quote",
            "My order",
            "URGENT",
            "call me",
            "Where are you",
            "Hello?",
            "let me in",
        )
        paths = [
            *(f"events/{getattr(filled, name)}" for name in (
                "arrived", "dead", "held", "pending", "waiting", "in_flight", "hostile", "conflict"
            )),
            f"requests/{filled.signed}", f"conversations/{filled.arrived}",
            f"conversations/{filled.dead}", "events", "events?customer=0123", "requests",
            "stopped", "stopped/list", "stopped/export.csv", "events/export.csv",
            "requests/export.csv", "search?q=need", "search?q=0124", "search?q=ticket+1013",
        ]  # fmt: skip
        for path in paths:
            page = viewer.get(f"/console/{path}")
            if page.location:
                page = viewer.follow(page)
            assert page.status == 200, path
            found = [each for each in (*texts, "6140000", "6170000") if each in page.html]
            assert found == [], path

    def test_the_search_leads_to_a_conversation_without_its_number(
        self, console: Console, filled: Filled, viewer: Visitor
    ) -> None:
        page = viewer.get("/console/search?q=000124")

        assert page.location == f"/console/conversations/{filled.held}"
        assert "in Zendesk ticket 1013" in viewer.follow(page).text

    def test_an_event_is_shown_to_who_says_why(
        self, console: Console, filled: Filled, viewer: Visitor
    ) -> None:
        page = viewer.get(f"/console/events/{filled.dead}")

        assert viewer.press(page, "Show numbers and texts", why=" ").status == 422
        shown = viewer.press(page, "Show numbers and texts", why="she is on the phone")

        assert "My order 4711 is broken" in shown.text and BEN in shown.text
        entry = console.services.actions.newest(limit=1)[0]
        assert (entry.action.what, entry.event_id) == ("unmask", filled.dead)
        assert entry.action.why == "she is on the phone"
        assert "My order" not in viewer.get(f"/console/events/{filled.dead}").text

    def test_a_conversation_and_a_request_are(
        self, console: Console, filled: Filled, viewer: Visitor
    ) -> None:
        chat = viewer.get(f"/console/conversations/{filled.dead}")
        request = viewer.get(f"/console/requests/{filled.signed}")

        shown = viewer.press(chat, "Show numbers and texts", why="on the phone")
        assert "My order 4711 is broken" in shown.text
        shown = viewer.press(request, "Show numbers and texts", why="GoFax asks")
        assert "let me in" in shown.text
        whats = [each.action.what for each in console.services.actions.newest(limit=2)]
        assert whats == ["unmask", "unmask"]

    def test_an_operator_sees_all(self, console: Console, filled: Filled) -> None:
        page = console.visitor("operator").get(f"/console/events/{filled.dead}")

        assert "My order 4711 is broken" in page.text
        assert not page.has_button("Show numbers and texts")
