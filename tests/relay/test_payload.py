"""What the fields of GoFax's events mean, as they are documented and as they may come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from gofax import EXAMPLE
from hypothesis import example, given
from hypothesis import strategies as st
from payloads import ANY_TEXT, AT, DROP, said

from relay.rules.payload import Payload, clean, moment, number, read


class TestTheDocumentedExample:
    def test_every_field_is_read(self) -> None:
        assert said() == Payload(
            message_id="abc123",
            type="SMS_REPLY",
            direction="reply",
            sender="+61400000000",
            recipient="+61700000000",
            body="Thanks for your message",
            occurred_at=AT,
            account_id="12345",
            metadata={"accountId": "12345"},
            fields=EXAMPLE,
        )

    def test_the_event_tells_customer_and_us_apart(self) -> None:
        received = datetime(2026, 11, 24, tzinfo=UTC)

        event = said().event(id="evt_1", endpoint="main", received_at=received)

        assert (event.id, event.endpoint, event.received_at) == ("evt_1", "main", received)
        assert (event.sender, event.recipient) == ("+61400000000", "+61700000000")
        assert (event.customer, event.ours) == ("+61400000000", "+61700000000")
        assert event.conversation == "+61400000000~+61700000000"
        assert (event.message_id, event.type, event.direction) == ("abc123", "SMS_REPLY", "reply")
        assert (event.body, event.keyword) == ("Thanks for your message", None)
        assert (event.occurred_at, event.account_id) == (AT, "12345")
        assert (event.metadata, event.payload) == ({"accountId": "12345"}, EXAMPLE)
        assert event.url is None

    def test_it_is_understood(self) -> None:
        assert said().understood


def test_outbound_the_customer_is_the_recipient() -> None:
    rows = ["outbound", "Outgoing", "OUT", "sent", "send", "status"]

    for direction in rows:
        payload = said(direction=direction)
        assert (payload.customer, payload.ours) == ("+61700000000", "+61400000000"), direction


def test_otherwise_the_customer_is_the_sender() -> None:
    rows = ["reply", "inbound", "sideways", "", DROP, None, 7]

    for direction in rows:
        payload = said(direction=direction)
        assert (payload.customer, payload.ours) == ("+61400000000", "+61700000000"), direction


def test_a_message_id_is_opaque_text() -> None:
    rows = [
        ("abc123", "abc123"),
        (52336014, "52336014"),  # the REST API gives integers
        (0, "0"),
        (-1, "-1"),
        ("  abc ", "abc"),
        ("a\u0000b\u001f", "ab"),  # what no database takes
        ("\ud800", "?"),
        ("x" * 10_000, "x" * 10_000),
        ("日本-é", "日本-é"),
        (DROP, None),  # nothing usable from here on
        (None, None),
        ("", None),
        ("   ", None),
        ("\u0000", None),
        (True, None),  # a bool is an int to Python
        (False, None),
        (1.5, None),
        (float("nan"), None),
        ({"id": 1}, None),
        (["abc"], None),
    ]

    wrong = [
        (value, got)
        for value, message_id in rows
        if (got := said(messageId=value).message_id) != message_id
    ]

    assert wrong == []


def test_an_id_of_20_000_digits_is_kept_whole() -> None:
    digits = "9" * 20_000

    assert read(b'{"messageId": %s}' % digits.encode(), format="json").message_id == digits


def test_an_integer_reads_the_same_on_both_sides_of_pythons_limit() -> None:
    rows = [999, 1000, 1001, 4300, 4301]

    for digits in rows:
        written = "7" * digits
        assert read(b'{"messageId": %s}' % written.encode(), format="json").message_id == written


def test_an_event_type_is_any_text() -> None:
    rows = [
        ("SMS_REPLY", "SMS_REPLY"),
        ("SMS_SOMETHING_NEW", "SMS_SOMETHING_NEW"),  # an open set
        ("sms\u0000", "sms"),
        (DROP, "UNKNOWN"),
        (None, "UNKNOWN"),
        ("", "UNKNOWN"),
        (7, "UNKNOWN"),
        (["SMS_REPLY"], "UNKNOWN"),
    ]

    wrong = [(value, got) for value, type_ in rows if (got := said(eventType=value).type) != type_]

    assert wrong == []


def test_a_body_is_text_or_not_included() -> None:
    rows = [
        ("Hi", "Hi"),
        ("line\r\n\tline", "line\r\n\tline"),
        ("  kept  ", "  kept  "),
        ("👍🏽 日本", "👍🏽 日本"),
        ("a\u0000b\u0007c", "abc"),
        ("half \ud83d emoji", "half ? emoji"),
        (DROP, None),  # Include Message body is off
        (None, None),
        ("", None),
        (5, None),
        ({"text": "Hi"}, None),
    ]

    wrong = [(value, got) for value, body in rows if (got := said(messageBody=value).body) != body]

    assert wrong == []


def test_metadata_is_kept_whole_if_it_is_an_object() -> None:
    rows = [
        ({"accountId": "12345"}, {"accountId": "12345"}, "12345"),
        ({"accountId": 12345}, {"accountId": 12345}, "12345"),
        ({"accountId": None, "x": [1]}, {"accountId": None, "x": [1]}, None),
        ({}, {}, None),
        (DROP, {}, None),
        (None, {}, None),
        ("12345", {}, None),
        ([{"accountId": "1"}], {}, None),
    ]

    for metadata, kept, account in rows:
        payload = said(metadata=metadata)
        assert (payload.metadata, payload.account_id) == (kept, account), metadata


def test_unknown_fields_are_kept() -> None:
    assert said(media=[{"url": "x"}], n=1.5).fields == EXAMPLE | {
        "media": [{"url": "x"}],
        "n": 1.5,
    }


def test_a_number_becomes_e164_or_stays() -> None:
    rows = [
        ("+61400000000", "+61400000000"),  # E.164 stays, valid or not
        ("61412345678", "+61412345678"),  # legacy: without plus
        (61412345678, "+61412345678"),
        ("0412 345 678", "+61412345678"),  # as people write it at home
        ("0061412345678", "+61412345678"),  # with the international prefix
        ("+61 (0)412 345 678", "+61412345678"),
        ("(07) 3123-4567", "+61731234567"),
        ("07.3123.4567", "+61731234567"),
        ("1300 975 707", "+611300975707"),
        ("14155552671", "+14155552671"),
        ("+1 415 555 2671", "+14155552671"),
        ("  +61412345678\n", "+61412345678"),
        ("12345", "12345"),  # a short code is no number
        ("000000", "000000"),
        ("+0 000 000", "+0 000 000"),
        ("+999 123 456 789", "+999 123 456 789"),  # no such country
        ("99999999999999999999", "99999999999999999999"),
        ("Test Sender", "Test Sender"),  # the API's senders can be names
        ("2025-12-04", "2025-12-04"),
        ("٠٤١٢٣٤٥٦٧٨", "+61412345678"),  # digits are digits
        ("\u202a+61\u00a0412\u2011345\u2011678\u202c", "+61412345678"),
        ("Acme\u200b Pty", "Acme\u200b Pty"),  # a name stays as it came
        ("a\u0000b", "ab"),
        ("", None),
        (None, None),
        (True, None),
        (6.1e10, None),
        (["+61400000000"], None),
    ]

    wrong = [(value, got) for value, expected in rows if (got := number(value)) != expected]

    assert wrong == []


@given(st.text() | st.from_regex(r"\A[+(]?[0-9][0-9 ().\-/]{4,30}\Z"))
@example("00 00 61 412 345 678")
def test_a_normalised_number_stays_as_it_is(text: str) -> None:
    once = number(text)

    assert number(once) == once


def test_a_time_is_read_as_utc_or_not_at_all() -> None:
    rows = [
        ("2025-12-04T00:24:07.112733Z", AT),
        ("2025-12-04T00:24:07.1127331Z", AT),  # any precision
        ("2025-12-04T00:24:07Z", AT.replace(microsecond=0)),
        ("2025-12-04T00:24Z", AT.replace(second=0, microsecond=0)),
        ("2025-12-04T00:24:07.112733", AT),  # no zone: UTC, as the REST API's IssuedUtc
        ("2025-12-04 00:24:07.112733", AT),
        ("2025-12-04T10:24:07.112733+10:00", AT),
        ("2025-12-03T19:54:07.112733-0430", AT),
        ("20251204T002407.112733Z", AT),
        (" 2025-12-04T00:24:07.112733Z\n", AT),
        ("0001-01-01T00:00:00+14:00", None),  # before time began
        ("9999-12-31T23:59:59-14:00", None),
        ("2025-13-04T00:00:00Z", None),
        ("2025-12-04T25:00:00Z", None),
        ("yesterday", None),
        ("", None),
        (1764807847, None),  # no unit is documented: guessing would be worse
        (None, None),
        ({}, None),
    ]

    wrong = [(value, got) for value, expected in rows if (got := moment(value)) != expected]

    assert wrong == []


@given(st.datetimes(), st.integers(-14 * 60, 14 * 60))
def test_a_written_time_reads_back_as_the_same_moment(at: datetime, offset: int) -> None:
    here = at.replace(tzinfo=timezone(timedelta(minutes=offset)))
    read_back = moment(here.isoformat())

    assert read_back is None or (read_back == here and read_back.tzinfo is UTC)
    assert read_back is not None or here.year in (1, 9999)


def test_an_event_has_the_keyword_of_its_text() -> None:
    for body, keyword in (("Stop!", "STOP"), ("please stop", None), (None, None)):
        payload = said(messageBody=body)

        assert payload.keyword == keyword
        assert payload.event(id="e", endpoint="n", received_at=AT).keyword == keyword


@given(ANY_TEXT)
@example("\0\ud800\udfff")
@example("tab\tline\r\n")
def test_cleaned_text_is_encodable_free_of_nul_and_stays_clean(text: str) -> None:
    cleaned = clean(text)

    assert cleaned.encode().decode() == cleaned
    assert not set(cleaned) & {chr(c) for c in range(32) if chr(c) not in "\t\n\r"}
    assert clean(cleaned) == cleaned


@given(st.text())
def test_cleaning_leaves_good_text_alone(text: str) -> None:
    if not any(ord(c) < 32 for c in text):
        assert clean(text) == text
