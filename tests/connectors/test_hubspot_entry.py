"""HubSpot: one timeline entry per event, with the text as it came."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hubspot_portal import COMMUNICATIONS, NUMBER, Open, Portal, deliver

from connectors import Ambiguous, Refused, Throttled, Transient, Unauthorized
from connectors.testing import sample_event


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
        with pytest.raises(Unauthorized, match="is owner_id right"):
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


class TestRepeat:
    @pytest.mark.parametrize("with_thread", [False, True])
    @pytest.mark.parametrize(
        ("fault", "deadline"),
        [
            ({"status": None, "wait": 6.0, "act": True}, 2.0),
            ({"status": 502, "act": True}, 10.0),
            ({"status": 503}, 10.0),
        ],
    )
    def test_a_lost_answer_leaves_one_entry(
        self, portal: Portal, with_thread: bool, fault: dict[str, Any], deadline: float
    ) -> None:
        connector = portal.connector()
        thread = portal.contact(phone=NUMBER) if with_thread else None
        portal.fail(path="communications", **fault)
        with pytest.raises(Ambiguous):
            deliver(connector, thread=thread, deadline=deadline)

        receipt = deliver(connector, thread=thread, repeat=True)

        [record] = portal.records.listing()
        assert receipt.reference == record["reference"]

    @pytest.mark.parametrize("garbage", ["", "{}", "<html>", '{"id": "../7"}'])
    def test_a_success_with_an_unreadable_body_is_looked_up_at_once(
        self, portal: Portal, garbage: str
    ) -> None:
        portal.fail(201, path="communications", body=garbage, act=True)

        receipt = deliver(portal.connector())

        [record] = portal.records.listing()
        assert receipt.reference == record["reference"]

    def test_a_success_that_no_look_up_finds_is_ambiguous(self, portal: Portal) -> None:
        portal.fail(201, path="communications", body="{}")

        with pytest.raises(Ambiguous, match="neither the answer nor the timeline"):
            deliver(portal.connector())

    def test_a_look_up_that_fails_after_a_success_remembers_it(self, portal: Portal) -> None:
        connector = portal.connector()
        portal.fail(201, only=f"POST {COMMUNICATIONS}", body="{}", act=True)
        portal.fail(429, path="/associations/")

        with pytest.raises(Throttled, match="the SMS is in HubSpot") as caught:
            deliver(connector)

        assert caught.value.acted
        deliver(connector, repeat=caught.value.acted)
        assert len(portal.records.listing()) == 1

    def test_another_key_makes_another_entry_of_the_same_event(self, portal: Portal) -> None:
        connector = portal.connector()
        first = deliver(connector)

        second = deliver(connector, key="key-2", thread=first.thread, repeat=True)

        assert second.reference != first.reference

    def test_a_marker_is_found_among_many_entries(self, open_portal: Open) -> None:
        portal = open_portal(associations_a_page=50)
        connector = portal.connector()
        contact = portal.contact(phone=NUMBER)
        made = [deliver(connector, key=f"key-{each}", thread=contact) for each in range(130)]

        for place in (0, 60, 129):
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
