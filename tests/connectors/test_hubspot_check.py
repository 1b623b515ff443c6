"""HubSpot: what check says, what setup makes, and which options are faults."""

from __future__ import annotations

from typing import Any

import pytest
from hubspot_portal import LIFE, NUMBER, OURS, TOKEN, Open, Portal, deliver
from pydantic import ValidationError

from connectors import Refused, Throttled, Transient, Unauthorized
from connectors.hubspot.options import (
    ContactOptions,
    HubSpotOptions,
    InboxOptions,
    TaskOptions,
    TicketOptions,
)
from connectors.sandbox.hubspot_inbox import CHANNEL_ID, INBOX_ID
from connectors.testing import sample_event

CHANNEL = f"/conversations/custom-channels/2026-09/{CHANNEL_ID}"
ACCOUNTS = f"{CHANNEL}/channel-accounts"
PROPERTIES = "/crm/properties/2026-09"
INBOX: dict[str, Any] = {"channel_id": CHANNEL_ID, "inbox_id": INBOX_ID, "numbers": [OURS]}


class TestCheck:
    def test_says_which_account_answers_and_changes_nothing(self, portal: Portal) -> None:
        said = portal.connector(time_zone="Australia/Brisbane").check()

        assert said == "HubSpot account 12345678: the service key may read contacts"
        assert portal.stand_in.page() == ()

    def test_says_that_the_unique_property_is_missing(self, portal: Portal) -> None:
        assert "is missing" in portal.connector(unique_property="not_set_up").check()

    def test_says_which_zone_the_account_has(self, portal: Portal) -> None:
        said = portal.connector(time_zone="Europe/Berlin").check()

        assert "(its time_zone is Australia/Brisbane)" in said

    @pytest.mark.parametrize(
        ("options", "lacking"),
        [
            ({"opt_out_property": "no_sms"}, "contact property no_sms is missing"),
            ({"ticket": {"pipeline": "77"}}, "no ticket pipeline 77"),
            ({"ticket": {"stage": "9"}}, "pipeline 0 has no stage 9 (have: 1 New, 2 Waiting"),
            ({"inbox": {"channel_id": "601"}}, "channel 601 has no account"),
            ({"phone_properties": ["phone", "shoe_phone"]}, "shoe_phone is missing (are phone_"),
            (
                {"contact": {"properties": {"lead_source": "SMS"}}},
                "contact property lead_source is missing (is contact.properties right?)",
            ),
            (
                {"ticket": {"properties": {"mood": "good"}}},
                "ticket property mood is missing (is ticket.properties right?)",
            ),
            (
                {"task": {"properties": {"urgency": "high"}}},
                "task property urgency is missing (is task.properties right?)",
            ),
        ],
    )
    def test_says_what_the_account_lacks(
        self, portal: Portal, options: dict[str, Any], lacking: str
    ) -> None:
        with pytest.raises(Unauthorized) as caught:
            portal.connector(**options).check()

        assert lacking in str(caught.value)

    def test_does_not_miss_a_default_phone_property(self, portal: Portal) -> None:
        portal.ask("DELETE", f"{PROPERTIES}/contacts/hs_whatsapp_phone_number")

        assert "whatsapp" not in portal.connector().check()

    def test_all_that_is_lacking_is_said_at_once(self, open_portal: Open) -> None:
        portal = open_portal(prepared=False)

        with pytest.raises(Unauthorized, match=r"no_sms is missing.*; ticket .* is missing"):
            portal.connector(opt_out_property="no_sms", ticket={}).check()

    def test_tells_a_wrong_channel(self, portal: Portal) -> None:
        with pytest.raises(Unauthorized, match=r"inbox\.channel_id"):
            portal.connector(inbox={"channel_id": "5"}).check()

    def test_says_that_the_property_is_not_unique(self, portal: Portal) -> None:
        said = portal.connector(unique_property="sms_opted_out").check()

        assert "sms_opted_out has no unique values, so one customer may get two" in said

    def test_does_not_need_the_scope_for_the_properties_of_tasks(self, portal: Portal) -> None:
        portal.fail(403, path="/properties/2026-09/tasks")
        connector = portal.connector(task={"properties": {"hs_task_priority": "HIGH"}})

        assert connector.check().startswith("HubSpot account")

    def test_does_not_need_the_scope_for_the_account(self, portal: Portal) -> None:
        portal.fail(403, path="account-info")

        assert portal.connector().check().startswith("HubSpot: the service key")

    @pytest.mark.parametrize("token", ["revoked", "unscoped"])
    def test_tells_bad_credentials(self, portal: Portal, token: str) -> None:
        with pytest.raises(Unauthorized):
            portal.connector(access_token=token).check()

    def test_tells_a_wrong_address(self, portal: Portal) -> None:
        with pytest.raises(Unauthorized, match="base_url"):
            portal.connector(base_url=portal.url + "/nowhere").check()

    @pytest.mark.parametrize("status", [429, 503])
    def test_tells_a_passing_trouble(self, portal: Portal, status: int) -> None:
        portal.fail(status)

        with pytest.raises(Transient):
            portal.connector().check()

    def test_tells_that_nobody_answers(self, portal: Portal) -> None:
        with pytest.raises(Transient):
            portal.connector(base_url="http://127.0.0.1:9").check()


class TestSetup:
    def test_makes_what_is_missing_once(self, open_portal: Open) -> None:
        portal = open_portal(prepared=False)
        connector = portal.connector(ticket={}, opt_out_property="sms_opted_out")

        said = [connector.setup() for _ in range(2)]

        assert said == [
            "contact property sms_relay_phone made; contact property sms_opted_out made; "
            "ticket property sms_relay_conversation made",
            "contact property sms_relay_phone is there; contact property sms_opted_out is there; "
            "ticket property sms_relay_conversation is there",
        ]
        assert "but" not in connector.check()

    def test_what_it_made_serves(self, open_portal: Open) -> None:
        portal = open_portal(prepared=False, search_lag=LIFE)
        connector = portal.connector(
            unique_property="gofax_number", ticket={}, opt_out_property="no_sms"
        )
        connector.setup()

        for number in range(2):
            event = sample_event(ours=f"+6170000000{number}", keyword="STOP" if number else None)
            deliver(connector, event, key=f"key-{number}")

        timeline = portal.timeline()
        assert portal.property(timeline.contact, "gofax_number") == NUMBER
        assert portal.property(timeline.contact, "no_sms") == "true"
        assert len(timeline.tickets) == 1

    def test_a_property_without_unique_values_is_not_taken(self, open_portal: Open) -> None:
        portal = open_portal(prepared=False)
        portal.define("contacts", "sms_relay_phone")

        with pytest.raises(Refused, match="without unique values"):
            portal.connector().setup()

    def test_an_account_with_too_many_unique_properties_says_so(self, open_portal: Open) -> None:
        portal = open_portal(prepared=False)
        portal.define("contacts", *(f"unique_{n}" for n in range(10)), hasUniqueValue=True)

        with pytest.raises(Refused, match="At most 10 properties"):
            portal.connector().setup()

    def test_a_property_that_another_has_just_made_serves(self, portal: Portal) -> None:
        portal.fail(404, path=f"{PROPERTIES}/contacts/sms_relay_phone")

        assert portal.connector().setup() == "contact property sms_relay_phone is there"

    def test_an_answer_lost_after_acting_does_not_matter(self, open_portal: Open) -> None:
        portal = open_portal(prepared=False)
        portal.fail(502, only=f"POST {PROPERTIES}/contacts", act=True)
        with pytest.raises(Transient):
            portal.connector().setup()

        assert portal.connector().setup() == "contact property sms_relay_phone is there"

    def test_a_missing_scope_is_named(self, open_portal: Open) -> None:
        portal = open_portal(prepared=False)
        token = "scopes:crm.objects.contacts.read,crm.objects.contacts.write"

        with pytest.raises(Unauthorized, match=r"crm\.schemas\.contacts\.write"):
            portal.connector(access_token=token).setup()

    def test_connects_our_numbers_once(self, open_portal: Open) -> None:
        portal = open_portal()
        connector = portal.connector(inbox=INBOX)

        said = [connector.setup() for _ in range(2)]

        assert f"{OURS} was connected to the inbox" in said[0]
        assert f"{OURS} is connected to the inbox" in said[1]
        assert len(portal.ask("GET", ACCOUNTS)["results"]) == 1

    def test_says_that_there_are_no_numbers_to_connect(self, open_portal: Open) -> None:
        portal = open_portal()

        with pytest.raises(Unauthorized, match=r"inbox\.numbers"):
            portal.connector(inbox={"channel_id": CHANNEL_ID}).setup()

    def test_a_limit_is_told_as_one(self, portal: Portal) -> None:
        portal.fail(429)

        with pytest.raises(Throttled):
            portal.connector().setup()


class TestOptions:
    def test_every_option_is_described(self) -> None:
        models = (HubSpotOptions, ContactOptions, TicketOptions, TaskOptions, InboxOptions)
        fields = [each for model in models for each in model.model_fields.values()]

        assert all(each.description for each in fields)

    @pytest.mark.parametrize("token", ["", " ", "two words", "line\nbreak", "ключ"])
    def test_a_token_that_no_header_can_carry_is_a_fault(self, token: str) -> None:
        with pytest.raises(ValidationError) as caught:
            HubSpotOptions(access_token=token)  # type: ignore[arg-type]

        assert "access_token" in str(caught.value)
        assert not token.strip() or token not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            (
                "base_url",
                ["api.hubapi.com", "https://h.com?x=1", "ftp://h.com", "https://u@h.com"],
            ),
            ("unknown_contact", ["invent"]),
            ("owner_id", ["Ann"]),
            ("unique_property", ["Phone Number"]),
            ("acces_token", ["x"]),
            ("time_zone", ["Mars/Olympus", "../etc/passwd"]),
            ("text", ["{{ nothing }}"]),
            ("phone_properties", [[]]),
            ("opt_out_property", ["SMS opt out"]),
            (
                "contact",
                [
                    {"firstname": "{{ nobody }}"},
                    {"properties": {"City": "x"}},
                    {"properties": {"phone": "x"}},
                    {"properties": {"sms_relay_phone": "x"}},
                ],
            ),
            (
                "ticket",
                [
                    {"subject": "{{ customer"},
                    {"pipelines": "0"},
                    {"properties": {"hs_pipeline": "1"}},
                    {"properties": {"hs_ticket_priority": "LOW"}},
                ],
            ),
            ("task", [{"due_in_hours": -1}, {"properties": {"hs_task_body": "x"}}]),
            (
                "inbox",
                [
                    {},
                    {"channel_id": "1", "numbers": ["+61700000000"]},
                    {"channel_id": "1", "inbox_id": "2", "numbers": ["0700000000"]},
                ],
            ),
            ("client_id", ["an-app", ""]),
            ("refresh_token", ["r"]),
        ],
    )
    def test_a_value_that_cannot_work_is_a_fault(self, name: str, values: list[Any]) -> None:
        for value in values:
            with pytest.raises(ValidationError):
                HubSpotOptions.model_validate({"access_token": TOKEN, name: value})

    @pytest.mark.parametrize("other", ["ticket", "task"])
    def test_an_inbox_goes_with_neither_ticket_nor_task(self, other: str) -> None:
        options = {"access_token": TOKEN, "inbox": {"channel_id": "1"}, other: {}}

        with pytest.raises(ValidationError, match="goes with neither"):
            HubSpotOptions.model_validate(options)

    def test_one_way_to_sign_in_is_needed_and_no_more(self) -> None:
        app = {"client_id": "a", "client_secret": "s", "refresh_token": "r"}
        HubSpotOptions.model_validate(app)

        for name in app:
            part = {key: value for key, value in app.items() if key != name}
            with pytest.raises(ValidationError, match="one way to sign in"):
                HubSpotOptions.model_validate(part)
        for wrong in ({}, {"access_token": TOKEN} | app):
            with pytest.raises(ValidationError, match="one way to sign in"):
                HubSpotOptions.model_validate(wrong)

    def test_the_address_may_end_with_a_slash(self, portal: Portal) -> None:
        deliver(portal.connector(base_url=portal.url + "/"))

        assert len(portal.records.listing()) == 1
