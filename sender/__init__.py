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
    from sender.signing import sign
    from sender.trust import Trust
else:
    # Whoever has us installed gets our pytest plugin loaded: that must cost nothing.
    _HOMES = {
        "Answer": "sender.delivery",
        "Event": "sender.event",
        "SenderError": "sender.errors",
        "Status": "sender.event",
        "Trust": "sender.trust",
        "deliver": "sender.delivery",
        "sign": "sender.signing",
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


__all__ = ["Answer", "Event", "SenderError", "Status", "Trust", "deliver", "sign"]
