"""HubSpot: one contact per number, found, adopted or created."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from hubspot_portal import (
    COMMUNICATIONS,
    CONTACTS,
    LIFE,
    NUMBER,
    UPSERT,
    Open,
    Portal,
    deliver,
)

from connectors import Ambiguous, Receipt, Refused, Transient
from connectors.testing import sample_event

CONFLICT = {
    "category": "VALIDATION_ERROR",
    "errors": [
        {
            "code": "CONFLICTING_UNIQUE_VALUE",
            "context": {"propertyName": ["sms_relay_phone"]},
        }
    ],
}


class TestContact:
    @pytest.mark.parametrize("written", ["+61400000000", "61400000000", "+61 400 000 000"])
    def test_a_number_for_whatsapp_counts(self, portal: Portal, written: str) -> None:
        contact = portal.contact(hs_whatsapp_phone_number=written)

        assert deliver(portal.connector()).thread == contact

    def test_properties_of_ones_own_count_if_they_are_named(self, portal: Portal) -> None:
        names = [f"phone_{number}" for number in range(6)]
        portal.define("contacts", *names)
        contact = portal.contact(phone_5="+61 400 000 000")

        receipt = deliver(portal.connector(phone_properties=["phone", *names]))

        assert receipt.thread == contact
        # Five alternatives fit in one search.
        assert portal.calls.count(f"POST {CONTACTS}/search") == 2

    def test_a_phone_property_that_the_account_lacks_is_left_out(self, portal: Portal) -> None:
        portal.ask("DELETE", "/crm/properties/2026-09/contacts/hs_whatsapp_phone_number")
        known = [portal.contact(phone=NUMBER), portal.contact(mobilephone="+61411111111")]
        connector = portal.connector()

        found = [deliver(connector).thread]
        searches = portal.calls.count(f"POST {CONTACTS}/search")
        other = sample_event(customer="+61411111111")
        found.append(deliver(connector, other, key="key-2").thread)

        assert found == known
        # HubSpot does not say which property it was: found out once, and remembered.
        assert (searches, portal.calls.count(f"POST {CONTACTS}/search")) == (6, 7)

    def test_a_search_that_hubspot_refuses_whatever_it_asks_for_is_refused(
        self, portal: Portal
    ) -> None:
        portal.fail(400, path="/search", times=6)

        with pytest.raises(Refused, match="400"):
            deliver(portal.connector())

        assert portal.stand_in.page() == ()

    @pytest.mark.parametrize("name", ["phone", "mobilephone"])
    def test_a_contact_that_people_made_is_adopted(self, portal: Portal, name: str) -> None:
        for written in ("+61400000000", "+61 400 000 000", "0400 000 000", "61400000000"):
            contact = portal.contact(**{name: written, "firstname": "Ann"})

            receipt = deliver(portal.connector(), key=written)

            assert receipt.thread == contact
            assert portal.property(contact, "sms_relay_phone") == NUMBER
            assert portal.property(contact, name) == written
            portal.ask("DELETE", f"{CONTACTS}/{contact}")

    def test_a_number_that_hubspot_cannot_read_is_matched_as_typed(
        self, open_portal: Open
    ) -> None:
        portal = open_portal(country="US")
        contact = portal.contact(phone="61400000000")

        assert deliver(portal.connector()).thread == contact
        assert not portal.property(contact, "hs_calculated_phone_number")

    def test_the_same_digits_in_another_country_are_another_contact(self, portal: Portal) -> None:
        stranger = portal.contact(phone="+44 400 000 000", mobilephone="+49 400 000000")

        receipt = deliver(portal.connector())

        assert receipt.thread != stranger
        assert portal.property(stranger, "sms_relay_phone") is None

    def test_digits_are_read_as_the_country_that_hubspot_chose(self, portal: Portal) -> None:
        # An Australian number; with a plus before it, it would be one in Switzerland.
        local = portal.contact(phone="415552671")

        receipt = deliver(portal.connector(), sample_event(customer="+415552671"))

        assert receipt.thread != local

    def test_of_several_contacts_the_oldest_is_taken(self, portal: Portal) -> None:
        contacts = [portal.contact(phone=written) for written in ("0400000000", NUMBER, NUMBER)]

        receipt = deliver(portal.connector())

        assert receipt.thread == contacts[0]

    def test_a_contact_with_two_numbers_keeps_the_first_as_its_key(self, portal: Portal) -> None:
        contact = portal.contact(phone=NUMBER, mobilephone="+61411111111")
        connector = portal.connector()
        deliver(connector)

        other = deliver(connector, sample_event(customer="+61411111111"), key="key-2")

        assert other.thread == contact
        assert portal.property(contact, "sms_relay_phone") == NUMBER

    def test_a_contact_that_search_does_not_know_yet_is_found(self, open_portal: Open) -> None:
        portal = open_portal(search_lag=LIFE)
        connector = portal.connector()
        first = deliver(connector, sample_event(ours="+61700000001"))

        second = deliver(connector, sample_event(ours="+61700000002"), key="key-2")

        assert second.thread == first.thread

    def test_a_contact_that_search_still_knows_is_passed_over(self, open_portal: Open) -> None:
        portal = open_portal()
        gone, kept = (portal.contact(phone=NUMBER) for _ in range(2))
        portal.ask("PATCH", "/sandbox", {"search_lag": 0.5})
        time.sleep(0.5)
        portal.ask("DELETE", f"{CONTACTS}/{gone}")

        assert deliver(portal.connector()).thread == kept

    @pytest.mark.parametrize("human", [False, True])
    def test_ten_conversations_at_once_share_one_contact(
        self, open_portal: Open, human: bool
    ) -> None:
        portal = open_portal(search_lag=timedelta() if human else LIFE)
        expected = {portal.contact(phone="0400 000 000")} if human else set()
        connector = portal.connector()
        ready = threading.Barrier(10)

        def one(number: int) -> Receipt:
            ready.wait()
            event = sample_event(ours=f"+617{number:08}")
            return deliver(connector, event, key=f"key-{number}", deadline=25.0)

        with ThreadPoolExecutor(10) as pool:
            receipts = list(pool.map(one, range(10)))

        [timeline] = portal.stand_in.page()
        assert {receipt.thread for receipt in receipts} == {timeline.contact}
        assert expected <= {timeline.contact}
        assert len(timeline.entries) == 10

    @pytest.mark.parametrize(
        ("status", "body"),
        [(400, CONFLICT), (207, {"results": [], "numErrors": 1, "errors": [CONFLICT]})],
    )
    def test_a_number_taken_in_the_meantime_is_read_again(
        self, portal: Portal, status: int, body: dict[str, Any]
    ) -> None:
        portal.fail(status, path=UPSERT, body=body, act=True)

        receipt = deliver(portal.connector())

        assert [each.contact for each in portal.stand_in.page()] == [receipt.thread]

    def test_a_number_taken_while_a_contact_is_adopted_leaves_its_key_empty(
        self, portal: Portal
    ) -> None:
        contact = portal.contact(phone=NUMBER)
        portal.fail(400, only=f"PATCH {CONTACTS}/{contact}", body=CONFLICT)

        receipt = deliver(portal.connector())

        assert receipt.thread == contact
        assert receipt.reference == portal.records.listing()[0]["reference"]

    def test_a_number_taken_by_nobody_who_can_be_read_is_tried_later(self, portal: Portal) -> None:
        portal.fail(400, path=UPSERT, body=CONFLICT)

        with pytest.raises(Transient, match="taken"):
            deliver(portal.connector())

    @pytest.mark.parametrize("act", [True, False])
    def test_a_contact_that_the_answer_does_not_name_is_looked_up_at_once(
        self, portal: Portal, act: bool
    ) -> None:
        portal.fail(200, path=UPSERT, body="<html>", act=act)
        if not act:
            with pytest.raises(Transient, match="neither the answer nor a look-up"):
                deliver(portal.connector())
            return

        receipt = deliver(portal.connector())

        assert [each.contact for each in portal.stand_in.page()] == [receipt.thread]

    def test_without_the_unique_property_a_contact_is_made_all_the_same(
        self, portal: Portal
    ) -> None:
        connector = portal.connector(unique_property="not_set_up")

        first = deliver(connector)
        second = deliver(connector, key="key-2")

        assert second.thread == first.thread
        assert len(portal.stand_in.page()) == 1

    def test_without_the_unique_property_a_contact_that_people_made_is_used(
        self, portal: Portal
    ) -> None:
        contact = portal.contact(mobilephone="0400 000 000")

        assert deliver(portal.connector(unique_property="not_set_up")).thread == contact

    @pytest.mark.parametrize(("status", "body"), [(500, ""), (201, "{}")])
    def test_without_the_unique_property_a_lost_contact_is_ambiguous(
        self, portal: Portal, status: int, body: str
    ) -> None:
        portal.fail(status, only=f"POST {CONTACTS}", body=body)

        with pytest.raises(Ambiguous):
            deliver(portal.connector(unique_property="not_set_up"))

    def test_a_refused_look_up_by_a_property_that_is_there_is_no_missing_property(
        self, portal: Portal
    ) -> None:
        portal.fail(400, path=f"/contacts/{NUMBER}", body={"message": "no sms_relay_phone"})

        with pytest.raises(Refused, match="400"):
            deliver(portal.connector())

        assert portal.stand_in.page() == ()

    def test_an_account_that_does_not_show_properties_is_taken_at_its_word(
        self, portal: Portal
    ) -> None:
        portal.fail(400, path=f"/contacts/{NUMBER}")
        portal.fail(403, path="/properties/")

        receipt = deliver(portal.connector())

        assert portal.property(str(receipt.thread), "sms_relay_phone") is None

    def test_an_upsert_that_only_finds_out_then_makes_the_contact_without(
        self, portal: Portal
    ) -> None:
        # Unverified: HubSpot may answer 404 to a look-up by a property that is not there.
        portal.fail(404, path=f"/contacts/{NUMBER}")

        deliver(portal.connector(unique_property="not_set_up"))

        assert len(portal.stand_in.page()) == 1


class TestUnknownCustomer:
    def test_skip_makes_no_contact_and_no_entry(self, portal: Portal) -> None:
        receipt = deliver(portal.connector(unknown_contact="skip"))

        assert receipt.reference.startswith("skipped: no contact")
        assert receipt.thread is None
        assert (portal.stand_in.page(), portal.records.listing()) == ((), [])

    def test_skip_still_logs_on_a_contact_that_is_there(self, portal: Portal) -> None:
        contact = portal.contact(phone=NUMBER)

        assert deliver(portal.connector(unknown_contact="skip")).thread == contact

    @pytest.mark.parametrize("customer", [None, "GoFax", "12345", "0400000000", "+x"])
    def test_an_event_without_an_international_number_is_refused(
        self, portal: Portal, customer: str | None
    ) -> None:
        with pytest.raises(Refused, match="no international phone number"):
            deliver(portal.connector(), sample_event(customer=customer))

        assert portal.calls == []

    def test_an_event_without_a_number_is_skipped_where_unknown_ones_are(
        self, portal: Portal
    ) -> None:
        event = sample_event(customer=None)

        receipt = deliver(portal.connector(unknown_contact="skip"), event)

        assert receipt.reference.startswith("skipped: the event names no phone number")


class TestThreadThatIsGone:
    @pytest.mark.parametrize("repeat", [False, True])
    def test_another_contact_takes_over(self, portal: Portal, repeat: bool) -> None:
        connector = portal.connector()
        gone = deliver(connector).thread
        portal.ask("DELETE", f"{CONTACTS}/{gone}")

        receipt = deliver(connector, key="key-2", thread=gone, repeat=repeat)

        assert receipt.thread not in (None, gone)
        assert [each.contact for each in portal.stand_in.page()] == [receipt.thread]
        assert len(portal.records.listing()) == 2

    def test_a_contact_that_was_merged_into_another_is_left(self, portal: Portal) -> None:
        merged, kept = portal.contact(firstname="Ann"), portal.contact(phone=NUMBER)
        portal.fail(400, path="communications", body={"message": "associations are not valid"})
        portal.fail(200, path=f"/contacts/{merged}", body={"id": kept})

        assert deliver(portal.connector(), thread=merged).thread == kept

    @pytest.mark.parametrize("thread", ["ticket-7", "../1", "²", "9" * 5000])
    def test_what_is_no_contact_id_is_ignored(self, portal: Portal, thread: str) -> None:
        receipt = deliver(portal.connector(), thread=thread)

        assert [each.contact for each in portal.stand_in.page()] == [receipt.thread]
        assert portal.calls.count(f"POST {COMMUNICATIONS}") == 1

    def test_a_refusal_that_has_another_reason_stays_one(self, portal: Portal) -> None:
        connector = portal.connector()
        thread = deliver(connector).thread
        portal.fail(400, path="communications", body={"message": "body is not valid"})

        with pytest.raises(Refused, match="body is not valid"):
            deliver(connector, key="key-2", thread=thread)

        assert len(portal.records.listing()) == 1

    def test_a_contact_that_vanishes_every_time_ends_the_attempt(self, portal: Portal) -> None:
        portal.fail(404, path="communications")
        portal.fail(404, path="/contacts/", method="GET", times=2)

        with pytest.raises(Transient, match="disappeared"):
            deliver(portal.connector())
