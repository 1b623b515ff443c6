"""Passwords, hashed by argon2id."""

from __future__ import annotations

import threading
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

#: 19 MiB, two passes, one lane: what OWASP's Password Storage Cheat Sheet asks for at least. More
#: would be felt by what else the machine does.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
#: One at a time: each takes that memory.
_turn = threading.Lock()


def hashed(password: str) -> str:
    """Return the hash to keep."""
    with _turn:
        return _hasher.hash(password)


def matches(password: str, kept: str | None) -> bool:
    """Return whether *password* is the one of the hash *kept*; None takes as long, and is not."""
    try:
        with _turn:
            # Made for whoever comes first, so that this tells nothing about the name either.
            nobodys = _nobodys()
            return _hasher.verify(kept or nobodys, password) and kept is not None
    except (VerificationError, InvalidHashError):
        return False


def renewed(password: str, kept: str) -> str | None:
    """Return a new hash if *kept* was made with parameters of another day."""
    return _hasher.hash(password) if _hasher.check_needs_rehash(kept) else None


@cache
def _nobodys() -> str:
    """Return what is checked where there is no such user: it takes as long as a wrong password."""
    return _hasher.hash("nobody")
