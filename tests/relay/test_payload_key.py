"""Which requests are one event, and which of those contradict each other."""

from __future__ import annotations

import hashlib
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from payloads import DROP, key_of, raw, said

from relay.rules.payload import STATUS, DedupeField, Payload, key, meaning


class TestKey:
    def test_it_does_not_change_over_releases(self) -> None:
        # Keys are kept for ever: another digest would deliver every resend once more.
        by_id = hashlib.sha256(b'["/hook", "messageId=abc123"]')

        assert key_of(raw()) == by_id.digest()

    def test_a_resend_has_the_same_key(self) -> None:
        rows = [
            {"eventTimestamp": "2026-01-01T00:00:00Z"},
            {"signature": "other"},
            {"messageBody": DROP},
            {"direction": "inbound"},
            {"from_": "+61411111111"},
            {"messageId": " abc123 "},
        ]

        assert [changes for changes in rows if key_of(raw(**changes)) != key_of(raw())] == []

    def test_an_integer_and_its_text_are_one_id(self) -> None:
        assert key_of(raw(messageId=7)) == key_of(raw(messageId="7"))

    @pytest.mark.parametrize(
        ("field", "changes"),
        [
            ("eventType", {"eventType": "SMS_RECEIVED"}),
            ("direction", {"direction": "inbound"}),
            ("from", {"from_": "+61411111111"}),
            ("to", {"to": "+61711111111"}),
        ],
    )
    def test_dedupe_by_widens_it(self, field: DedupeField, changes: dict[str, object]) -> None:
        wide: tuple[DedupeField, ...] = ("messageId", field)

        assert key_of(raw(**changes)) == key_of(raw())
        assert key_of(raw(**changes), dedupe_by=wide) != key_of(raw(), dedupe_by=wide)
        assert key_of(raw(), dedupe_by=wide) == key_of(raw(messageBody="x"), dedupe_by=wide)

    def test_without_an_id_the_bytes_are_the_key(self) -> None:
        rows = [DROP, None, "", {}, True, 1.5]

        for unusable in rows:
            body = raw(messageId=unusable)
            assert key_of(body) == key_of(body)
            assert len({key_of(body), key_of(body + b" "), key_of(body, endpoint="/other")}) == 3

    def test_without_an_id_the_query_counts_too(self) -> None:
        one, other = (
            key_of(b"", format="form", query=query) for query in ("Success=1", "Success=2")
        )

        assert one != other

    def test_a_status_is_known_by_four_fields(self) -> None:
        rows = [
            {"ID": "2"},
            {"Recipient": "61412345679"},
            {"Success": "False"},
            {"Message": "Failed"},
        ]

        status = {"ID": "1", "Recipient": "61412345678", "Success": "True", "Message": "Sent"}

        bodies = [urlencode(status | changed).encode() for changed in [{}, *rows]]
        assert len({key_of(body, format="form") for body in bodies}) == len(bodies)

    def test_a_status_in_another_spelling_has_the_same_key(self) -> None:
        rows = [
            b"id=1&RECIPIENT=%2B61412345678&success=True&message=Sent&Extra=1",
            b"Message=Sent&Success=True&Recipient=0412345678&ID=1",
        ]

        one = b"ID=1&Recipient=61412345678&Success=True&Message=Sent"

        assert len({key_of(each, format="form") for each in [one, *rows]}) == 1

    def test_a_status_may_lack_every_other_field(self) -> None:
        bare = key_of(b"ID=1", format="form")

        assert bare == key_of(b"ID=1&Success=&Message=", format="form")
        assert bare != key_of(b"ID=1", format="form", endpoint="/other")

    @given(
        st.tuples(st.text(min_size=1), st.text(min_size=1)),
        st.tuples(st.text(min_size=1), st.text(min_size=1)),
    )
    @example(("/a", "b"), ('/a", "messageId=b', "x"))
    @example(("/a", 'b", "c'), ("/a", "b"))
    def test_different_endpoints_or_ids_never_collide(
        self, one: tuple[str, str], other: tuple[str, str]
    ) -> None:
        keys = [
            key(
                Payload(type="T", message_id=message_id),
                b"",
                endpoint=endpoint,
                dedupe_by=("messageId",),
                query="",
            )
            for endpoint, message_id in (one, other)
        ]

        assert (keys[0] == keys[1]) is (one == other)

    @given(
        st.lists(st.text(), min_size=4, max_size=4), st.lists(st.text(), min_size=4, max_size=4)
    )
    def test_different_fields_never_collide(self, one: list[str], other: list[str]) -> None:
        wide: tuple[DedupeField, ...] = ("messageId", "eventType", "direction", "from", "to")
        keys = [
            key(
                Payload(message_id="1", type=a, direction=b, sender=c, recipient=d),
                b"",
                endpoint="/a",
                dedupe_by=wide,
                query="",
            )
            for a, b, c, d in (one, other)
        ]

        assert (keys[0] == keys[1]) is (one == other)

    def test_bytes_an_id_and_a_status_never_share_a_key(self) -> None:
        status = Payload(format="form", type=STATUS, message_id="1")
        plain = Payload(type="T", message_id="1")
        nameless = Payload(type="T")

        keys = {
            key(each, b"1", endpoint="/a", dedupe_by=("messageId",), query="")
            for each in (status, plain, nameless)
        }

        assert len(keys) == 3

    def test_json_that_calls_itself_a_status_is_known_by_the_fields_of_its_endpoint(self) -> None:
        first, second = (Payload(type=STATUS, message_id="1", sender=s) for s in ("+61", "+62"))

        def of(payload: Payload) -> bytes:
            return key(payload, b"", endpoint="/a", dedupe_by=("messageId", "from"), query="")

        assert of(first) != of(second)


class TestMeaning:
    def test_a_resend_may_renew_what_says_nothing(self) -> None:
        rows = [
            {"eventTimestamp": "2026-01-01T00:00:00Z"},
            {"messageBody": DROP},
            {"messageBody": "other"},  # texts are compared apart: one may be switched off
            {"metadata": {}},
            {"direction": "REPLY"},
            {"from_": "61400000000"},
        ]

        assert [changes for changes in rows if meaning(said(**changes)) != meaning(said())] == []

    def test_another_type_direction_or_number_is_another_meaning(self) -> None:
        rows = [
            {"eventType": "SMS_RECEIVED"},
            {"direction": "inbound"},
            {"direction": DROP},
            {"from_": "+61411111111"},
            {"to": "+61711111111"},
            {"from_": "+61700000000", "to": "+61400000000"},
        ]

        assert [changes for changes in rows if meaning(said(**changes)) == meaning(said())] == []

    def test_it_does_not_change_over_releases(self) -> None:
        assert meaning(said()) == b'["sms_reply", "reply", "+61400000000", "+61700000000"]'
