"""Identifiers that explain themselves: a prefix, the time, and randomness."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from os.path import commonprefix
from typing import Literal

Prefix = Literal["act", "bak", "dlv", "evt", "prb", "req", "tok"]

#: The first digit of the time keeps it within what a date can be.
_ID = re.compile("[a-z]{3}_(0[0-9a-f]{11})[0-9a-f]{12}")

#: Characters of a short id: the prefix and the whole time. What comes later begins with another
#: time, so that a short id does not become ambiguous.
SHORTEST = 16


def new_id(prefix: Prefix) -> str:
    """Make an id such as ``evt_0193a1b2c3d4…``; ids of one prefix sort roughly by their time.

    They are unique, not secret: the generator is seeded by the system in every process, and costs
    no system call, at which 32 threads would queue for the interpreter.
    """
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{random.getrandbits(48):012x}"


def time_of(id_: str) -> datetime | None:
    """Return when an id was made; None: it is no id of ours."""
    found = _ID.fullmatch(id_)
    return found and datetime.fromtimestamp(int(found[1], 16) / 1000, UTC)


def shortened(id_: str, neighbours: Iterable[str]) -> str:
    """Return the beginning of *id_* that none of *neighbours*, the ids beside it, begins with."""
    common = max((len(commonprefix([id_, each])) for each in neighbours), default=0)
    return id_[: max(SHORTEST, common + 1)]


def brief_ids(ids: Iterable[str]) -> dict[str, str]:
    """Return for each of *ids* a beginning that none of the others has."""
    order = sorted(ids)
    return {
        each: shortened(each, order[max(at - 1, 0) : at] + order[at + 1 : at + 2])
        for at, each in enumerate(order)
    }
