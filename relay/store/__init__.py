"""The store: every SQL statement of the relay is in here.

:class:`Inbox` accepts events, :class:`Queue` claims deliveries and records attempts,
:class:`Queries` shows what there is, :class:`Recovery` does what people ask for. They share one
:class:`Database`, which :func:`connect` opens.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from relay.store.connect import connect
from relay.store.database import Database, RowRefused, StoreUnavailable

if TYPE_CHECKING:
    from relay.store.accept import Inbox
    from relay.store.claim import Queue
    from relay.store.read import Queries
    from relay.store.recover import Recovery

__all__ = [
    "Database",
    "Inbox",
    "Queries",
    "Queue",
    "Recovery",
    "RowRefused",
    "StoreUnavailable",
    "connect",
]

#: What is imported when it is asked for, because few commands need more than one of them.
_WHERE = {"Inbox": "accept", "Queries": "read", "Queue": "claim", "Recovery": "recover"}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"relay.store.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
