"""Names for nodes, so that a worker that comes back knows which leases were its own."""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets
import socket
from pathlib import Path


class NodeSlot:
    """The first free place of its *role* beside a store on this machine, held until we die.

    Two running nodes never share a name, and one that was killed gives its name back at once,
    because the lock dies with it.
    """

    def __init__(self, store: Path, role: str = "worker") -> None:
        for number in itertools.count(1):
            path = store.with_name(f"{store.name}.{role}-{number}.lock")
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._file)
                continue
            self.name = f"{role}-{number}"
            return


def new_name() -> str:
    """Return a name that no node has had: where many machines share a store, a place is no name.

    A node that comes back is another one, and its leases run out.
    """
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
