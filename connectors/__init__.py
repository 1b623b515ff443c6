"""The connector contract, and the connectors that come with gofax-relay.

A connector needs no running relay: it is given an :class:`Event`, and it talks to one system.
"""

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
