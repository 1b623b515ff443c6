"""Words that a person looks for in texts: compared by meaning, whatever is typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.rules.wording import LONGEST_WORD, MOST_WORDS, Wording, words


@pytest.mark.parametrize(
    ("typed", "written", "found"),
    [
        ("hello", "Hello, world!", True),
        ("WORLD hello", "Hello, world!", True),  # in any order
        ("hello wor", "Hello, world!", True),  # the last word may go on
        ("hel world", "Hello, world!", False),  # the others may not
        ("orld", "Hello, world!", False),  # nor may one begin inside
        ("hello moon", "Hello, world!", False),  # all of them
        ("muller", "Grüße an Müller", True),  # without accents, and with them
        ("GRÜSSE MÜLLER", "Grusse an Muller", True),
        ("Ｔｕｅｓｄａｙ", "see you on tuesday", True),  # full-width letters
        ("tues\u00adday", "Tuesday", True),  # an invisible hyphen
        ("don't", "I don't", True),
        ('"see you" -later OR * NEAR(', "or near: see you later", True),  # no operators
        ("1,200", "$1,200.50", True),
        ("привет", "ПРИВЕТ!", True),
        ("stop stop", "stop", True),
        ("than thanks than", "thanks than", True),
        ("x" * 1000, "x" * 1000, True),
        ("x" * (LONGEST_WORD + 1), "x" * LONGEST_WORD, True),
        (" ".join(f"w{n}" for n in range(1000)), " ".join(f"w{n}" for n in range(1000)), True),
    ],
)
def test_what_is_typed_finds_what_it_means(typed: str, written: str, found: bool) -> None:
    wording = Wording.of(typed)

    assert wording is not None
    assert wording.is_in(written) is found


@pytest.mark.parametrize("typed", ["", " ", "🙂 👍", "\x00\x1b\n", '"*" -+ ()', "\u200b\u0301"])
def test_what_has_no_word_looks_for_nothing(typed: str) -> None:
    assert Wording.of(typed) is None


def test_a_text_is_known_by_a_bounded_number_of_words() -> None:
    assert len(words(" ".join(map(str, range(MOST_WORDS * 2))))) == MOST_WORDS


@given(st.text())
def test_every_text_is_found_by_its_own_words(written: str) -> None:
    wording = Wording.of(written)

    assert wording is None or wording.is_in(written)
