"""What GoFax is documented to send, what it may send, and what only a madman sends."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.rules.payload import (
    STATUS,
    UNREADABLE,
    DedupeField,
    Format,
    Payload,
    Unreadable,
    clean,
    key,
    meaning,
    moment,
    number,
    read,
)

#: The example of GoFax's help page, as it stands there.
EXAMPLE: dict[str, Any] = {
    "eventType": "SMS_REPLY",
    "eventTimestamp": "2025-12-04T00:24:07.112733Z",
    "messageId": "abc123",
    "direction": "reply",
    "from": "+61400000000",
    "to": "+61700000000",
    "messageBody": "Thanks for your message",
    "metadata": {"accountId": "12345"},
    "signature": "HMAC_SHA256",
}
AT = datetime(2025, 12, 4, 0, 24, 7, 112733, tzinfo=UTC)
DROP = object()
#: Text as it may stand in a JSON string, lone surrogates and NUL included.
ANY_TEXT = st.text(st.characters(codec=None))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("messageId", "eventType", "eventTimestamp", "direction", "from", "to", "messageBody")


def raw(**changes: object) -> bytes:
    """Write the example with *changes*; ``from_`` stands for ``from``."""
    fields = EXAMPLE | {name.rstrip("_"): value for name, value in changes.items()}
    return json.dumps({k: v for k, v in fields.items() if v is not DROP}).encode()


def said(**changes: object) -> Payload:
    return read(raw(**changes), format="json")


def form(query: str = "", **fields: str) -> Payload:
    return read(urlencode(fields).encode(), format="form", query=query)


def key_of(
    body: bytes,
    *,
    format: Format = "json",
    endpoint: str = "/hook",
    dedupe_by: Sequence[DedupeField] = ("messageId",),
    query: str = "",
) -> bytes:
    payload = read(body, format=format, query=query)
    return key(payload, body, endpoint=endpoint, dedupe_by=dedupe_by, query=query)


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


#: A text, its bytes, and the charset that says what they are.
CHARSETS = [
    ("Grüße für 5 €", "windows-1252"),
    ("Grüße für 5 €", "cp1252"),
    ("Grüße", "iso-8859-1"),
    ("Grüße", "latin-1"),
    ("5 €", "iso-8859-15"),
    ("Привет", "windows-1251"),
]
#: Charsets that say nothing about bytes, or that nobody should obey.
NO_CHARSETS = [None, "", "no-such", "rot13", "hex", "zip", "idna", "utf-7", "unicode_escape"]


class TestCharset:
    """A charset counts where the bytes are not what the standard says."""

    @pytest.mark.parametrize(("text", "charset"), CHARSETS)
    def test_json_is_read_in_the_charset_that_it_states(self, text: str, charset: str) -> None:
        body = json.dumps(EXAMPLE | {"messageBody": text}, ensure_ascii=False).encode(charset)

        assert read(body, format="json", charset=charset).body == text

    @pytest.mark.parametrize(("text", "charset"), CHARSETS)
    @pytest.mark.parametrize("escaped", [False, True])
    def test_a_form_is_read_in_the_charset_that_it_states(
        self, text: str, charset: str, escaped: bool
    ) -> None:
        said = text.encode(charset)
        value = quote(said).encode() if escaped else said.replace(b" ", b"+")

        assert read(b"ID=1&Message=" + value, format="form", charset=charset).body == text

    @pytest.mark.parametrize("charset", [charset for _, charset in CHARSETS])
    def test_what_is_utf_8_stays_that_whatever_is_stated(self, charset: str) -> None:
        sent = json.dumps(EXAMPLE | {"messageBody": "Grüße 😀"}, ensure_ascii=False).encode()
        form_sent = b"ID=1&Message=" + quote("Grüße 😀").encode()

        assert read(sent, format="json", charset=charset).body == "Grüße 😀"
        assert read(form_sent, format="form", charset=charset).body == "Grüße 😀"

    @pytest.mark.parametrize("charset", NO_CHARSETS)
    def test_what_is_no_charset_changes_nothing(self, charset: str | None) -> None:
        sent = b'{"messageId": "a", "messageBody": "Gr\xfc\xdfe"}'

        assert read(sent, format="json", charset=charset).body == "Gr\ufffd\ufffde"

    @pytest.mark.parametrize("charset", [None, "utf-8", "windows-1252"])
    def test_a_byte_order_mark_belongs_to_no_field(self, charset: str | None) -> None:
        sent = codecs.BOM_UTF8 + b"ID=1&Message=hi"
        read_form = read(sent, format="form", charset=charset)

        assert (read_form.message_id, read_form.body) == ("1", "hi")
        assert set(read_form.fields) == {"ID", "Message"}

        sent = codecs.BOM_UTF8 + b'{"messageId": "a"}'
        assert read(sent, format="json", charset=charset).message_id == "a"


class TestBytes:
    def test_any_encoding_of_json_is_read(self) -> None:
        rows = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]

        text = json.dumps(EXAMPLE | {"messageBody": "Grüße"}, ensure_ascii=False)

        bodies = {each: read(text.encode(each), format="json").body for each in rows}
        assert set(bodies.values()) == {"Grüße"}, bodies

    def test_bad_utf_8_is_replaced(self) -> None:
        payload = read(b'{"messageId": "a", "messageBody": "\xff\xfe!"}', format="json")

        assert (payload.message_id, payload.body) == ("a", "\ufffd\ufffd!")

    def test_the_last_of_two_equal_keys_counts(self) -> None:
        payload = read(b'{"messageId": "a", "messageId": "b"}', format="json")

        assert payload.message_id == "b"

    def test_nan_and_infinity_do_no_harm(self) -> None:
        payload = read(b'{"messageId": "a", "x": NaN, "y": -Infinity, "z": 1e999}', format="json")

        assert payload.message_id == "a"

    def test_an_empty_object_is_an_event(self) -> None:
        assert read(b" {} ", format="json") == Payload(type="UNKNOWN")

    def test_9_000_nested_objects_are_an_event(self) -> None:
        body = b'{"a":' * 9000 + b"1" + b"}" * 9000

        # Whether Python can hold them depends on its version.
        assert read(body, format="json").type in (UNREADABLE, "UNKNOWN")
        assert len(key_of(body)) == 32

    def test_an_object_too_deep_for_python_is_an_event_that_is_not_understood(self) -> None:
        body = b'\n {"messageId": "a", "metadata": ' + b"[" * 1_000_000

        payload = read(body, format="json")

        assert payload == Payload(type=UNREADABLE)
        assert not payload.understood
        assert payload.event(id="e", endpoint="n", received_at=AT).conversation == "~"
        assert key_of(body) != key_of(body + b" ")

    def test_a_list_too_deep_for_python_is_unreadable(self) -> None:
        with pytest.raises(Unreadable, match="^not a JSON object$"):
            read(b"[" * 1_000_000, format="json")

    def test_what_is_no_object_says_so(self) -> None:
        rows = [
            (b"", "not JSON: Expecting value at character 0"),
            (b"\xef\xbb\xbf", "not JSON: Expecting value at character 0"),
            (b"{", "not JSON: Expecting property name enclosed in double quotes at character 1"),
            (b'{"a": 1} x', "not JSON: Extra data at character 9"),
            (b"a=1&b=2", "not JSON: Expecting value at character 0"),
            (b"[]", "a JSON list, not an object"),
            (b'"text"', "a JSON str, not an object"),
            (b"null", "a JSON NoneType, not an object"),
            (b"12", "a JSON int, not an object"),
        ]

        for body, words in rows:
            with pytest.raises(Unreadable) as caught:
                read(body, format="json")
            assert str(caught.value) == words

    def test_what_is_no_form_says_so(self) -> None:
        rows = [b"", b"hello", b"&&;", b"{}"]

        for body in rows:
            with pytest.raises(Unreadable, match="^no form fields$"):
                read(body, format="form")


class TestForms:
    def test_the_documented_fields_are_read(self) -> None:
        body = b"Recipient=61412345678&ID=41340078&Success=True&Message=Message+sent"

        payload = read(body, format="form")

        assert payload == Payload(
            format="form",
            message_id="41340078",
            type=STATUS,
            recipient="+61412345678",
            body="Message sent",
            fields={
                "Recipient": "61412345678",
                "ID": "41340078",
                "Success": "True",
                "Message": "Message sent",
            },
        )

    def test_the_customer_is_the_recipient_and_there_is_no_number_of_ours(self) -> None:
        event = form(ID="1", Recipient="61412345678").event(id="e", endpoint="n", received_at=AT)

        assert (event.customer, event.ours) == ("+61412345678", None)
        assert event.conversation == "+61412345678~"

    def test_case_of_keys_is_ignored(self) -> None:
        payload = form(iD="1", RECIPIENT="0412345678", message="x")

        assert (payload.message_id, payload.recipient, payload.body) == ("1", "+61412345678", "x")

    def test_unknown_and_empty_fields_are_kept(self) -> None:
        assert form(ID="1", Subject="Email to Fax", Empty="").fields == {
            "ID": "1",
            "Subject": "Email to Fax",
            "Empty": "",
        }

    def test_fields_may_stand_in_the_url(self) -> None:
        payload = read(b"", format="form", query="mine=x&ID=1&Message=Hi%20there")

        assert (payload.message_id, payload.body) == ("1", "Hi there")
        assert payload.fields["mine"] == "x"

    def test_the_body_overrides_the_url(self) -> None:
        assert form("id=1&Message=url", ID="2").message_id == "2"

    def test_a_url_without_fields_adds_none(self) -> None:
        assert form("justatoken", ID="1").fields == {"ID": "1"}

    def test_bad_bytes_are_replaced(self) -> None:
        payload = read(b"ID=1&Message=%ff%00\xfe", format="form")

        assert payload.body == "\ufffd\ufffd"

    def test_an_empty_id_is_none(self) -> None:
        rows = ["", "%20", "%00"]

        for value in rows:
            payload = read(f"ID={value}&Success=True".encode(), format="form")
            assert payload.message_id is None, value


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


def assert_storable(payload: Payload) -> None:
    """Every text that goes into a column has to be encodable, and free of NUL."""
    event = payload.event(id="e", endpoint="n", received_at=AT)
    texts = [
        event.message_id, event.type, event.direction, event.customer, event.ours, event.sender,
        event.recipient, event.body, event.keyword, event.account_id, event.conversation,
    ]  # fmt: skip
    for text in texts:
        assert text is None or (text.encode() is not None and "\0" not in text)


@given(st.binary(), st.sampled_from(["json", "form"]), st.text())
@example(b"\x00\x00\xfe\xff{", "json", "")
@example(b"\xff\xfe{\x00}\x00\x00", "json", "")
@example(b'{"a": -}', "json", "")
@example(b"%", "form", "=%")
def test_any_bytes_are_read_or_unreadable(body: bytes, format: Format, query: str) -> None:
    try:
        payload = read(body, format=format, query=query)
    except Unreadable:
        return
    assert_storable(payload)


@given(st.text(alphabet='{}[]",:\\u0d8eE+-.19 nulltrefase', max_size=60))
def test_anything_like_json_is_read_or_unreadable(text: str) -> None:
    try:
        payload = read(text.encode(), format="json")
    except Unreadable:
        return
    assert_storable(payload)


@given(st.dictionaries(st.sampled_from([*FIELDS, "metadata"]) | ANY_TEXT, ANY_JSON, max_size=9))
def test_any_json_object_becomes_an_event_that_can_be_stored(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()

    payload = read(body, format="json")

    assert_storable(payload)
    assert len(key(payload, body, endpoint="n", dedupe_by=("messageId",), query="")) == 32
    assert meaning(payload) == meaning(read(body, format="json"))


@given(
    st.dictionaries(st.sampled_from([*FIELDS, "metadata"]), ANY_JSON, max_size=9),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16-le", "utf-16", "utf-32-be", "utf-32"]),
)
def test_a_json_object_says_the_same_in_every_encoding(
    fields: dict[str, Any], encoding: str
) -> None:
    text = json.dumps(fields)

    assert repr(read(text.encode(encoding), format="json")) == repr(
        read(text.encode(), format="json")
    )


@given(st.data())
def test_a_json_object_with_holes_is_read_or_unreadable(data: st.DataObject) -> None:
    body = bytearray(raw(metadata={"accountId": 10**30, "more": [1.5, None, "\ud83d"]}))
    places = st.tuples(st.integers(0, len(body) - 1), st.integers(0, 255))
    for place, byte in data.draw(st.lists(places, min_size=1, max_size=4)):
        body[place] = byte
    try:
        payload = read(bytes(body), format="json")
    except Unreadable:
        return
    assert_storable(payload)


@pytest.mark.parametrize("inside", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("depth", [10, 900, 20_000])
def test_a_json_object_may_be_as_deep_as_it_likes(inside: str, depth: int) -> None:
    ends = {"[": "]", "{": "}"}
    close = "".join(ends[sign] for sign in reversed(inside) if sign in ends)
    body = f'{{"messageId": "1", "metadata": {inside * depth}1{close * depth}}}'.encode()

    payload = read(body, format="json")

    assert_storable(payload)
    assert payload.type in (UNREADABLE, "UNKNOWN")


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
