"""Tells the other nodes, every few seconds, that this one is at work."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from importlib import metadata

from relay.store import Database
from relay.store.nodes import Node, Nodes, Role

#: Seconds between two beats.
EVERY = 5.0


class Heartbeat:
    """A thread beside whatever the node does; it delays none of it, and never ends it."""

    def __init__(self, database: Database, *, name: str, role: Role, every: float = EVERY) -> None:
        """*name* is the one under which the node claims."""
        self._database = database
        self._fleet = Nodes(database)
        self._node = Node(
            name=name,
            role=role,
            version=metadata.version("gofax-relay"),
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nodes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop, and take the node off the list."""
        self._stop.set()
        self._thread.join()
        leave(self._database, self._node.name)

    def _run(self) -> None:
        while True:
            # Whoever works with the store says so when it is away; and whatever else there is
            # about the list, such as an older schema that has none, the node works on.
            with suppress(Exception):
                self._node = self._fleet.beat(self._node)
            if self._stop.wait(self._every):
                return


def leave(database: Database, name: str) -> None:
    """Take a node off the list, if that can be done now; otherwise it will be a silent one."""
    with suppress(Exception):
        Nodes(database).leave(name)
