"""The store: every SQL statement of the relay is in here.

:class:`Inbox` accepts events, :class:`Queue` claims deliveries and records attempts,
:class:`Queries` shows what there is, :class:`Recovery` does what people ask for. They share one
:class:`Database`, which :func:`connect` opens.
"""

from relay.store.accept import Inbox
from relay.store.claim import Queue
from relay.store.connect import connect
from relay.store.database import Database, RowRefused, StoreUnavailable
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
