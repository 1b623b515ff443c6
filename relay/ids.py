"""Identifiers that explain themselves: a prefix, the time, and randomness."""

from __future__ import annotations

import secrets
import time
from typing import Literal

Prefix = Literal["evt", "dlv", "req"]


def new_id(prefix: Prefix) -> str:
    """Make an id such as ``evt_0193a1b2c3d4…``; ids of one prefix sort roughly by their time."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"
