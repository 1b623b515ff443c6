"""How the stand-in of Zendesk searches for users: words, ``role:`` and ``phone:``.

After the vendor's guide "Retrieving the Zendesk user id of a caller" (November 2026): a number is
sought by its digits alone, and ``phone:*5135557611`` finds "+1 513.555.7611" and
"(513) 555-7611" alike. Without the star the digits must stand there in one piece. How the live
index treats a plus is not documented; here a number with one finds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from connectors.sandbox.zendesk_rules import Json


def finds(query: str, user: Json, *, phones: Sequence[str]) -> bool:
    """Say whether *query* finds *user*, who has the numbers *phones*: every term must fit."""
    terms = query.casefold().split()
    return bool(terms) and all(_fits(term, user, phones) for term in terms)


def _fits(term: str, user: Json, phones: Sequence[str]) -> bool:
    key, colon, sought = term.partition(":")
    if not colon:
        return any(term in str(user[name] or "").casefold() for name in ("name", "email"))
    fits: dict[str, Callable[[], bool]] = {
        "role": lambda: user["role"] == sought,
        "type": lambda: sought == "user",
        "phone": lambda: any(_is_number(sought, phone) for phone in phones),
    }
    return key in fits and fits[key]()


def _is_number(sought: str, phone: str) -> bool:
    if sought.startswith("*"):
        return sought[1:].isdecimal() and re.sub(r"\D", "", phone).endswith(sought[1:])
    return sought in re.split(r"\D+", phone)
