"""The lock before SQLite's own: threads and processes write in turn, within a time limit."""

from __future__ import annotations

import fcntl
import os
import threading
import time

from relay.store.database import StoreUnavailable

#: Seconds after which a writer gives up waiting for another. Together with SQLite's own wait that
#: is less than the 5 s that a sender waits.
LONGEST_WAIT = 2.0
#: Seconds between the first tries to take a lock.
_FIRST_TRIES = (0.0005, 0.001, 0.002)


class WriteLock:
    """Lets one thread of one process write at a time. *file*: the descriptor to lock.

    Raises :class:`StoreUnavailable` if another writer holds it for more than *patience* seconds.
    """

    def __init__(self, file: int, *, patience: float = LONGEST_WAIT) -> None:
        self._threads = threading.Lock()
        self._patience = patience
        self._file: FileLock | None = FileLock(file)

    def __enter__(self) -> None:
        ends_at = time.monotonic() + self._patience
        if not self._threads.acquire(timeout=self._patience):
            raise StoreUnavailable("another thread has been writing for too long")
        if self._file is None:
            self._threads.release()
            raise StoreUnavailable("the store was closed")
        if not self._file.acquire(ends_at - time.monotonic()):
            self._threads.release()
            raise StoreUnavailable(
                "another process has been writing for too long, or was stopped while it wrote"
            )

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.release()
        self._threads.release()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class FileLock:
    """``flock`` with a time limit, for one thread at a time.

    Processes queue in the kernel, so that a busy one does not starve the others.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._guard = threading.Lock()
        #: Set when the thread that queues in the kernel has the lock.
        self._waiter: threading.Event | None = None
        self._wanted = False

    def acquire(self, seconds: float) -> bool:
        """Take the lock; False if that did not happen within *seconds*."""
        if self._waiter is None and self._try_briefly():
            return True
        with self._guard:
            self._wanted = True
            if self._waiter is None:
                self._waiter = threading.Event()
                threading.Thread(target=self._queue_up, daemon=True, name="lock").start()
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

    def _try_briefly(self) -> bool:
        """Try for a few milliseconds, after which most holders have released the lock."""
        for pause in _FIRST_TRIES:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(pause)
            else:
                return True
        return False

    def _queue_up(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        with self._guard:
            if self._wanted:
                assert self._waiter is not None
                self._waiter.set()
                return
            # The caller has given up.
            self._waiter = None
            fcntl.flock(self._file, fcntl.LOCK_UN)
