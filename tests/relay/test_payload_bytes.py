"""Which bytes are an event: charsets, JSON, forms, and what only a madman sends."""

from __future__ import annotations

import codecs
import json
from typing import Any
from urllib.parse import quote

import pytest
from gofax import EXAMPLE
from hypothesis import example, given
from hypothesis import strategies as st
from payloads import ANY_TEXT, AT, FIELDS, form, key_of, raw

from relay.rules.payload import (
    DEEPEST,
    STATUS,
    UNREADABLE,
    Format,
    Payload,
    Unreadable,
    key,
    meaning,
    read,
)

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
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

        # Python can hold them or not, depending on its version.
        assert read(body, format="json") == Payload(type=UNREADABLE)
        assert len(key_of(body)) == 32

    @pytest.mark.parametrize(
        ("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")]
    )
    def test_what_is_read_does_not_depend_on_the_version_of_python(
        self, opening: str, closing: str
    ) -> None:
        # The object around them is a level, too.
        times = (DEEPEST - 1) // len(closing)
        deepest, too_deep = (
            f'{{"x": 1, "y": {opening * many}1{closing * many}}}'.encode()
            for many in (times, times + 1)
        )

        assert read(deepest, format="json").type == "UNKNOWN"
        assert read(too_deep, format="json").type == UNREADABLE

    def test_many_brackets_are_not_deep(self) -> None:
        body = json.dumps({"messageId": "a", "messageBody": "[{" * 600, "x": [{"y": []}] * 600})

        assert read(body.encode(), format="json").message_id == "a"

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
