"""What counts as the same in what people write? Texts, names, keywords and numbers, by meaning.

People and their phones add what nobody means: other spaces and dashes, full-width letters,
invisible characters, marks of direction. Comparisons leave it out:

==========  =====================================================================
plain       NFKC, without invisible characters; what ``body:`` patterns are held to
folded      plain, in any case, with single spaces; names, event types, directions
keyword_of  folded, without punctuation, symbols and marks
e164        a phone number by its digits, in any script
ending      a customer by the last digits of the number
==========  =====================================================================

Ids, dedupe keys, secrets and signed bytes are compared as they came, and texts are stored as they
came.
"""

from __future__ import annotations

import re
import string
import unicodedata
from importlib import import_module
from typing import Any, Literal, get_args

import re2

Keyword = Literal["STOP", "START", "HELP"]

#: Words by which customers opt out, opt in and ask for help: the CTIA's five for STOP, the FCC's
#: seven (47 CFR 64.1200(a)(10)), and those that Twilio and HubSpot add. Carriers also take YES for
#: START; here it is far more often the answer to a question.
SYNONYMS: dict[Keyword, tuple[str, ...]] = {
    "STOP": (
        "STOP", "STOPALL", "STOP ALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE",
        "OPTOUT", "OPT OUT", "OPT-OUT",
    ),
    "START": ("START", "UNSTOP", "OPTIN", "OPT IN", "OPT-IN"),
    "HELP": ("HELP", "INFO"),
}  # fmt: skip

#: A longer text is not a keyword, however much of it is invisible.
LONGEST_KEYWORD = 2000

#: Characters of a name or number by which a customer is found; a database indexes no page of text.
LONGEST_ENDING = 100
#: Digits of a number's end by which customers are listed: fewer fit too many.
FEWEST_DIGITS = 3

# Unicode's default-ignorable code points that are not format characters: joiners, fillers and
# variation selectors.
_IGNORABLE = frozenset(
    chr(number)
    for first, last in (
        (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2065, 0x2065),
        (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF),
    )
    for number in range(first, last + 1)
)  # fmt: skip
# Unicode's normal forms sort marks in time that grows with the square of their number: 60,000 of
# them would keep the receiver busy for 15 s. No script has more than 30 on one letter (UAX 15).
# A pattern that counts to 30 takes 1.7 MiB; four in a row are as rare.
_MANY_MARKS, _MOST_MARKS = re2.compile(r"\p{M}{4,}"), 30
_NO_WORDS = re2.compile(r"[\p{P}\p{S}\p{M}]+")
#: The same of ASCII: a call of RE2 takes longer than most texts need.
_NO_ASCII_WORDS = str.maketrans("", "", string.punctuation)
_DASHES = re2.compile(r"[\p{Pd}\x{2212}]")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_PHONE_SHAPE = re.compile(r"[+(]?[0-9][0-9 ().\-/]{4,30}")
#: A number as people and programs write it in a sentence: with a plus, with a nought, or as a
#: run of digits that is no part of an id, an address or a time.
_NUMBER_IN_TEXT = re.compile(
    r"(?:\+|%2[Bb])[1-9](?:[ ().-]{0,2}[0-9]){6,14}"
    r"|(?<![\w.:/-])\(?0[0-9](?:[ ()-]{0,2}[0-9]){7,13}(?![\w-])"
    r"|(?<![\w.:/-])[1-9][0-9]{9,14}(?![\w-])"
)
_NO_DIGITS = re.compile(r"[^0-9]")


def plain(text: str) -> str:
    """Return *text* in NFKC and without invisible characters."""
    if text.isascii():
        return text
    bounded = _MANY_MARKS.sub(lambda run: run[0][:_MOST_MARKS], _visible(text))
    return _visible(unicodedata.normalize("NFKC", bounded))


def plain_pattern(pattern: str) -> str:
    """Return the regular expression that finds in plain texts what *pattern* finds in any."""
    if pattern.isascii():
        return pattern
    composed = unicodedata.normalize("NFC", _visible(pattern))
    # What becomes a sign of the syntax was none: an ellipsis is three full stops.
    return "".join(each if each.isascii() else re2.escape(plain(each)) for each in composed)


def folded(text: str) -> str:
    """Return *text* as names are compared: plain, in one case, with single spaces."""
    lower = plain(text).casefold()
    if not lower.isascii():
        lower = unicodedata.normalize("NFKC", lower)
    return " ".join(lower.split())


def keyword_of(text: str) -> Keyword | None:
    """Return the keyword that is the whole of *text*, if it is one."""
    return None if len(text) > LONGEST_KEYWORD else _KEYWORDS.get(_words(text))


def e164(text: str) -> str | None:
    """Write a phone number as E.164; None if *text* is not one.

    >>> e164("61412345678"), e164("0412 345 678"), e164("0011 61 412 345 678"), e164("Acme")
    ('+61412345678', '+61412345678', '+61412345678', None)
    """
    written = text
    if not written.isascii():
        written = _DASHES.sub("-", _in_ascii_digits(plain(text)))
    written = written.strip()
    if _E164.fullmatch(written):
        return written
    if not _PHONE_SHAPE.fullmatch(written):
        return None
    digits = _NO_DIGITS.sub("", written)
    if written.startswith("+"):
        return _possible("+" + digits)
    if digits.startswith("0011"):
        return _possible("+" + digits.removeprefix("0011"))
    if digits.startswith("00"):
        return _possible("+" + digits.removeprefix("00"))
    return _valid("+" + digits) or _valid(digits)


def masked(customer: str) -> str:
    """Write a customer's number so that only who knows it recognises it.

    >>> masked("+61412345678"), masked("ACME")
    ('…678', '…')
    """
    return f"…{customer[-3:]}" if _E164.fullmatch(customer) else "…"


def without_numbers(text: str) -> str:
    """Return *text* with what looks like phone numbers masked; ids, dates and addresses stay.

    >>> without_numbers("no contact has +61 412 345 678 (GET /contacts/20412345678)")
    'no contact has …678 (GET /contacts/20412345678)'
    """
    return _NUMBER_IN_TEXT.sub(lambda found: f"…{found[0][-3:]}", text)


def ending(text: str) -> str:
    """Return how customers are found by their last digits: a number backwards, a name folded.

    >>> ending("+61412345678"), ending("345 678"), ending("Acme")
    ('87654321416', '876543', 'acme')
    """
    written = plain(e164(text) or text)
    if any(map(str.isalpha, written)):
        return folded(written)[:LONGEST_ENDING]
    digits = _NO_DIGITS.sub("", _in_ascii_digits(written))
    return digits[::-1][:LONGEST_ENDING]


def _visible(text: str) -> str:
    return "".join(filter(_is_visible, text))


def _is_visible(character: str) -> bool:
    return character not in _IGNORABLE and unicodedata.category(character) != "Cf"


def _words(text: str) -> str:
    words = folded(text)
    if words.isascii():
        return " ".join(words.translate(_NO_ASCII_WORDS).split())
    return " ".join(_NO_WORDS.sub("", words).split())


_KEYWORDS: dict[str, Keyword] = {
    _words(synonym): each for each in get_args(Keyword) for synonym in SYNONYMS[each]
}


def _in_ascii_digits(text: str) -> str:
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(each, each)) for each in text)


def _possible(digits: str) -> str | None:
    written: str | None = phones().formatted(digits, valid=False)
    return written


def _valid(digits: str) -> str | None:
    written: str | None = phones().formatted(digits, valid=True)
    return written


def phones() -> Any:
    """Return :mod:`relay.rules.phones`, without which most commands can do.

    What serves has imported it before.
    """
    return import_module("relay.rules.phones")
