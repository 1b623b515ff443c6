"""The HubSpot stand-in answers as HubSpot does, and shows what it was given."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
import requests
from flask import render_template
from hubspot_portal import (
    COMMUNICATIONS,
    CONTACTS,
    LIFE,
    NUMBER,
    OBJECTS,
    TASKS,
    TICKETS,
    TOKEN,
    UPSERT,
    Open,
    Portal,
    deliver,
)

from connectors import Throttled
from connectors.sandbox import create_app
from connectors.sandbox.hubspot_access import TOKEN_PATH
from connectors.sandbox.hubspot_limits import Limits, TooMany
from connectors.sandbox.hubspot_objects import Objects
from connectors.sandbox.hubspot_rules import definitions
from connectors.sandbox.hubspot_settings import Settings
from connectors.testing import sample_event

SMS = {
    "hs_communication_channel_type": "SMS",
    "hs_communication_logged_from": "CRM",
    "hs_communication_body": "hello",
    "hs_timestamp": "2026-01-01T00:00:00Z",
}
TICKET = {"subject": "Kettle", "hs_pipeline": "0", "hs_pipeline_stage": "1"}
CONTACT = {"lastname": "Miller"}
TASK = {"hs_timestamp": "2026-01-01T00:00:00Z", "hs_task_status": "NOT_STARTED"}


class TestObjects:
    def test_wants_a_bearer_token(self, portal: Portal) -> None:
        with requests.get(portal.url + CONTACTS, timeout=5) as answer:
            assert answer.status_code == 401
            assert answer.json()["category"] == "INVALID_AUTHENTICATION"

    def test_keeps_the_unique_property_unique(self, portal: Portal) -> None:
        portal.contact(sms_relay_phone=NUMBER)
        other = portal.contact(firstname="Bob")
        wanted = {"properties": {"sms_relay_phone": NUMBER}}

        answer = portal.ask("PATCH", f"{CONTACTS}/{other}", wanted)

        assert answer["errors"][0]["code"] == "CONFLICTING_UNIQUE_VALUE"

    def test_says_whether_an_upsert_made_something_new(self, portal: Portal) -> None:
        values = {"phone": NUMBER, "firstname": "Ann"}
        one = {"idProperty": "sms_relay_phone", "id": NUMBER, "properties": values}

        answers = [portal.ask("POST", UPSERT, {"inputs": [one]}) for _ in range(2)]

        assert [each["results"][0]["new"] for each in answers] == [True, False]

    def test_refuses_a_property_that_it_does_not_have(self, portal: Portal) -> None:
        wanted = {"properties": {"shoe_size": "9"}, "associations": []}

        answer = portal.ask("POST", CONTACTS, wanted)

        assert answer["errors"][0]["code"] == "PROPERTY_DOESNT_EXIST"

    def test_finds_contacts_by_a_part_of_a_number(self, portal: Portal) -> None:
        contact = portal.contact(phone="0400 000 000")
        name = "hs_searchable_calculated_phone_number"
        wanted = {"propertyName": name, "operator": "CONTAINS_TOKEN", "value": "*000000"}

        asked = {"filterGroups": [{"filters": [wanted]}], "properties": ["phone"]}
        answer = portal.ask("POST", CONTACTS + "/search", asked)

        assert [each["id"] for each in answer["results"]] == [contact]

    def test_refuses_what_hubspot_would(self, portal: Portal) -> None:
        wrong: list[tuple[str, dict[str, str], dict[str, str]]] = [
            (COMMUNICATIONS, SMS, {"hs_communication_channel_type": "PIGEON"}),
            (COMMUNICATIONS, SMS, {"hs_communication_logged_from": "SMS"}),
            (COMMUNICATIONS, SMS, {"hs_communication_body": "x" * 65_537}),
            (COMMUNICATIONS, SMS, {"hs_timestamp": ""}),
            (COMMUNICATIONS, SMS, {"subject": "no such property here"}),
            (TICKETS, TICKET, {"subject": ""}),
            (TICKETS, TICKET, {"hs_pipeline": "1"}),
            (TICKETS, TICKET, {"hs_pipeline_stage": "5"}),
            (TASKS, TASK, {"hs_task_status": "DONE"}),
            (TASKS, TASK, {"hs_timestamp": "tomorrow"}),
            (CONTACTS, CONTACT, {"sms_opted_out": "yes"}),
            (CONTACTS, CONTACT, {"hs_calculated_phone_number": NUMBER}),
            (CONTACTS, CONTACT, {"hubspot_owner_id": "7"}),
        ]
        for path, values, change in wrong:
            answer = portal.ask("POST", path, {"properties": values | change, "associations": []})

            assert answer["category"] == "VALIDATION_ERROR"
            assert answer["errors"][0]["context"]["propertyName"] == list(change)
        assert portal.records.listing() == []

    def test_wants_the_associations_of_a_new_object(self, portal: Portal) -> None:
        answer = portal.ask("POST", COMMUNICATIONS, {"properties": SMS})

        assert answer["message"] == "Some required fields were not set: [associations]"

    def test_associates_only_what_belongs_together(self, portal: Portal) -> None:
        for kind in (204, 999, 81):
            types = [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": kind}]
            asked = {"properties": SMS, "associations": [{"to": {"id": "1"}, "types": types}]}

            answer = portal.ask("POST", COMMUNICATIONS, asked)

            assert "associations are not valid" in answer["message"]

    def test_associates_what_is_there_once(self, portal: Portal) -> None:
        links = {"associations": []}
        entry = portal.ask("POST", COMMUNICATIONS, {"properties": SMS} | links)["id"]
        ticket = portal.ask("POST", TICKETS, {"properties": TICKET} | links)["id"]
        for other in (ticket, ticket, "7"):
            path = f"{COMMUNICATIONS}/{entry}/associations/default/tickets/{other}"
            answer = portal.ask("PUT", path)

        assert answer["category"] == "OBJECT_NOT_FOUND"
        assert portal.stand_in.linked("tickets", ticket, "communications") == [entry]

    def test_knows_no_other_objects(self, portal: Portal) -> None:
        answer = portal.ask("GET", f"{OBJECTS}/kettles")

        assert answer["message"] == "Unable to infer object type from: kettles"

    def test_an_update_keeps_to_the_rules_too(self, portal: Portal) -> None:
        made = portal.ask("POST", TICKETS, {"properties": TICKET, "associations": []})
        wanted = {"properties": {"hs_pipeline_stage": "5"}}

        answer = portal.ask("PATCH", f"{TICKETS}/{made['id']}", wanted)

        assert answer["errors"][0]["code"] == "INVALID_OPTION"


class TestRules:
    RULES: ClassVar[dict[str, Any]] = {
        "required": {"contacts": ["city"]},
        "conditional": {"contacts": [{"when": {"lastname": "Miller"}, "require": ["source"]}]},
    }

    def test_a_create_without_a_required_property_has_its_code(self, portal: Portal) -> None:
        portal.ask("PATCH", "/sandbox", self.RULES)
        one = {"idProperty": "sms_relay_phone", "id": NUMBER, "properties": {"lastname": "Smith"}}
        wanted = {"properties": {"lastname": "Smith"}, "associations": []}

        answers = [
            portal.ask("POST", CONTACTS, wanted),
            portal.ask("POST", UPSERT, {"inputs": [one]}),
        ]

        for answer in answers:
            [error] = answer["errors"]
            assert (answer["category"], error["code"]) == (
                "VALIDATION_ERROR",
                "MISSING_REQUIRED_PROPERTY",
            )
            assert error["context"] == {"propertyName": ["city"]}
            assert "city" not in answer["message"]
        assert portal.stand_in.page() == ()

    def test_conditional_logic_holds_for_every_write(self, portal: Portal) -> None:
        contact = portal.contact()
        portal.ask("PATCH", "/sandbox", self.RULES)
        change = {"properties": {"phone": NUMBER}}
        new = {"lastname": "Miller", "city": "Perth"}

        answers = [
            portal.ask("PATCH", f"{CONTACTS}/{contact}", change),
            portal.ask(
                "POST", CONTACTS + "/batch/update", {"inputs": [{"id": contact, **change}]}
            ),
            portal.ask("POST", CONTACTS, {"properties": new, "associations": []}),
        ]

        for answer in answers:
            [error] = answer["errors"]
            assert error["code"] == "MISSING_CONDITIONAL_REQUIRED_PROPERTY"
            assert error["context"] == {"propertyName": ["source"]}

    def test_a_contact_needs_a_name_or_an_address(self, portal: Portal) -> None:
        wanted = {"properties": {"phone": NUMBER}, "associations": []}

        answer = portal.ask("POST", CONTACTS, wanted)

        assert "One of [firstname, email, lastname]" in answer["message"]

    def test_the_schema_shows_what_is_required(self, portal: Portal) -> None:
        portal.ask("PATCH", "/sandbox", self.RULES)

        schema = portal.ask("GET", "/crm-object-schemas/2026-09/schemas/contacts")

        assert schema["requiredProperties"] == ["city"]


class TestSearch:
    def test_comes_behind_by_the_lag(self, open_portal: Open) -> None:
        portal = open_portal(search_lag=LIFE)
        portal.contact(phone=NUMBER)
        found = [found_by_phone(portal)]

        portal.ask("PATCH", "/sandbox", {"search_lag": 0})

        assert [*found, found_by_phone(portal)] == [0, 1]

    def test_knows_for_a_while_what_is_gone_or_changed(self) -> None:
        now = [datetime(2026, 1, 1, tzinfo=UTC)]
        contacts = Objects(
            definitions("contacts", prepared=True),
            new_id=iter("12").__next__,
            country="AU",
            clock=lambda: now[0],
        )
        one, other = (contacts.add({"phone": NUMBER}) for _ in range(2))
        now[0] += LIFE
        contacts.remove(one.id)
        contacts.write(other, {"phone": "1"})
        groups = [{"filters": [{"propertyName": "phone", "operator": "EQ", "value": NUMBER}]}]

        found = [len(contacts.search(groups, lag=LIFE * part)) for part in (0, 0.5, 2)]

        assert found == [0, 2, 0]


class TestAccess:
    def test_a_token_may_do_what_its_scopes_say(self, portal: Portal) -> None:
        headers = {"Authorization": "Bearer scopes:crm.objects.contacts.read"}

        with requests.get(portal.url + CONTACTS, headers=headers, timeout=5) as answer:
            assert answer.status_code == 200
        with requests.get(portal.url + TICKETS, headers=headers, timeout=5) as answer:
            assert answer.status_code == 403
            assert answer.json()["category"] == "MISSING_SCOPES"
            [error] = answer.json()["errors"]
            assert error["context"] == {"requiredGranularScopes": ["tickets"]}

    def test_an_app_is_granted_tokens_that_expire(self, portal: Portal) -> None:
        form = {"grant_type": "refresh_token", "client_secret": "s", "refresh_token": "r"}
        with requests.post(portal.url + TOKEN_PATH, data=form, timeout=5) as answer:
            granted = answer.json()
        headers = {"Authorization": f"Bearer {granted['access_token']}"}
        statuses = []
        for _ in range(2):
            with requests.get(portal.url + CONTACTS, headers=headers, timeout=5) as answer:
                statuses.append(answer.status_code)
            portal.stand_in.access.expire()

        assert (granted["expires_in"], statuses) == (1800, [200, 401])
        assert answer.json()["category"] == "EXPIRED_AUTHENTICATION"


class TestLimits:
    def test_says_which_limit_was_reached_and_what_is_left(self, portal: Portal) -> None:
        portal.ask("PATCH", "/sandbox", {"ten_secondly": 2, "daily": 100})
        answers = [raw(portal, CONTACTS) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200, 200, 429]
        said = answers[2].json()
        assert said["message"] == "You have reached your ten_secondly_rolling limit."
        assert (said["policyName"], said["errorType"]) == ("TEN_SECONDLY_ROLLING", "RATE_LIMIT")
        assert "category" not in said
        names = ("Max", "Remaining", "Interval-Milliseconds", "Daily", "Daily-Remaining")
        headers = [answers[1].headers[f"X-HubSpot-RateLimit-{name}"] for name in names]
        assert headers == ["2", "0", "10000", "100", "98"]

    def test_searches_have_a_limit_of_their_own_and_no_headers(self, portal: Portal) -> None:
        portal.ask("PATCH", "/sandbox", {"searches_a_second": 0, "ten_secondly": 100})

        with pytest.raises(Throttled) as caught:
            deliver(portal.connector())

        assert caught.value.retry_after is not None
        assert caught.value.retry_after.total_seconds() == 1

    def test_the_day_begins_where_the_account_is(self, portal: Portal) -> None:
        portal.ask("PATCH", "/sandbox", {"daily": 0})

        with pytest.raises(Throttled, match="daily limit"):
            deliver(portal.connector())

    def test_windows_move_on(self) -> None:
        now = [0.0]
        settings = Settings(ten_secondly=2)
        limits = Limits(settings, zone=UTC, clock=lambda: now[0])
        for moment in (0.0, 5.0):
            now[0] = moment
            limits.admit(search=False)
        now[0] = 9.9
        with pytest.raises(TooMany):
            limits.admit(search=False)
        now[0] = 10.1

        limits.admit(search=False)

        assert limits.headers()["X-HubSpot-RateLimit-Remaining"] == "0"

    @pytest.mark.parametrize(
        "asked", [{"daily": -1}, {"speed": 1}, {"required": {"communications": ["x"]}}]
    )
    def test_settings_that_make_no_sense_are_refused(
        self, portal: Portal, asked: dict[str, Any]
    ) -> None:
        assert "error" in portal.ask("PATCH", "/sandbox", asked)
        assert portal.stand_in.settings == Settings()

    def test_the_sandbox_has_them_too(self) -> None:
        client = create_app().test_client()

        answer = client.patch("/hubspot/sandbox", json={"ten_secondly": 5})

        assert answer.get_json()["ten_secondly"] == 5


class TestPage:
    def test_shows_timelines_in_order_and_escaped(self, portal: Portal) -> None:
        connector = portal.connector()
        first = sample_event(body="<script>first</script>")
        second = sample_event(
            body="second", received_at=first.received_at + LIFE, occurred_at=None
        )
        thread = deliver(connector, second).thread
        deliver(connector, first, key="key-2", thread=thread)

        html = shown(portal)

        assert html.index("&lt;script&gt;first") < html.index("second")
        assert "<script>" not in html
        assert f'id="hubspot-contact-{thread}"' in html

    def test_shows_tickets_tasks_and_the_opt_out(self, portal: Portal) -> None:
        connector = portal.connector(
            ticket={"subject": "<b>Kettle</b>"}, task={}, opt_out_property="sms_opted_out"
        )
        deliver(connector)
        deliver(connector, sample_event(body="stop", keyword="STOP"), key="key-2")

        html = shown(portal)

        assert "&lt;b&gt;Kettle&lt;/b&gt;" in html
        assert f"Answer {NUMBER}: Thanks for your message" in html
        assert "Wants no SMS" in html

    def test_shows_the_threads_of_the_inbox(self, portal: Portal) -> None:
        inbox = {"channel_id": "601", "inbox_id": "701", "numbers": ["+61700000000"]}
        connector = portal.connector(inbox=inbox)
        connector.setup()
        deliver(connector, sample_event(body="<script>hi</script>"))

        html = shown(portal)

        assert "&lt;script&gt;hi&lt;/script&gt;" in html
        assert "<script>" not in html
        assert f"{NUMBER} → +61700000000" in html


def shown(portal: Portal) -> str:
    with portal.app.app_context():
        return render_template("_hubspot.html", hubspot=portal.stand_in.page())


def raw(portal: Portal, path: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with requests.get(portal.url + path, headers=headers, timeout=5) as answer:
        return answer


def found_by_phone(portal: Portal) -> int:
    wanted = {"propertyName": "phone", "operator": "EQ", "value": NUMBER}
    asked = {"filterGroups": [{"filters": [wanted]}], "properties": ["phone"]}
    found: int = portal.ask("POST", CONTACTS + "/search", asked)["total"]
    return found
