"""Which words does a person look for, and which has a text? Words are compared by meaning.

A word is a run of letters and digits, in any case and without accents: punctuation, symbols and
emoji are between words.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import islice

import re2

from relay.rules import text

#: Characters by which a word is known, and different words of one text that are.
LONGEST_WORD, MOST_WORDS = 40, 2000

# Python's own is ten times as fast where there are many matches.
_WORD = re.compile(r"[^\W_]+")
_MARKS = re2.compile(r"\p{M}+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """The words that a person looks for: all of them, and the beginning of one."""

    whole: tuple[str, ...]
    beginning: str

    @classmethod
    def of(cls, written: str) -> Wording | None:
        """Return what *written* looks for, whose last word may go on; None: it has no word."""
        found = _every(written)[:MOST_WORDS]
        if not found:
            return None
        return cls(whole=tuple(dict.fromkeys(found[:-1])), beginning=found[-1])

    def is_in(self, written: str) -> bool:
        """Return whether a text has all of the words."""
        there = words(written)
        return there.keys() >= set(self.whole) and any(
            word.startswith(self.beginning) for word in there
        )


def words(written: str) -> dict[str, None]:
    """Return the different words of a text, in their order.

    >>> list(words("Überweisung an MÜLLER: $1,200!"))
    ['uberweisung', 'an', 'muller', '1', '200']
    """
    found = dict.fromkeys(_every(written))
    return found if len(found) <= MOST_WORDS else dict.fromkeys(islice(found, MOST_WORDS))


def _every(written: str) -> list[str]:
    return [word[:LONGEST_WORD] for word in _WORD.findall(_folded(written))]


def _folded(written: str) -> str:
    if written.isascii():
        return written.lower()
    apart = unicodedata.normalize("NFD", text.folded(written))
    return unicodedata.normalize("NFC", _MARKS.sub("", apart))
