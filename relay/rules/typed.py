"""What may a person mean who types this into the one search box?

A short number may be a ticket and the end of a customer's number: all that it may be is said, and
the store tells what there is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relay.rules import text
from relay.rules.payload import clean
from relay.rules.wording import Wording

#: Digits of a number's end that say enough.
FEWEST_DIGITS = 4
#: Characters of what is looked at: nobody types more to find something.
LONGEST = 1000
#: Characters of a reference by which it is found.
LONGEST_REFERENCE = 60

_ID = re.compile(r"(?:evt|dlv|req)_[0-9a-f]{1,24}", re.IGNORECASE)
_TICKET = re.compile(r"(?:ticket\s*)?#?\s*([0-9]{1,20})", re.IGNORECASE)
_NUMBER = re.compile(r"[+(]?[0-9][0-9 ().\-/]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Typed:
    """What a text may mean, by what it looks like."""

    #: As it was typed, without blanks around it: a messageId may be anything.
    name: str
    #: An id of an event, a delivery or a request, or the beginning of one.
    id: str | None = None
    #: A customer's number from its end or a name, as :func:`relay.rules.text.ending` writes them.
    endings: tuple[str, ...] = ()
    #: How a connector may call the ticket or record.
    references: tuple[str, ...] = ()
    #: Words of a text.
    wording: Wording | None = None


def read(typed: str) -> Typed | None:
    """Return what *typed* may mean; None if it says nothing.

    >>> read("#1013").references, read("#1013").endings
    (('ticket 1013', '1013'), ())
    >>> read("0400 000 123").endings
    ('321000000416',)
    """
    name = clean(typed[:LONGEST]).strip()
    if not name:
        return None
    if _ID.fullmatch(name):
        return Typed(name=name, id=name.lower(), references=(name,))
    return Typed(
        name=name,
        endings=tuple(_endings(name)),
        references=tuple(_references(text.plain(name))),
        wording=Wording.of(name),
    )


def _endings(name: str) -> list[str]:
    if any(map(str.isalpha, text.plain(name))):
        return [text.ending(name)]
    ending = text.ending(name)
    if len(ending) < FEWEST_DIGITS or not _NUMBER.fullmatch(text.plain(name)):
        return []
    # The zero in front of a number at home is not in the number as the world writes it.
    abroad = ending.rstrip("0")
    if text.e164(name) is None and ending.endswith("0") and len(abroad) >= FEWEST_DIGITS:
        return [ending, abroad]
    return [ending]


def _references(name: str) -> list[str]:
    if ticket := _TICKET.fullmatch(name):
        return [f"ticket {ticket[1]}", ticket[1]]
    is_one_word = not any(map(str.isspace, name)) and any(map(str.isdigit, name))
    return [name] if is_one_word and len(name) <= LONGEST_REFERENCE else []
