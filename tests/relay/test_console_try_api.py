"""The page to try the API: it calls for the person who is signed in, and for nobody else."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import consoles
import pytest
from consoles import Console, Page, Visitor

from relay.rules.access import Role
from relay.store import Database

PAGE = "/console/api"


@pytest.fixture
def console(tmp_path: Path, database: Database) -> Iterator[Console]:
    with consoles.console(tmp_path, database) as made:
        yield made


def call(visitor: Visitor, name: str, **fields: str) -> Page:
    return visitor.press(visitor.get(f"{PAGE}?call={name}"), "Call", **fields)


def answer(page: Page) -> Any:
    """Return the JSON that a page shows."""
    assert page.status == 200, page.text
    section = page.html.partition('id="result"')[2]
    found = re.search(r"<pre[^>]*>(.*?)</pre>", section, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found[1]))


def test_every_call_has_a_page_with_a_form(console: Console) -> None:
    visitor = console.visitor(Role.ADMIN)
    links = re.findall(rf'href="({PAGE}\?call=\w+)"', visitor.get(PAGE).html)

    assert len(links) > 40
    for link in links:
        page = visitor.get(link)
        assert page.status == 200, link
        assert page.has_button("Call")
    assert visitor.get(f"{PAGE}?call=nothing").status == 404


def test_a_call_answers_what_the_api_answers(console: Console) -> None:
    event = console.sms("m1", "שלום \u202e x")
    page = call(console.visitor(Role.VIEWER), "get_event", **{"p.id": event})

    assert answer(page)["id"] == event
    assert "200 OK" in page.text
    assert f"curl http://127.0.0.1:8081/api/v1/events/{event}" in page.text
    assert "שלום" in page.html and "\u202e" not in page.html


def test_conditions_are_passed_on(console: Console) -> None:
    for name in ("m1", "m2", "m3"):
        console.sms(name, name)
    page = call(
        console.visitor(Role.VIEWER),
        "list_events",
        **{"p.limit": "1", "p.state": "pending, waiting", "p.text": "m2"},
    )

    assert [each["message_id"] for each in answer(page)["items"]] == ["m2"]
    assert "state=pending&state=waiting" in page.text.replace("&amp;", "&")


def test_it_acts_as_the_person_with_that_persons_scopes(console: Console) -> None:
    body = json.dumps({"why": "moved"})
    viewer, operator = console.visitor(Role.VIEWER), console.visitor(Role.OPERATOR)

    refused = call(viewer, "pause_destination", body=body, **{"p.name": "crm"})
    assert answer(refused)["status"] == 403
    done = call(operator, "pause_destination", body=body, **{"p.name": "crm"})

    assert answer(done)["changed"] is True
    admin = console.visitor(Role.ADMIN)
    [entry] = answer(call(admin, "list_audit", **{"p.what": "pause"}))["items"]
    assert (entry["who"], entry["why"]) == (operator.name, "moved")


def test_the_masks_hold_here_too(tmp_path: Path, database: Database) -> None:
    with consoles.console(tmp_path, database, mask=True) as console:
        event = console.sms("m1", "a secret word")
        page = call(console.visitor(Role.VIEWER), "get_event", **{"p.id": event})

        assert answer(page)["body"] == "…"
        assert "secret word" not in page.html


def test_what_an_admin_does_needs_the_password_again(console: Console) -> None:
    admin = console.visitor(Role.ADMIN)
    with admin.client.session_transaction(PAGE) as session:
        session["confirmed"] = 0

    page = call(admin, "list_users")

    assert page.location.startswith("/console/confirm")


def test_faults_are_shown_as_the_api_says_them(console: Console) -> None:
    operator = console.visitor(Role.OPERATOR)

    assert (
        answer(call(operator, "pause_destination", body="{", **{"p.name": "crm"}))["status"] == 400
    )
    assert call(operator, "get_event", **{"p.id": " "}).status == 422
    typed = call(operator, "get_event", **{"p.id": "<b>\u202e"})
    assert answer(typed)["status"] == 404
    assert "<b>" not in typed.html


def test_no_other_page_can_make_a_call(console: Console) -> None:
    operator = console.visitor(Role.OPERATOR)
    fields = {"call": "pause_destination", "p.name": "crm", "body": "{}"}

    assert operator.post(PAGE, has_token=False, **fields).status == 400
    assert "unsafe" not in operator.get(PAGE).headers["Content-Security-Policy"]
