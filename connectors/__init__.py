"""The connector contract, and the connectors that come with gofax-relay.

A connector needs no running relay: it is given an :class:`Event`, and it talks to one system.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from connectors.base import (
    Ambiguous,
    Connector,
    DeliveryError,
    Disclosure,
    Event,
    Options,
    Preview,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)

if TYPE_CHECKING:
    from connectors.http import Http, error_for

__all__ = [
    "Ambiguous",
    "Connector",
    "DeliveryError",
    "Disclosure",
    "Event",
    "Http",
    "Options",
    "Preview",
    "Receipt",
    "Refused",
    "Throttled",
    "Transient",
    "Unauthorized",
    "error_for",
]


def __getattr__(name: str) -> Any:
    """Import the HTTP client on first use, because reading events needs none."""
    if name in ("Http", "error_for"):
        return getattr(import_module("connectors.http"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
