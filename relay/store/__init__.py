"""The store: every SQL statement of the relay is in here.

:class:`Inbox` accepts events, :class:`Queue` claims deliveries and records attempts,
:class:`Ledger` shows what there is, :class:`Desk` does what people ask for. They share one
:class:`Database`.
"""

from relay.store.database import Database, StoreUnavailable
from relay.store.desk import Desk
from relay.store.inbox import Inbox
from relay.store.ledger import Ledger
from relay.store.queue import Queue

__all__ = ["Database", "Desk", "Inbox", "Ledger", "Queue", "StoreUnavailable"]
