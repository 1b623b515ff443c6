"""HubSpot: the conversations inbox, and what setup makes in an account."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hubspot_portal import CONTACTS, LIFE, NUMBER, OURS, Open, Portal, deliver

from connectors import Ambiguous, Refused, Transient, Unauthorized
from connectors.sandbox.hubspot_access import TOKEN_PATH
from connectors.sandbox.hubspot_inbox import CHANNEL_ID, INBOX_ID
from connectors.testing import sample_event

CHANNEL = f"/conversations/custom-channels/2026-09/{CHANNEL_ID}"
MESSAGES, ACCOUNTS = f"{CHANNEL}/messages", f"{CHANNEL}/channel-accounts"
PROPERTIES = "/crm/properties/2026-09"
INBOX: dict[str, Any] = {"channel_id": CHANNEL_ID, "inbox_id": INBOX_ID, "numbers": [OURS]}


@pytest.fixture
def portal(open_portal: Open) -> Portal:
    """A portal with one of our numbers connected to the inbox."""
    portal = open_portal()
    portal.connector(inbox=INBOX).setup()
    portal.calls.clear()
    return portal


def sent(portal: Portal) -> dict[str, Any]:
    """Return the last message that was published, as it was sent."""
    asked: dict[str, Any] = [body for call, body in portal.sent if call == f"POST {MESSAGES}"][-1]
    return asked


class TestInbox:
    def test_a_conversation_is_a_thread_of_the_contact(self, portal: Portal) -> None:
        connector = portal.connector(inbox=INBOX)

        first = deliver(connector)
        second = deliver(connector, key="key-2", thread=first.thread)

        timeline = portal.timeline()
        [thread] = timeline.threads
        assert [line.text for line in thread.lines] == ["Thanks for your message"] * 2
        assert (first.thread, second.thread) == (timeline.contact, timeline.contact)
        assert [first.reference, second.reference] == [
            record["reference"] for record in portal.made("message")
        ]
        assert timeline.entries == ()

    def test_each_of_our_numbers_has_a_thread_of_its_own(self, portal: Portal) -> None:
        numbers = [OURS, "+61700000001"]
        connector = portal.connector(inbox=INBOX | {"numbers": numbers})
        connector.setup()

        for number in numbers:
            deliver(connector, sample_event(ours=number, recipient=number), key=number)

        assert [each.parties for each in portal.timeline().threads] == [
            f"{NUMBER} → {number}" for number in numbers
        ]

    def test_the_message_says_who_wrote_what_and_when(self, portal: Portal) -> None:
        receipt = deliver(portal.connector(inbox=INBOX), sample_event(body="<b>hi</b>\n& you"))

        asked = sent(portal)
        assert asked["text"] == "<b>hi</b>\n& you"
        assert asked["messageDirection"] == "INCOMING"
        assert asked["senders"] == [
            {"deliveryIdentifier": {"type": "HS_PHONE_NUMBER", "value": NUMBER}}
        ]
        assert asked["recipients"][0]["deliveryIdentifier"]["value"] == OURS
        assert asked["timestamp"] == "2025-12-04T00:24:07.112733Z"
        assert asked["integrationThreadId"] == f"{NUMBER}~{OURS}"
        assert str(asked["associateWithContactId"]) == receipt.thread

    def test_a_text_of_ours_is_outgoing(self, portal: Portal) -> None:
        event = sample_event(type="SMS_SENT", sender=OURS, recipient=NUMBER)

        deliver(portal.connector(inbox=INBOX), event)

        [thread] = portal.timeline().threads
        assert (thread.parties, thread.lines[0].incoming) == (f"{OURS} → {NUMBER}", False)

    @pytest.mark.parametrize(
        ("ours", "kind"),
        [("12345", "HS_SHORT_CODE"), ("ACME", "CHANNEL_SPECIFIC_OPAQUE_ID")],
    )
    def test_a_sender_that_is_no_phone_number_has_another_type(
        self, portal: Portal, ours: str, kind: str
    ) -> None:
        account = {
            "name": ours,
            "authorized": True,
            "inboxId": INBOX_ID,
            "deliveryIdentifier": {"type": kind, "value": ours},
        }
        portal.ask("POST", ACCOUNTS, account)

        deliver(portal.connector(inbox=INBOX), sample_event(ours=ours, recipient=ours))

        assert sent(portal)["recipients"][0]["deliveryIdentifier"] == {
            "type": kind,
            "value": ours,
        }

    def test_a_missing_text_is_said_to_be_missing(self, portal: Portal) -> None:
        deliver(portal.connector(inbox=INBOX), sample_event(body=None))

        assert "Include Message body is off" in sent(portal)["text"]

    def test_an_event_without_a_number_of_ours_stands_on_the_timeline(
        self, portal: Portal
    ) -> None:
        event = sample_event(type="SMS_STATUS", ours=None, sender=None, recipient=NUMBER)

        deliver(portal.connector(inbox=INBOX), event)

        assert len(portal.timeline().entries) == 1
        assert portal.made("message") == []

    def test_unknown_customers_may_be_skipped(self, portal: Portal) -> None:
        receipt = deliver(portal.connector(inbox=INBOX, unknown_contact="skip"))

        assert receipt.reference.startswith("skipped")
        assert portal.records.listing() == []

    def test_stop_marks_the_contact(self, portal: Portal) -> None:
        connector = portal.connector(inbox=INBOX, opt_out_property="sms_opted_out")

        deliver(connector, sample_event(keyword="STOP"))

        assert portal.timeline().opted_out
        assert len(portal.made("message")) == 1

    def test_accounts_are_found_on_any_page(self, open_portal: Open) -> None:
        portal = open_portal(accounts_a_page=2)
        numbers = [f"+6170000000{number}" for number in range(5)]
        connector = portal.connector(inbox=INBOX | {"numbers": numbers})
        connector.setup()

        deliver(connector, sample_event(ours=numbers[4], recipient=numbers[4]))

        assert len(portal.made("message")) == 1

    def test_a_number_that_is_not_connected_refuses_its_events_only(self, portal: Portal) -> None:
        connector = portal.connector(inbox=INBOX)

        with pytest.raises(Refused, match="no account for our number"):
            deliver(connector, sample_event(ours="+61700000009"))

        deliver(connector, key="key-2")

    def test_a_channel_without_any_number_pauses_the_destination(self, open_portal: Open) -> None:
        portal = open_portal()

        with pytest.raises(Unauthorized, match="connectors setup"):
            deliver(portal.connector(inbox=INBOX))

    def test_a_channel_that_is_not_there_pauses_the_destination(self, portal: Portal) -> None:
        with pytest.raises(Unauthorized, match=r"is inbox\.channel_id right"):
            deliver(portal.connector(inbox={"channel_id": "5"}))

    def test_a_contact_that_is_gone_is_replaced(self, portal: Portal) -> None:
        connector = portal.connector(inbox=INBOX)
        gone = deliver(connector).thread
        portal.ask("DELETE", f"{CONTACTS}/{gone}")

        receipt = deliver(connector, key="key-2", thread=gone)

        assert receipt.thread == portal.timeline().contact != gone

    def test_a_missing_scope_is_named(self, portal: Portal) -> None:
        token = "scopes:crm.objects.contacts.read,crm.objects.contacts.write"

        with pytest.raises(Unauthorized, match=r"conversations\.custom_channels\.read"):
            deliver(portal.connector(inbox=INBOX, access_token=token))

    def test_ten_conversations_at_once_are_ten_threads(self, open_portal: Open) -> None:
        portal = open_portal(search_lag=LIFE)
        numbers = [f"+617{number:08}" for number in range(10)]
        connector = portal.connector(inbox=INBOX | {"numbers": numbers})
        connector.setup()

        def one(number: str) -> None:
            event = sample_event(ours=number, recipient=number)
            deliver(connector, event, key=number, deadline=25.0)

        with ThreadPoolExecutor(10) as pool:
            list(pool.map(one, numbers))

        assert [len(each.lines) for each in portal.timeline().threads] == [1] * 10


class TestInboxRepeat:
    @pytest.mark.parametrize("fault", [{"status": 502}, {"status": None, "wait": 3.0}])
    def test_an_answer_lost_after_acting_leaves_one_message(
        self, portal: Portal, fault: dict[str, Any]
    ) -> None:
        connector = portal.connector(inbox=INBOX)
        portal.fail(path="/messages", act=True, **fault)
        with pytest.raises(Transient):
            deliver(connector, deadline=1.5)

        receipt = deliver(connector)

        [record] = portal.made("message")
        assert receipt.reference == record["reference"]

    @pytest.mark.parametrize("act", [True, False])
    def test_an_answer_that_names_no_message_is_asked_for_again_at_once(
        self, portal: Portal, act: bool
    ) -> None:
        for number, garbage in enumerate(["", "[]", "{}", '{"id": null}']):
            portal.fail(201, path="/messages", body=garbage, act=act)

            deliver(portal.connector(inbox=INBOX), key=f"key-{number}")

        assert len(portal.made("message")) == 4

    def test_a_message_that_no_answer_names_is_ambiguous(self, portal: Portal) -> None:
        portal.fail(201, path="/messages", body="{}", act=True, times=2)

        with pytest.raises(Ambiguous, match="no answer names it"):
            deliver(portal.connector(inbox=INBOX))

    def test_accounts_that_make_no_sense_are_asked_for_again(self, portal: Portal) -> None:
        for garbage in ["", "[]", "{}", '{"results": null}']:
            portal.fail(200, path="/channel-accounts", body=garbage)

            with pytest.raises(Transient):
                deliver(portal.connector(inbox=INBOX))

    def test_a_repeat_that_hubspot_calls_a_conflict_was_published(self, portal: Portal) -> None:
        portal.fail(409, path="/messages", body={"message": "exists"}, times=2)
        connector = portal.connector(inbox=INBOX)
        with pytest.raises(Refused):
            deliver(connector)

        receipt = deliver(connector, repeat=True)

        assert receipt.reference == "published by an earlier attempt"

    def test_another_key_publishes_again(self, portal: Portal) -> None:
        connector = portal.connector(inbox=INBOX)

        for key in ("one", "two", "two"):
            deliver(connector, key=key, repeat=True)

        assert len(portal.made("message")) == 2


class TestSignIn:
    """An app on HubSpot's platform has tokens that live for half an hour."""

    APP: dict[str, Any] = {
        "access_token": None,
        "client_id": "an-app",
        "client_secret": "s3cret-of-the-app",
        "refresh_token": "r3fresh",
    }

    def test_a_token_is_fetched_once_and_used_for_every_call(self, portal: Portal) -> None:
        connector = portal.connector(inbox=INBOX, **self.APP)

        for key in ("one", "two"):
            deliver(connector, key=key)

        assert portal.calls.count(f"POST {TOKEN_PATH}") == 1
        assert len(portal.made("message")) == 2

    def test_a_token_that_expired_early_is_replaced(self, portal: Portal) -> None:
        connector = portal.connector(inbox=INBOX, **self.APP)
        deliver(connector, key="one")
        portal.stand_in.access.expire()

        deliver(connector, key="two")

        assert portal.calls.count(f"POST {TOKEN_PATH}") == 2
        assert len(portal.made("message")) == 2

    @pytest.mark.parametrize(
        ("wrong", "code"),
        [
            ({"refresh_token": "revoked"}, "BAD_REFRESH_TOKEN"),
            ({"client_secret": "revoked"}, "BAD_CLIENT_SECRET"),
        ],
    )
    def test_credentials_that_grant_nothing_pause_the_destination(
        self, portal: Portal, wrong: dict[str, str], code: str
    ) -> None:
        connector = portal.connector(inbox=INBOX, **self.APP | wrong)

        for ask in (lambda: deliver(connector), connector.check):
            with pytest.raises(Unauthorized, match=f"no access token: answered 400: {code}"):
                ask()

    def test_a_token_endpoint_that_is_away_is_transient(self, portal: Portal) -> None:
        portal.fail(503, path=TOKEN_PATH)

        with pytest.raises(Transient):
            deliver(portal.connector(inbox=INBOX, **self.APP))

    def test_the_timeline_takes_an_app_too(self, portal: Portal) -> None:
        deliver(portal.connector(**self.APP))

        assert len(portal.made("communication")) == 1
        assert "the app may read contacts" in portal.connector(**self.APP).check()

    def test_no_secret_of_the_app_is_shown(
        self, portal: Portal, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        connector = portal.connector(**self.APP)
        deliver(connector)
        portal.fail(500, body={"message": "granted-"})
        with pytest.raises(Transient) as caught:
            deliver(connector, key="key-2")

        shown = f"{connector.options!r} {caught.value!r} {caplog.text}"
        assert not any(each in shown for each in ("s3cret", "r3fresh"))
