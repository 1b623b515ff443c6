"""Who may do what in the console and by the API, and when a sign-in is refused. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

#: The shortest password. Length is what counts: NIST SP 800-63B-4, 3.1.1.2, asks for 15
#: characters where a password is the only factor, and for no rules about kinds of characters.
SHORTEST_PASSWORD = 15
LONGEST_PASSWORD = 200
#: Words and rows of keys that whoever guesses here tries first, and how many characters a password
#: must have beside them.
KNOWN_WORDS = ("gofax", "relay", "password", "console")
ROWS = ("01234567890", "abcdefghijklmnopqrstuvwxyz", "qwertyuiop", "asdfghjkl", "zxcvbnm")
FEWEST_OF_ITS_OWN = 8
_STEPS = frozenset(
    pair for row in ROWS for each in (row, row[::-1]) for pair in zip(each, each[1:], strict=False)
)
#: Wrong passwords in a row after which an account is locked, and for how long.
TRIES, LOCKED_FOR = 5, timedelta(minutes=15)
#: For how long an unused session lives, how long any does, and how long a password that was
#: just typed counts for what asks for it again.
IDLE, LONGEST_SESSION, CONFIRMED_FOR = (
    timedelta(hours=8),
    timedelta(days=7),
    timedelta(minutes=10),
)
#: For how long a link to choose a password works.
LINK_LIVES = timedelta(days=3)
#: What the name of a user or a token may be made of, so that it is one word in the audit log, and
#: its length. A pattern that counted to it would take 10 MiB.
NAME, LONGEST_NAME = r"[\w.@+-]+", 100
#: What may be of a customer in a sentence: a number of six digits or more, and what is quoted.
_PERSONAL = re.compile(r"\+?\d(?:[ ()-]?\d){5,}|\".*?\"|'.*?'", re.DOTALL)
#: The last digits of a number that a masked one shows.
SHOWN_DIGITS = 3


class Scope(StrEnum):
    """What somebody is allowed to do."""

    #: See events, requests, destinations, problems and settings.
    READ = "read"
    #: Resend, replay, settle, pause, admit, acknowledge, test.
    OPERATE = "operate"
    #: Users, tokens, the audit log, erase and export.
    ADMIN = "admin"


class Role(StrEnum):
    """How much a user may do in the console."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


#: What each role may do.
SCOPES: Mapping[Role, frozenset[Scope]] = {
    Role.VIEWER: frozenset({Scope.READ}),
    Role.OPERATOR: frozenset({Scope.READ, Scope.OPERATE}),
    Role.ADMIN: frozenset(Scope),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who asks: a person in the console, or the bearer of a token."""

    #: The user's name, or ``token NAME``.
    name: str
    scopes: frozenset[Scope]
    #: The address from which they ask, for the audit log.
    origin: str

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes

    @property
    def only_looks(self) -> bool:
        """Whether numbers and texts are hidden from them, if the config says so."""
        return self.scopes <= {Scope.READ}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tries:
    """Wrong passwords in a row, and until when the account is locked."""

    failures: int = 0
    locked_until: datetime | None = None

    def is_locked(self, now: datetime) -> bool:
        return self.locked_until is not None and now < self.locked_until


def after_failure(tries: Tries, *, now: datetime) -> Tries:
    """Return what one more wrong password makes of *tries*."""
    failures = tries.failures + 1
    locked_until = now + LOCKED_FOR if failures % TRIES == 0 else tries.locked_until
    return Tries(failures=failures, locked_until=locked_until)


def fault_of_password(password: str, *, name: str) -> str:
    """Return why *password* is no good; nothing if it is."""
    if len(password) < SHORTEST_PASSWORD:
        return f"too short: {SHORTEST_PASSWORD} characters or more, such as four or five words"
    if len(password) > LONGEST_PASSWORD:
        return f"too long: at most {LONGEST_PASSWORD} characters"
    if len(set(password)) < 5:
        return "the same few characters again and again"
    # A name of one or two characters is in most sentences.
    has_name = len(name) > 2 and name.casefold() in password.casefold()
    if has_name and len(password) < 2 * SHORTEST_PASSWORD:
        return "it contains your name"
    if _is_repeated(password):
        return "the same again and again"
    if _of_its_own(password) < FEWEST_OF_ITS_OWN:
        return (
            "too easy to guess: little more than rows of keys, or words that everybody tries here"
        )
    return ""


def _is_repeated(password: str) -> bool:
    """Return whether *password* is the same half or less, again and again."""
    lengths = range(1, len(password) // 2 + 1)
    return any(password[length:] == password[:-length] for length in lengths)


def _of_its_own(password: str) -> int:
    """Count the characters that neither belong to a known word nor go on with a row of keys."""
    rest = password.casefold()
    for word in KNOWN_WORDS:
        rest = rest.replace(word, "")
    pairs = zip(rest, rest[1:], strict=False)
    return bool(rest) + sum(a != b and (a, b) not in _STEPS for a, b in pairs)


def masked_number(number: str | None) -> str | None:
    """Return *number* with only its last digits."""
    if number is None:
        return None
    return f"…{number[-SHOWN_DIGITS:]}" if len(number) > SHOWN_DIGITS else "…"


def masked_sentence(text: str) -> str:
    """Return *text* without what may be of a customer: numbers, and what is quoted."""
    return _PERSONAL.sub("…", text)


def scopes_of(names: Collection[str]) -> frozenset[Scope]:
    """Return the scopes *names*; what can act or administer can read. Raises ValueError."""
    return frozenset({Scope.READ, *map(Scope, names)})
