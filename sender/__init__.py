"""Plays GoFax: makes events, signs them, and posts them to an endpoint.

>>> from sender import Event, deliver
>>> answer = deliver("http://127.0.0.1:8080/webhooks/gofax", Event(), secret="…")
>>> answer.status, answer.text

Nothing is tried twice, no redirect is followed, and an answer of any status is returned.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sender.delivery import Answer, deliver
    from sender.errors import SenderError
    from sender.event import Event, Status
    from sender.scenarios import NAMES as SCENARIO_NAMES
    from sender.signing import sign
    from sender.trust import Trust
else:
    # Every pytest run with us installed imports this package: it must cost nothing.
    _HOMES = {
        "Answer": ("sender.delivery", "Answer"),
        "Event": ("sender.event", "Event"),
        "SCENARIO_NAMES": ("sender.scenarios", "NAMES"),
        "SenderError": ("sender.errors", "SenderError"),
        "Status": ("sender.event", "Status"),
        "Trust": ("sender.trust", "Trust"),
        "deliver": ("sender.delivery", "deliver"),
        "sign": ("sender.signing", "sign"),
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, attribute = _HOMES[name]
        return getattr(importlib.import_module(module), attribute)


__all__ = [
    "SCENARIO_NAMES",
    "Answer",
    "Event",
    "SenderError",
    "Status",
    "Trust",
    "deliver",
    "sign",
]
