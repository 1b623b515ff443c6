"""The lock before SQLite's own: threads and processes write in turn, within a time limit."""

from __future__ import annotations

import fcntl
import os
import threading
import time

from relay.store.database import StoreUnavailable

#: Seconds after which a writer gives up waiting for another one. With SQLite's own wait it is
#: less than the 5 s in which a sender wants its answer.
LONGEST_WAIT = 2.0
#: Seconds between the first tries at a lock that is not free.
_FIRST_TRIES = (0.0005, 0.001, 0.002)


class WriteLock:
    """Lets one thread of one process write at a time. *file*: the descriptor to lock.

    Raises :class:`StoreUnavailable` when another writer holds it for over *patience* seconds.
    """

    def __init__(self, file: int, *, patience: float = LONGEST_WAIT) -> None:
        self._threads = threading.Lock()
        self._patience = patience
        self._file: FileLock | None = FileLock(file)

    def __enter__(self) -> None:
        ends_at = time.monotonic() + self._patience
        if not self._threads.acquire(timeout=self._patience):
            raise StoreUnavailable("another thread writes for too long")
        if self._file is None:
            self._threads.release()
            raise StoreUnavailable("the store was closed")
        if not self._file.acquire(ends_at - time.monotonic()):
            self._threads.release()
            raise StoreUnavailable("another process writes for too long, or was stopped in it")

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.release()
        self._threads.release()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class FileLock:
    """``flock`` with a time limit, which the system call does not have.

    Processes queue up in the kernel, so that a busy one starves nobody. For one thread at a time.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._guard = threading.Lock()
        #: Stands in line in the kernel when the lock was not free.
        self._waiter: threading.Event | None = None
        self._wanted = False

    def acquire(self, seconds: float) -> bool:
        """Take the lock; False if that did not happen within *seconds*."""
        if self._waiter is None and self._at_once():
            return True
        with self._guard:
            self._wanted = True
            if self._waiter is None:
                self._waiter = threading.Event()
                threading.Thread(target=self._stand_in_line, daemon=True, name="lock").start()
            waiter = self._waiter
        if waiter.wait(max(seconds, 0.0)):
            self._waiter = None
            return True
        with self._guard:
            if waiter.is_set():
                self._waiter = None
                return True
            self._wanted = False
            return False

    def release(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._file)

    def _at_once(self) -> bool:
        """Try for a few milliseconds, in which most who hold the lock are done with it."""
        for pause in _FIRST_TRIES:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(pause)
            else:
                return True
        return False

    def _stand_in_line(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        with self._guard:
            if self._wanted:
                assert self._waiter is not None
                self._waiter.set()
                return
            # Whoever asked has given up.
            self._waiter = None
            fcntl.flock(self._file, fcntl.LOCK_UN)
