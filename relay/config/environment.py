"""Variables that say something about this process, not about the config."""

from __future__ import annotations

import os
from collections.abc import Mapping


def take(name: str) -> str | None:
    """Return a variable, and remove it: whoever is started from here is not meant."""
    return os.environ.pop(name, None)


def with_variable(name: str, value: str) -> Mapping[str, str]:
    """Return the environment with one more variable."""
    return {**os.environ, name: value}


def is_dumb() -> bool:
    """Return whether the terminal would show the codes that make text bold."""
    return os.environ.get("TERM") in ("dumb", "unknown")
