"""Previews of what options and keywords change, compared with what is then sent."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.base import Connector, Event, Refused
from connectors.http import Http
from connectors.hubspot.connector import HubSpot
from connectors.sandbox.hubspot_inbox import CHANNEL_ID
from connectors.sandbox.hubspot_rules import OWNER_ID
from connectors.suites import hubspot, zendesk
from connectors.suites.teams import TestTeams
from connectors.teams.connector import Teams
from connectors.testing import ConnectorSuite, sample_event
from connectors.testing.previews import holds

# Not collected here: `connectors test` runs them, and so do tests of their own.
ZENDESK, TICKETS = zendesk.TestZendesk, hubspot.TestHubSpotTickets
INBOX, HUBSPOT, BOT = hubspot.TestHubSpotInbox, hubspot.TestHubSpot, TestTeams.TestBot
del TestTeams

STOP = {"body": "STOP", "keyword": "STOP"}
START = {"body": "START", "keyword": "START"}
STATUS = {"type": "SMS_STATUS", "ours": None, "sender": None, "direction": None}
SKIP_CONTACT, SKIP_USER = {"unknown_contact": "skip"}, {"unknown_customer": "skip"}
NO_CONTACT, CONTACT = (
    "if no contact has the customer's number",
    "if a contact has the customer's number",
)
NO_USER, USER = "if no end user has the number", "if an end user has the number"


@pytest.mark.parametrize(
    ("suite", "options", "event", "expected"),
    [
        (TICKETS, {}, STOP, {"contact": NO_CONTACT, "timeline entry": "",
                             "opt-out of the contact": ""}),
        (TICKETS, {"owner_id": OWNER_ID}, {}, {"contact": NO_CONTACT, "timeline entry": "",
                                            "ticket": "", "task": ""}),
        (TICKETS, {}, STATUS, {"contact": NO_CONTACT, "timeline entry": ""}),
        (HUBSPOT, SKIP_CONTACT, {}, {"timeline entry": CONTACT}),
        (INBOX, {}, {}, {"contact": NO_CONTACT, "inbox message": ""}),
        (INBOX, {}, STATUS, {"contact": NO_CONTACT, "timeline entry": ""}),
        (ZENDESK, {}, STOP, {"end user": NO_USER, "tag on the profile": "",
                             "comment": "if a ticket is open"}),
        (ZENDESK, {"on_stop": "mark"}, STOP, {"end user": NO_USER, "tag on the profile": ""}),
        (ZENDESK, {"on_stop": "message"}, STOP, {"end user": NO_USER, "tag on the profile": "",
                                                 "ticket": ""}),
        (ZENDESK, {}, START, {"tag off the profile": USER, "end user": NO_USER, "ticket": ""}),
        (ZENDESK, SKIP_USER, {}, {"ticket": USER}),
        (ZENDESK, SKIP_USER, STOP, {"tag on the profile": USER, "comment": "if a ticket is open"}),
        (ZENDESK, {}, STATUS, {"end user": NO_USER, "ticket": ""}),
        (BOT, {}, {}, {"card": ""}),
    ],
)  # fmt: skip
def test_a_preview_is_what_is_sent_and_says_on_what_it_depends(
    suite: type[ConnectorSuite],
    options: dict[str, Any],
    event: dict[str, Any],
    expected: dict[str, str],
) -> None:
    with suite().bench(**options) as bench, bench.line() as line:
        case = bench.first(**event)
        previews = line.connector.preview(case.event, key=case.key) or ()
        bench.settle(line.connector, case)
        assert line.gateway is not None
        sent = [each.body for each in line.gateway.requests]

    assert {each.kind: each.when for each in previews} == expected
    for each in previews:
        # The customer is unknown, and no ticket is open.
        happens = each.when in ("", NO_CONTACT, NO_USER)
        assert any(holds(body, each.content) for body in sent) is happens, each


def made(kind: type[Connector[Any]], **options: Any) -> Connector[Any]:
    return kind(kind.Options.model_validate(options), http=Http(allow=(), default_deadline=1))


def test_what_no_delivery_can_make_is_refused_and_what_is_skipped_makes_nothing() -> None:
    event: Event = sample_event(customer="Acme", sender="Acme")
    creates = made(HubSpot, access_token="x")
    skips = made(HubSpot, access_token="x", **SKIP_CONTACT)

    with pytest.raises(Refused, match="no international phone number"):
        creates.preview(event, key="k")
    assert skips.preview(event, key="k") == []


def test_a_card_for_a_flow_with_threads_has_the_conversation() -> None:
    teams = made(Teams, url="https://example.com/flow", send_conversation=True)

    [card] = teams.preview(sample_event(), key="k") or ()

    assert isinstance(card.content, dict)
    assert card.content["conversation"]["customer"] == "+61400000000"
    assert card.content["conversation"]["thread"] is None


def test_a_message_for_the_inbox_names_no_contact() -> None:
    inbox = made(HubSpot, access_token="x", inbox={"channel_id": CHANNEL_ID})

    [_, message] = inbox.preview(sample_event(), key="k") or ()

    assert "associateWithContactId" not in message.content
