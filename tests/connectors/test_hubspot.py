"""HubSpot: one entry per event, on one contact per number, whatever goes wrong."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hubspot_portal import (
    COMMUNICATIONS,
    CONTACTS,
    LIFE,
    NUMBER,
    TOKEN,
    UPSERT,
    Portal,
    deliver,
    opened,
)
from pydantic import BaseModel, ValidationError

from connectors import (
    Ambiguous,
    DeliveryError,
    Http,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.hubspot.api import DAILY_PROBE, POLICY_WAITS, policy_wait
from connectors.hubspot.connector import HubSpot
from connectors.hubspot.options import HubSpotOptions, InboxOptions, TaskOptions, TicketOptions
from connectors.testing import sample_event

Open = Callable[..., Portal]


@pytest.fixture
def open_portal() -> Iterator[Open]:
    """Start stand-ins with special settings."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(opened(**settings))


@pytest.fixture
def portal(open_portal: Open) -> Portal:
    return open_portal()


class TestOneEntry:
    def test_a_delivery_makes_a_contact_and_one_entry_on_it(self, portal: Portal) -> None:
        receipt = deliver(portal.connector())

        [record] = portal.records.listing()
        assert (record["kind"], record["conversation"]) == ("communication", NUMBER)
        assert receipt.reference == record["reference"]
        [timeline] = portal.stand_in.page()
        assert (timeline.contact, timeline.phone) == (receipt.thread, NUMBER)
        assert portal.property(timeline.contact, "sms_relay_phone") == NUMBER
        assert portal.property(timeline.contact, "phone") == NUMBER

    def test_a_known_thread_needs_one_request(self, portal: Portal) -> None:
        connector = portal.connector()
        first = deliver(connector)
        portal.calls.clear()

        second = deliver(connector, key="key-2", thread=first.thread)

        assert second.thread == first.thread
        assert portal.calls == [f"POST {COMMUNICATIONS}"]
        assert len(portal.records.listing()) == 2

    def test_the_entry_says_direction_numbers_and_text(self, portal: Portal) -> None:
        deliver(portal.connector())

        [text] = portal.texts()
        head, _, rest = text.partition("\n\n")
        assert head == "SMS reply from +61400000000 · +61400000000 → +61700000000"
        assert rest.startswith("Thanks for your message\n\ngofax-relay ")

    def test_the_entry_stands_at_the_time_of_the_message(self, portal: Portal) -> None:
        deliver(portal.connector())

        [timeline] = portal.stand_in.page()
        assert timeline.entries[0].at == "2025-12-04T00:24:07.112733Z"

    @pytest.mark.parametrize(
        "clock",
        [
            None,
            datetime(2025, 12, 5, tzinfo=UTC),  # after we had it
            datetime(1, 1, 1, tzinfo=UTC),
        ],
    )
    def test_a_clock_that_cannot_be_right_does_not_count(
        self, portal: Portal, clock: datetime | None
    ) -> None:
        deliver(portal.connector(), sample_event(occurred_at=clock))

        [timeline] = portal.stand_in.page()
        assert timeline.entries[0].at.startswith("2025-12-04T00:24:08")

    def test_the_owner_is_named_if_one_is_configured(self, portal: Portal) -> None:
        receipt = deliver(portal.connector(owner_id="501"))

        row = portal.ask("GET", f"{COMMUNICATIONS}/{receipt.reference}")
        assert row["properties"]["hubspot_owner_id"] == "501"

    def test_an_owner_that_does_not_exist_pauses_the_destination(self, portal: Portal) -> None:
        with pytest.raises(Unauthorized, match="owner_id"):
            deliver(portal.connector(owner_id="502"))

    def test_the_receipt_links_to_the_entry_only_by_a_web_address(self, portal: Portal) -> None:
        receipt = deliver(portal.connector())
        portal.fail(201, path="communications", body={"id": "7", "url": "javascript:alert(1)"})

        other = deliver(portal.connector(), key="key-2", thread=receipt.thread)

        assert receipt.url is not None
        assert receipt.url.endswith(f"#hubspot-contact-{receipt.thread}")
        assert other.url is None


class TestText:
    def test_text_from_strangers_is_escaped(self, portal: Portal) -> None:
        body = "<img src=x onerror=alert(1)> & \"you\"\r\nline two\nline 'three'"

        deliver(portal.connector(), sample_event(body=body))

        [html] = portal.bodies()
        assert "<img" not in html
        assert "&lt;img src=x onerror=alert(1)&gt; &amp; &quot;you&quot;<br>line two<br>" in html
        assert body.replace("\r", "") in portal.texts()[0]

    def test_numbers_from_strangers_are_escaped(self, portal: Portal) -> None:
        deliver(portal.connector(), sample_event(sender="<b>Shop</b>", recipient=None))

        [html] = portal.bodies()
        assert "&lt;b&gt;Shop&lt;/b&gt; → unknown<br><br>" in html

    def test_a_missing_text_is_said_to_be_missing(self, portal: Portal) -> None:
        deliver(portal.connector(), sample_event(body=None))

        assert "(no text: Include Message body is off" in portal.texts()[0]

    def test_what_json_or_hubspot_could_not_carry_is_left_out(self, portal: Portal) -> None:
        deliver(portal.connector(), sample_event(body="a\x00b\x1bc\ud83dd 👩‍👩‍👧 é\te"))

        assert "abc?d 👩‍👩‍👧 é\te" in portal.texts()[0]

    @pytest.mark.parametrize("character", ["x", "&", "\n", "👋"])
    def test_a_text_over_the_limit_is_cut_with_a_note(
        self, portal: Portal, character: str
    ) -> None:
        deliver(portal.connector(), sample_event(body=character * 65_536))

        [html], [text] = portal.bodies(), portal.texts()
        assert 65_500 < len(html.encode("utf-16-le")) // 2 <= 65_536
        assert "… (shortened: HubSpot takes no more in one entry)\n\ngofax-relay " in text

    def test_a_long_text_that_fits_is_left_whole(self, portal: Portal) -> None:
        deliver(portal.connector(), sample_event(body="x" * 65_000))

        assert "x" * 65_000 in portal.texts()[0]
        assert "shortened" not in portal.texts()[0]

    def test_the_marker_survives_a_cut(self, portal: Portal) -> None:
        connector, event = portal.connector(), sample_event(body="&" * 65_536)
        first = deliver(connector, event)

        second = deliver(connector, event, thread=first.thread, repeat=True)

        assert second.reference == first.reference


class TestTemplate:
    def test_the_entry_follows_its_template(self, portal: Portal) -> None:
        template = "{{ title | upper }}\n<b>{{ text }}</b>"

        deliver(portal.connector(text=template), sample_event(body="a < b"))

        assert portal.bodies()[0].startswith(
            "SMS REPLY FROM +61400000000<br>&lt;b&gt;a &lt; b&lt;/b&gt;<br><br>gofax-relay "
        )

    def test_a_template_that_fails_refuses_the_event_and_makes_nothing(
        self, portal: Portal
    ) -> None:
        connector = portal.connector(text="{{ metadata.campaign }}", ticket={}, task={})

        with pytest.raises(Refused, match=r"^text: the template .* event evt_\w+: there is no"):
            deliver(connector)

        assert portal.records.listing() == []

    def test_a_template_that_makes_nothing_leaves_the_marker(self, portal: Portal) -> None:
        deliver(portal.connector(text=""))

        assert portal.texts()[0].startswith("\n\ngofax-relay ")


class TestContact:
    @pytest.mark.parametrize(
        "written", ["+61400000000", "61400000000", "+61 400 000 000", " +61400000000 "]
    )
    def test_a_number_for_whatsapp_counts(self, portal: Portal, written: str) -> None:
        contact = portal.contact(hs_whatsapp_phone_number=written.strip())

        assert deliver(portal.connector()).thread == contact

    def test_properties_of_ones_own_count_if_they_are_named(self, portal: Portal) -> None:
        names = [f"phone_{number}" for number in range(6)]
        portal.define("contacts", *names)
        contact = portal.contact(phone_5="+61 400 000 000")

        receipt = deliver(portal.connector(phone_properties=["phone", *names]))

        assert receipt.thread == contact
        # Five alternatives fit in one search.
        assert portal.calls.count(f"POST {CONTACTS}/search") == 2

    def test_a_phone_property_that_is_not_there_pauses_the_destination(
        self, portal: Portal
    ) -> None:
        with pytest.raises(Unauthorized, match="are phone_properties right"):
            deliver(portal.connector(phone_properties=["phone", "shoe_phone"]))

    @pytest.mark.parametrize("name", ["phone", "mobilephone"])
    @pytest.mark.parametrize(
        "written", ["+61400000000", "+61 400 000 000", "0400 000 000", "61400000000", "400000000"]
    )
    def test_a_contact_that_people_made_is_adopted(
        self, portal: Portal, name: str, written: str
    ) -> None:
        contact = portal.contact(**{name: written, "firstname": "Ann"})

        receipt = deliver(portal.connector())

        assert receipt.thread == contact
        assert portal.property(contact, "sms_relay_phone") == NUMBER
        assert portal.property(contact, name) == written

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

    def test_a_contact_that_search_still_knows_is_passed_over(self, portal: Portal) -> None:
        gone, kept = (portal.contact(phone=NUMBER) for _ in range(2))
        portal.fail(404, path=f"/contacts/{gone}", body={"category": "OBJECT_NOT_FOUND"})

        assert deliver(portal.connector()).thread == kept

    @pytest.mark.parametrize("human", [False, True])
    def test_fifty_conversations_at_once_share_one_contact(
        self, open_portal: Open, human: bool
    ) -> None:
        portal = open_portal(search_lag=timedelta() if human else LIFE)
        expected = {portal.contact(phone="0400 000 000")} if human else set()
        connector = portal.connector()
        ready = threading.Barrier(50)

        def one(number: int) -> Receipt:
            ready.wait()
            event = sample_event(ours=f"+617{number:08}")
            return deliver(connector, event, key=f"key-{number}", deadline=25.0)

        with ThreadPoolExecutor(50) as pool:
            receipts = list(pool.map(one, range(50)))

        [timeline] = portal.stand_in.page()
        assert {receipt.thread for receipt in receipts} == {timeline.contact}
        assert expected <= {timeline.contact}
        assert len(timeline.entries) == 50

    @pytest.mark.parametrize("human", [False, True])
    def test_a_number_taken_in_the_meantime_is_read_again(
        self, portal: Portal, human: bool
    ) -> None:
        conflict = {"category": "VALIDATION_ERROR", "errors": [{"code": TAKEN}]}
        path = UPSERT
        if human:
            path = f"{CONTACTS}/{portal.contact(phone=NUMBER)}"
        portal.fail(400, path=path, body=conflict, act=True)

        receipt = deliver(portal.connector())

        [timeline] = portal.stand_in.page()
        assert receipt.thread == timeline.contact

    def test_a_number_taken_inside_a_batch_is_read_again(self, portal: Portal) -> None:
        fault = {"category": "VALIDATION_ERROR", "errors": [{"code": TAKEN}]}
        answer = {"results": [], "numErrors": 1, "errors": [fault]}
        portal.fail(207, path=UPSERT, body=answer, act=True)

        receipt = deliver(portal.connector())

        assert [each.contact for each in portal.stand_in.page()] == [receipt.thread]

    def test_a_number_taken_by_nobody_who_can_be_read_is_tried_later(self, portal: Portal) -> None:
        portal.fail(400, path=UPSERT, body={"message": TAKEN})

        with pytest.raises(Transient, match="taken"):
            deliver(portal.connector())

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

    @pytest.mark.parametrize("status", [500, 502])
    def test_without_the_unique_property_a_lost_contact_is_ambiguous(
        self, portal: Portal, status: int
    ) -> None:
        portal.fail(400, path=f"/contacts/{NUMBER}", body={"message": "no such not_set_up"})
        portal.fail(200, path="/search", body={"results": []})
        portal.fail(status, path=CONTACTS)

        with pytest.raises(Ambiguous, match=str(status)):
            deliver(portal.connector(unique_property="not_set_up"))


class TestUnknownCustomer:
    def test_skip_makes_no_contact_and_no_entry(self, portal: Portal) -> None:
        receipt = deliver(portal.connector(unknown_contact="skip"))

        assert receipt.reference.startswith("skipped: no contact")
        assert receipt.thread is None
        assert (portal.stand_in.page(), portal.records.listing()) == ((), [])

    def test_skip_still_logs_on_a_contact_that_is_there(self, portal: Portal) -> None:
        contact = portal.contact(phone=NUMBER)

        assert deliver(portal.connector(unknown_contact="skip")).thread == contact

    @pytest.mark.parametrize("customer", [None, "", "GoFax", "12345", "0400000000", "+", "+x"])
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

    @pytest.mark.parametrize("thread", ["ticket-7", "../1", "²", "9" * 5000, ""])
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
        gone = portal.contact(phone=NUMBER)
        portal.fail(404, path="communications", times=2)
        portal.fail(404, path=f"/contacts/{gone}", times=2)
        connector = portal.connector(unique_property="not_set_up")

        with pytest.raises(Transient, match="disappeared"):
            deliver(connector, thread=gone)


class TestRepeat:
    @pytest.mark.parametrize("with_thread", [False, True])
    def test_a_time_out_after_acting_leaves_one_entry(
        self, portal: Portal, with_thread: bool
    ) -> None:
        connector = portal.connector()
        thread = portal.contact(phone=NUMBER) if with_thread else None
        portal.fail(None, path="communications", wait=6.0, act=True)
        with pytest.raises(Ambiguous):
            deliver(connector, thread=thread, deadline=2.0)

        receipt = deliver(connector, thread=thread, repeat=True)

        [record] = portal.records.listing()
        assert receipt.reference == record["reference"]

    def test_an_error_after_acting_leaves_one_entry(self, portal: Portal) -> None:
        connector = portal.connector()
        portal.fail(502, path="communications", act=True)
        with pytest.raises(Ambiguous):
            deliver(connector)

        deliver(connector, repeat=True)

        assert len(portal.records.listing()) == 1

    def test_an_error_before_acting_leaves_one_entry(self, portal: Portal) -> None:
        connector = portal.connector()
        portal.fail(503, path="communications")
        with pytest.raises(Ambiguous):
            deliver(connector)

        deliver(connector, repeat=True)

        assert len(portal.records.listing()) == 1

    def test_another_key_makes_another_entry_of_the_same_event(self, portal: Portal) -> None:
        connector = portal.connector()
        first = deliver(connector)

        second = deliver(connector, key="key-2", thread=first.thread, repeat=True)

        assert second.reference != first.reference

    @pytest.mark.parametrize("place", [0, 60, 129])
    def test_a_marker_is_found_among_many_entries(self, open_portal: Open, place: int) -> None:
        portal = open_portal(associations_a_page=50)
        connector = portal.connector()
        contact = portal.contact(phone=NUMBER)
        made = [deliver(connector, key=f"key-{each}", thread=contact) for each in range(130)]

        again = deliver(connector, key=f"key-{place}", thread=contact, repeat=True)

        assert again.reference == made[place].reference
        assert len(portal.records.listing()) == 130

    def test_entries_from_before_the_event_are_not_read(self, portal: Portal) -> None:
        connector = portal.connector()
        thread = deliver(connector).thread
        for number in range(120):
            deliver(connector, key=f"other-{number}", thread=thread)
        portal.calls.clear()
        later = sample_event(received_at=datetime.now(UTC) + timedelta(days=2))

        deliver(connector, later, key="new", thread=thread, repeat=True)

        assert portal.calls.count(f"POST {COMMUNICATIONS}/batch/read") == 1

    def test_a_look_that_failed_in_part_writes_nothing(self, portal: Portal) -> None:
        connector = portal.connector()
        first = deliver(connector)
        fault = {"category": "INTERNAL_ERROR", "message": "try later"}
        answer = {"results": [], "numErrors": 1, "errors": [fault]}
        portal.fail(207, path="communications/batch/read", body=answer)

        with pytest.raises(Transient, match="in part"):
            deliver(connector, thread=first.thread, repeat=True)

        assert len(portal.records.listing()) == 1


TAKEN = "CONFLICTING_UNIQUE_VALUE"

STATUSES = [
    # status, at a read or an upsert, at the entry itself
    (302, Unauthorized, Unauthorized),
    (401, Unauthorized, Unauthorized),
    (403, Unauthorized, Unauthorized),
    (408, Transient, Transient),
    (409, Refused, Refused),
    (415, Refused, Refused),
    (423, Throttled, Throttled),
    (425, Transient, Transient),
    (429, Throttled, Throttled),
    (477, Throttled, Throttled),
    (500, Transient, Ambiguous),
    (502, Transient, Ambiguous),
    (503, Transient, Ambiguous),
    (504, Transient, Ambiguous),
    (521, Transient, Ambiguous),
]


class TestErrors:
    @pytest.mark.parametrize(("status", "at_read", "_"), STATUSES)
    @pytest.mark.parametrize("path", [f"/contacts/{NUMBER}", "/search", UPSERT])
    def test_a_failed_look_up_or_upsert(
        self, portal: Portal, status: int, at_read: type[DeliveryError], _: Any, path: str
    ) -> None:
        portal.fail(status, path=path)

        with pytest.raises(DeliveryError) as caught:
            deliver(portal.connector())

        assert type(caught.value) is at_read
        assert caught.value.status == status
        assert portal.records.listing() == []

    @pytest.mark.parametrize(("status", "_", "at_entry"), STATUSES)
    def test_a_failed_entry(
        self, portal: Portal, status: int, _: Any, at_entry: type[DeliveryError]
    ) -> None:
        portal.fail(status, path="communications")

        with pytest.raises(DeliveryError) as caught:
            deliver(portal.connector())

        assert type(caught.value) is at_entry
        assert caught.value.status == status

    @pytest.mark.parametrize(
        ("policy", "least", "most"),
        [
            ("SECONDLY", 1, 1),
            ("TEN_SECONDLY_ROLLING", 10, 10),
            ("DAILY", 3600, 3600),
            ("SOMETHING_NEW", 10, 10),
            (None, 10, 10),
        ],
    )
    def test_a_rate_limit_waits_as_its_policy_wants(
        self, portal: Portal, policy: str | None, least: int, most: int
    ) -> None:
        said = {"status": "error", "errorType": "RATE_LIMIT", "policyName": policy}
        portal.fail(429, path="communications", body=said)

        with pytest.raises(Throttled) as caught:
            deliver(portal.connector())

        wait = caught.value.retry_after
        assert wait is not None
        assert timedelta(seconds=least) <= wait <= timedelta(seconds=most)
        assert caught.value.scope == "destination"

    @pytest.mark.parametrize(
        ("zone", "now", "hours"),
        [
            ("UTC", datetime(2026, 3, 1, 21, tzinfo=UTC), 3),
            ("Australia/Brisbane", datetime(2026, 3, 1, 13, tzinfo=UTC), 1),
            ("Australia/Brisbane", datetime(2026, 3, 1, 14, tzinfo=UTC), 24),
            # Clocks go back in that night: it has an hour more.
            ("Europe/Berlin", datetime(2026, 10, 24, 23, tzinfo=UTC), 24),
            (None, datetime(2026, 3, 1, 13, tzinfo=UTC), 1),
        ],
    )
    def test_the_daily_limit_ends_at_midnight_where_the_account_is(
        self, zone: str | None, now: datetime, hours: int
    ) -> None:
        known = ZoneInfo(zone) if zone else None

        assert policy_wait("DAILY", now=now, zone=known) == timedelta(hours=hours)

    def test_the_zone_comes_from_the_options(self, portal: Portal) -> None:
        portal.fail(429, body={"policyName": "DAILY"}, times=2)
        waits = []
        for zone in (None, "Pacific/Kiritimati"):
            with pytest.raises(Throttled) as caught:
                deliver(portal.connector(time_zone=zone))
            assert caught.value.retry_after is not None
            waits.append(caught.value.retry_after)

        end = datetime.now(ZoneInfo("Pacific/Kiritimati")) + waits[1] + timedelta(minutes=1)
        assert waits[0] == DAILY_PROBE
        assert (end.hour, end.minute // 5) == (0, 0)

    def test_a_search_that_names_its_limit_in_words_only_waits_a_second(
        self, portal: Portal
    ) -> None:
        said = {"status": "error", "message": "You have reached your secondly limit."}
        portal.fail(429, path="/search", body=said)

        with pytest.raises(Throttled) as caught:
            deliver(portal.connector())

        assert caught.value.retry_after == timedelta(seconds=1)

    @pytest.mark.parametrize("status", [423, 429, 477])
    def test_a_wait_that_hubspot_names_is_kept(self, portal: Portal, status: int) -> None:
        portal.fail(status, headers={"Retry-After": "77"})

        with pytest.raises(Throttled) as caught:
            deliver(portal.connector())

        assert caught.value.retry_after == timedelta(seconds=77)

    def test_a_locked_record_holds_up_its_conversation_only(self, portal: Portal) -> None:
        portal.fail(423, path="communications", headers={"Retry-After": "1"})

        with pytest.raises(Throttled) as caught:
            deliver(portal.connector())

        assert caught.value.retry_after == timedelta(seconds=2)
        assert caught.value.scope == "conversation"

    def test_a_refused_request_is_not_repeated_by_itself(self, portal: Portal) -> None:
        portal.fail(429, path="/contacts/", headers={"Retry-After": "0"}, times=5)

        with pytest.raises(Throttled):
            deliver(portal.connector())

        assert len(portal.calls) == 1

    def test_missing_scopes_are_named(self, portal: Portal) -> None:
        token = "scopes:crm.objects.contacts.read"
        with pytest.raises(Unauthorized, match=r"missing scopes: crm\.objects\.contacts\.write"):
            deliver(portal.connector(access_token=token))

        with pytest.raises(Unauthorized, match=r"missing scopes: crm\.objects\.contacts\.read"):
            deliver(portal.connector(access_token="unscoped"))

    def test_scopes_named_in_the_other_form_are_named(self, portal: Portal) -> None:
        context = {"missingScopes": ["crm.objects.contacts.read"]}
        portal.fail(403, body={"category": "MISSING_SCOPES", "context": context})

        with pytest.raises(Unauthorized, match=r"missing scopes: crm\.objects\.contacts\.read"):
            deliver(portal.connector())

    def test_a_revoked_key_is_unauthorized(self, portal: Portal) -> None:
        with pytest.raises(Unauthorized, match="401"):
            deliver(portal.connector(access_token="revoked"))

    def test_a_redirect_is_not_followed(self, portal: Portal) -> None:
        elsewhere = portal.url.replace("/hubspot", "/elsewhere")
        portal.fail(307, path="communications", headers={"Location": elsewhere})

        with pytest.raises(Unauthorized, match="redirect"):
            deliver(portal.connector())

        assert portal.calls[-1] == f"POST {COMMUNICATIONS}"

    def test_an_address_that_is_not_allowed_is_not_reached(self, portal: Portal) -> None:
        options = HubSpotOptions(access_token=TOKEN, base_url=portal.url)  # type: ignore[arg-type]
        connector = HubSpot(options, http=Http())
        portal.connectors.append(connector)

        with pytest.raises(Unauthorized, match=r"outbound\.allow"):
            deliver(connector)

        assert portal.calls == []

    def test_nobody_listening_is_transient(self, portal: Portal) -> None:
        with pytest.raises(Transient, match="not reached"):
            deliver(portal.connector(base_url="http://127.0.0.1:9"))


GARBAGE = [
    "",
    "null",
    "[]",
    "{}",
    '"id"',
    "<html>Welcome to the hotel Wi-Fi</html>",
    '{"id": null}',
    '{"id": {}}',
    '{"id": true}',
    "[" * 100_000,
    '{"id": ' + "9" * 10_000 + "}",
    "\ufffd\x00",
]


class TestGarbage:
    @pytest.mark.parametrize("garbage", GARBAGE)
    @pytest.mark.parametrize("charset", ["utf-8", "no-such-charset", "utf-16"])
    def test_an_entry_without_a_usable_answer_is_ambiguous(
        self, portal: Portal, garbage: str, charset: str
    ) -> None:
        headers = {"Content-Type": f"application/json; charset={charset}"}
        portal.fail(201, path="communications", body=garbage, act=True, headers=headers)
        connector = portal.connector()
        with pytest.raises(Ambiguous):
            deliver(connector)

        deliver(connector, repeat=True)

        assert len(portal.records.listing()) == 1

    @pytest.mark.parametrize("garbage", GARBAGE)
    @pytest.mark.parametrize("path", [f"/contacts/{NUMBER}", "/search", UPSERT])
    def test_a_look_up_without_a_usable_answer_is_transient(
        self, portal: Portal, garbage: str, path: str
    ) -> None:
        portal.fail(200, path=path, body=garbage)

        with pytest.raises(Transient):
            deliver(portal.connector())

        assert portal.records.listing() == []

    def test_a_contact_made_without_the_unique_property_is_ambiguous(self, portal: Portal) -> None:
        connector = portal.connector(unique_property="not_set_up")
        portal.fail(400, path=f"/contacts/{NUMBER}", body={"message": "no not_set_up"})
        portal.fail(200, path="/search", body={"results": []})
        portal.fail(201, path=CONTACTS, body="{}")

        with pytest.raises(Ambiguous, match="contact"):
            deliver(connector)

    @pytest.mark.parametrize("status", [400, 403, 429, 500])
    @pytest.mark.parametrize("garbage", GARBAGE)
    def test_an_error_in_an_unknown_form_is_still_an_error(
        self, portal: Portal, status: int, garbage: str
    ) -> None:
        portal.fail(status, path="communications", body=garbage)

        with pytest.raises(DeliveryError, match=str(status)):
            deliver(portal.connector())


class TestDeadline:
    @pytest.mark.parametrize(
        ("path", "expected"), [("/search", Transient), ("communications", Ambiguous)]
    )
    def test_a_slow_answer_ends_with_the_deadline(
        self, portal: Portal, path: str, expected: type[DeliveryError]
    ) -> None:
        portal.fail(None, path=path, wait=6.0)
        started = time.monotonic()

        with pytest.raises(expected):
            deliver(portal.connector(), deadline=2.0)

        assert time.monotonic() - started < 4

    def test_many_slow_answers_share_one_deadline(self, portal: Portal) -> None:
        portal.fail(None, wait=0.25, times=9)
        started = time.monotonic()

        with pytest.raises((Transient, Ambiguous)):
            deliver(portal.connector(), deadline=0.6)

        assert time.monotonic() - started < 2


class TestSecrets:
    def test_the_token_is_in_no_repr_error_or_log(
        self, portal: Portal, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        connector = portal.connector()
        deliver(connector, sample_event(body="my pin is 9421"))
        portal.fail(500, body={"message": f"no such token: {TOKEN}"})
        with pytest.raises(Transient) as caught:
            deliver(connector, key="key-2")

        seen = [repr(connector.options), repr(connector), repr(caught.value), caplog.text]
        assert "no such token: (token)" in str(caught.value)
        assert all(TOKEN not in each for each in seen)
        assert caught.value.__cause__ is None

    def test_bodies_and_numbers_are_in_no_log(
        self, portal: Portal, caplog: pytest.LogCaptureFixture
    ) -> None:
        connector = portal.connector()
        caplog.set_level(logging.DEBUG)

        deliver(connector, sample_event(body="my pin is 9421"))

        ours = [each for each in caplog.records if not each.name.startswith("werkzeug")]
        said = " ".join(each.getMessage() for each in ours)
        assert "9421" not in said
        assert NUMBER not in said

    @pytest.mark.parametrize("quoted", ["{}", "SMS reply ... {} ...", "{} and so on"])
    @pytest.mark.parametrize(
        ("body", "written"),
        [("my pin is 9421", "my pin is 9421"), ("<b> & 9421", "&lt;b&gt; &amp; 9421")],
    )
    def test_what_people_wrote_is_left_out_of_errors(
        self, portal: Portal, quoted: str, body: str, written: str
    ) -> None:
        connector = portal.connector(ticket={}, task={})
        for kind in ("tickets", "tasks", "communications"):
            said = f'not valid: "{quoted.format(written)}"'
            portal.fail(400, only=f"POST /crm/objects/2026-09/{kind}", body={"message": said})

            with pytest.raises(Refused, match=r"not valid: .*\(text\)") as caught:
                deliver(connector, sample_event(body=body))

            assert "9421" not in str(caught.value)

    @pytest.mark.parametrize("body", [None, "", "ok", "v"])
    def test_what_says_nothing_leaves_errors_whole(self, portal: Portal, body: str | None) -> None:
        portal.fail(400, path="communications", body={"message": "is not valid, ok"})

        with pytest.raises(Refused, match="is not valid, ok"):
            deliver(portal.connector(), sample_event(body=body))

    def test_phone_numbers_are_left_out_of_errors(self, portal: Portal) -> None:
        portal.fail(400, path=UPSERT, body={"message": f"{NUMBER} is not valid"})

        with pytest.raises(Refused, match=r"\(number\) is not valid") as caught:
            deliver(portal.connector())

        assert NUMBER not in str(caught.value)

    def test_two_destinations_share_nothing(self, portal: Portal, open_portal: Open) -> None:
        other = open_portal()
        deliver(portal.connector())

        deliver(other.connector(access_token="other"), key="key-2")

        assert len(portal.records.listing()) == len(other.records.listing()) == 1


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
        ],
    )
    def test_says_what_the_account_lacks(
        self, portal: Portal, options: dict[str, Any], lacking: str
    ) -> None:
        with pytest.raises(Unauthorized) as caught:
            portal.connector(**options).check()

        assert lacking in str(caught.value)

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


class TestOptions:
    @pytest.mark.parametrize("model", [HubSpotOptions, TicketOptions, TaskOptions, InboxOptions])
    def test_every_option_is_described(self, model: type[BaseModel]) -> None:
        assert all(each.description for each in model.model_fields.values())

    @pytest.mark.parametrize("token", ["", " ", "two words", "line\nbreak", "ключ"])
    def test_a_token_that_no_header_can_carry_is_a_fault(self, token: str) -> None:
        with pytest.raises(ValidationError) as caught:
            HubSpotOptions(access_token=token)  # type: ignore[arg-type]

        assert "access_token" in str(caught.value)
        assert not token.strip() or token not in str(caught.value)

    @pytest.mark.parametrize(
        "fault",
        [
            {"base_url": "api.hubapi.com"},
            {"base_url": "https://api.hubapi.com?x=1"},
            {"base_url": "ftp://api.hubapi.com"},
            {"base_url": "https://user@api.hubapi.com"},
            {"unknown_contact": "invent"},
            {"owner_id": "Ann"},
            {"unique_property": "Phone Number"},
            {"acces_token": "x"},
            {"time_zone": "Mars/Olympus"},
            {"time_zone": "../etc/passwd"},
            {"text": "{{ nothing }}"},
            {"phone_properties": []},
            {"opt_out_property": "SMS opt out"},
            {"ticket": {"subject": "{{ customer"}},
            {"ticket": {"pipelines": "0"}},
            {"task": {"due_in_hours": -1}},
            {"inbox": {}},
            {"inbox": {"channel_id": "1", "numbers": ["+61700000000"]}},
            {"inbox": {"channel_id": "1", "inbox_id": "2", "numbers": ["0700000000"]}},
            {"inbox": {"channel_id": "1"}, "ticket": {}},
            {"inbox": {"channel_id": "1"}, "task": {}},
        ],
    )
    def test_a_value_that_cannot_work_is_a_fault(self, fault: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            HubSpotOptions(**{"access_token": TOKEN, **fault})

    def test_the_address_may_end_with_a_slash(self, portal: Portal) -> None:
        deliver(portal.connector(base_url=portal.url + "/"))

        assert len(portal.records.listing()) == 1


def test_waits_are_those_of_hubspots_own_client() -> None:
    assert [wait.total_seconds() for wait in POLICY_WAITS.values()] == [1, 10]
