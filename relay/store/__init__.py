"""The store: every SQL statement of the relay is in here.

:class:`Inbox` accepts events, :class:`Queue` claims deliveries and records attempts,
:class:`Ledger` shows what there is, :class:`Desk` does what people ask for. They share one
:class:`Database`.
"""

from relay.store.accept import Inbox
from relay.store.claim import Queue
from relay.store.database import Database, StoreUnavailable
from relay.store.read import Ledger
from relay.store.recover import Desk

__all__ = ["Database", "Desk", "Inbox", "Ledger", "Queue", "StoreUnavailable"]
