"""What people write is compared by meaning: what they type, and what their phones make of it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import re2
from hypothesis import example, given
from hypothesis import strategies as st

from relay.rules.text import SYNONYMS, e164, folded, keyword_of, plain, plain_pattern

DOCS = Path(__file__).parents[2] / "docs"
#: Signs that a phone or a person puts around or into a word.
NOISE = [
    "\u200b", "\u200d", "\u202a", "\u202e", "\u2060", "\ufeff", "\u00ad", "\ufe0f", "\u034f",
    "\u3164", "\U000e0041", ".", "!", "?", "#", "_", "*", "-", "\u2011", "\u2014", "'", "\u2019",
    '"', "\u201c", "\u00ab", "(", "\uff01", "\u3002", "$", "\u20ac",
    "\U0001f64f\U0001f3fd", "\u0332",
]  # fmt: skip


def test_a_synonym_is_its_keyword_however_it_is_written() -> None:
    for meaning, synonyms in SYNONYMS.items():
        for word in synonyms:
            wide = "".join(chr(ord(each) + 0xFEE0) if each.isalpha() else each for each in word)
            for written in (
                word,
                word.lower(),
                word.title(),
                f" {word}\r\n",
                wide,
                "  ".join(word.split()),
            ):
                assert keyword_of(written) == meaning, written
            for sign in NOISE:
                inside = word[:1] + sign + word[1:]
                for written in (sign + word, word + sign, f"{sign} {word} {sign}", inside):
                    assert keyword_of(written) == meaning, ascii(written)


def test_a_keyword_is_the_whole_text() -> None:
    rows = [
        ("opt\u2011out", "STOP"),
        ("OPT_OUT", "STOP"),
        ("opt\u00a0out", "STOP"),
        ("\u24c8\u24e3\u24de\u24df", "STOP"),  # in circles
        ("S.T.O.P.", "STOP"),
        ("\u2068Unstop\u2069", "START"),
        ("please stop", None),  # a sentence is not a keyword
        ("stopping", None),
        ("s t o p", None),
        ("yes", None),  # an answer far more often than an opt-in
        ("\U0001f6d1", None),
        ("...", None),
        ("\u200b", None),
        ("", None),
        ("stop" + "\u200b" * 60_000, None),
    ]

    wrong = [(ascii(text), got) for text, keyword in rows if (got := keyword_of(text)) != keyword]

    assert wrong == []


def test_the_page_lists_every_synonym() -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")

    for meaning, synonyms in SYNONYMS.items():
        [row] = re.findall(rf"^\| `{meaning}` \| (.*) \|$", page, re.MULTILINE)
        assert set(row.split(", ")) == set(synonyms)


def test_a_number_is_its_digits() -> None:
    rows = [
        "+61412345678",
        "0412 345 678",
        "0412\u00a0345\u00a0678",  # no-break spaces
        "0412\u2009345\u202f678",  # thin ones
        "0412\u2011345\u2011678",  # no-break hyphens
        "0412\u2013345\u2212678",  # a dash, and a minus
        "\u200b0412345678\u200b",  # nothing to be seen
        "\u202a+61 412 345 678\u202c",  # as contacts are copied from a phone
        "\ufeff+61412345678",
        "\uff0b\uff16\uff11\uff14\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18",  # full-width
        "\u0660\u0664\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668",  # Arabic digits
        "0011 61 412 345 678",  # as Australians call abroad
        "001161412345678",
        "0061 412 345 678",  # as others do
        "+61 (0)412 345 678",
        "61412345678",
    ]

    assert {text: e164(text) for text in rows} == dict.fromkeys(rows, "+61412345678")
    assert e164("0011 1 415 555 2671") == "+14155552671"


def test_what_is_no_number_is_none() -> None:
    rows = ["", "Acme", "12345", "0011", "00", "+", "00 00 61 412 345 678", "2025-12-04", "\u200b"]

    assert [text for text in rows if e164(text) is not None] == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(?i)refund", "RE\u200bFUND"),
        ("^order [0-9]+$", "order\u00a0\uff14\uff17"),
        ("caf\u00e9", "cafe\u0301"),
        ("cafe\u0301", "caf\u00e9"),
        ("[\u00e0-\u00ff]", "u\u0308"),
        ("\u2026$", "soon\u2026"),  # an ellipsis is three full stops to both
        ("^soon\\.\\.\\.$", "soon\u2026"),
        ("\u2460", "1"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
    ],
)
def test_a_pattern_finds_what_means_the_same(pattern: str, text: str) -> None:
    assert re2.search(plain_pattern(pattern), plain(text))


def test_a_pattern_of_letters_stays_one_of_letters() -> None:
    assert not re2.search(plain_pattern("\u2026"), "abc")
    assert plain_pattern("^(?i)a.b$") == "^(?i)a.b$"


def test_punctuation_case_and_spaces_of_a_text_are_kept() -> None:
    assert plain("Wait \u2013 what?!\r\n  (Yes)") == "Wait \u2013 what?!\r\n  (Yes)"


def test_names_are_the_same_in_any_case_and_width() -> None:
    assert folded(" \uff21cme\u200b\u00a0 PTY\n") == folded("acme pty") == "acme pty"
    assert folded("STRASSE") == folded("Stra\u00dfe")
    assert folded("Acme.") != folded("Acme")


@given(st.text())
@example("\uffa0")  # a filler that becomes another one
@example("\u0345\u0399")
def test_what_is_plain_or_folded_stays_so(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert folded(folded(text)) == folded(text)


@given(st.text())
def test_a_number_that_was_written_stays_as_it_is(text: str) -> None:
    number = e164(text)

    assert number is None or e164(number) == number


def test_no_text_keeps_the_receiver_busy() -> None:
    texts = [
        "a" + "\u0323\u0301" * 30_000,  # marks that have to be sorted
        ("\u0301" * 31 + "a") * 2_000,
        "a\u200b" * 30_000,
        "\ufdfa" * 20_000,  # becomes 18 letters
        "".join(map(chr, range(0x4E00, 0x9E00))),
    ]

    started = time.monotonic()
    for text in texts:
        folded(text)
        keyword_of(text)

    assert time.monotonic() - started < 5
