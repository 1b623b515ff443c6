"""What a text in the search box may mean."""

from __future__ import annotations

import pytest

from relay.rules.typed import FEWEST_DIGITS, LONGEST, read
from relay.rules.wording import Wording


@pytest.mark.parametrize(
    ("text", "endings", "references"),
    [
        # A short number is a ticket, and the end of a customer's number.
        ("1013", ("3101",), ("ticket 1013", "1013")),
        # With its sign it is a ticket alone.
        ("#1013", (), ("ticket 1013", "1013")),
        (" Ticket #1013 ", ("ticket #1013",), ("ticket 1013", "1013")),
        # Too many numbers end so.
        ("101", (), ("ticket 101", "101")),
        # The same number in several forms.
        ("+61 412 345 678", ("87654321416",), ()),
        ("0412 345 678", ("87654321416",), ()),
        ("(0412) 345-678", ("87654321416",), ()),
        ("\u202a+61412345678\u202c", ("87654321416",), ("+61412345678",)),
        ("61412345678", ("87654321416",), ("ticket 61412345678", "61412345678")),
        # Its last digits, with blanks.
        ("345 678", ("876543",), ()),
        # A number at home that is none the world knows: with its zero, and without.
        ("0123 4567", ("76543210", "7654321"), ()),
        # Times and dates end no number.
        ("10:30", (), ("10:30",)),
        ("Acme", ("acme",), ()),
        ("SMS-1013", ("sms-1013",), ("SMS-1013",)),
        ("!?", (), ()),
    ],
)  # fmt: skip
def test_a_text_may_mean_a_customer_and_a_ticket(
    text: str, endings: tuple[str, ...], references: tuple[str, ...]
) -> None:
    meant = read(text)

    assert meant is not None
    assert (meant.endings, meant.references) == (endings, references)
    assert meant.id is None


@pytest.mark.parametrize(
    "text", ["evt_0193a1", "DLV_0193A1B2C3D4", "req_0193a1b2c3d4e5f6a7b8c9d0"]
)
def test_ids_and_their_beginnings_are_known_by_their_looks(text: str) -> None:
    meant = read(f" {text}\n")

    assert meant is not None
    assert meant.id == text.lower()
    assert meant.endings == ()


def test_whatever_else_is_typed_is_words() -> None:
    meant = read("  where is my Parcel?")

    assert meant is not None
    assert meant.wording == Wording.of("where is my parcel")
    assert (meant.name, meant.references) == ("where is my Parcel?", ())


@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_means_nothing(text: str) -> None:
    assert read(text) is None


def test_a_novel_is_cut() -> None:
    meant = read("7" * 100_000)

    assert meant is not None
    assert len(meant.name) == LONGEST
    assert all(len(each) >= FEWEST_DIGITS for each in meant.endings)
