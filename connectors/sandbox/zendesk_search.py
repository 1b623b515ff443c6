"""How the stand-in of Zendesk searches for users: words, ``role:`` and ``phone:``.

After the vendor's guide "Retrieving the Zendesk user id of a caller" (November 2026): a number is
sought by its digits alone, and ``phone:*5135557611`` finds "+1 513.555.7611" and
"(513) 555-7611" alike. Without the star the digits must stand there in one piece. How the live
index treats a plus is not documented; here a number with one finds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from connectors.sandbox.zendesk_rules import Json

#: Says whether a user, who has these numbers, is meant.
Fits = Callable[[Json, Sequence[str]], bool]


def search(query: str) -> Fits:
    """Return what says whether *query* finds a user: every term must fit."""
    terms = [_term(each) for each in query.casefold().split()]
    return lambda user, phones: bool(terms) and all(fits(user, phones) for fits in terms)


def _term(term: str) -> Fits:
    key, colon, sought = term.partition(":")
    if not colon:
        names = ("name", "email")
        return lambda user, _: any(term in str(user[name] or "").casefold() for name in names)
    fits: dict[str, Fits] = {
        "role": lambda user, _: user["role"] == sought,
        "type": lambda *_: sought == "user",
        "phone": lambda _, phones: any(_is_number(sought, phone) for phone in phones),
    }
    return fits.get(key, lambda *_: False)


def _is_number(sought: str, phone: str) -> bool:
    pieces = _pieces(phone)
    if sought.startswith("*"):
        return sought[1:].isdecimal() and "".join(pieces).endswith(sought[1:])
    return sought in pieces


# Each search looks at all numbers.
@lru_cache(maxsize=100_000)
def _pieces(phone: str) -> tuple[str, ...]:
    """Return the digits of *phone*, as they stand together."""
    return tuple(re.split(r"\D+", phone))
