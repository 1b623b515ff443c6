"""The hidden pipe beside a SQLite store by which its receivers wake its workers.

It has a name, because a receiver and a worker need not be started together. A byte in it says that
something is due; it is lost without harm, because workers also look for work by themselves. Where
several workers listen, each byte wakes one of them.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from relay.every import Every

log = structlog.get_logger()

#: Longest wait for a byte, in seconds.
LOOK = 10.0


def notify(pipe: Path) -> None:
    """Wake a worker that listens at *pipe*, if there is one."""
    # Nobody listens, or so many bytes are unread that somebody will be woken anyway.
    with suppress(OSError):
        end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        try:
            if stat.S_ISFIFO(os.fstat(end).st_mode):
                os.write(end, b"\n")
        finally:
            os.close(end)


class PipeListener:
    """Calls *wake* when somebody has written to *pipe*, until it is closed."""

    def __init__(self, pipe: Path, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._end = _open(pipe)
        #: Closing this one ends a wait: what is written to the other, another worker may read.
        self._closed, self._closing = os.pipe()
        self._loop = Every("listen", 0.0, self._listen)
        if self._end is not None:
            self._loop.start()

    def close(self) -> None:
        self._loop.close(0.0)
        os.close(self._closing)
        self._loop.close()
        os.close(self._closed)
        if self._end is not None:
            os.close(self._end)

    def _listen(self) -> None:
        assert self._end is not None
        written, _, _ = select.select([self._end, self._closed], [], [], LOOK)
        if self._end in written:
            with suppress(BlockingIOError):
                os.read(self._end, 65536)
            self._wake()


def _open(pipe: Path) -> int | None:
    """Make *pipe* and open it; None where the disk has no pipes."""
    try:
        with suppress(FileExistsError):
            os.mkfifo(pipe, 0o600)
        if not stat.S_ISFIFO(pipe.stat().st_mode):
            raise FileExistsError(f"{pipe.name} is no pipe")
        # Also for writing: a pipe that loses its last writer would be at its end.
        return os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        log.warning("store.no_wake_ups", reason=str(error.strerror or error))
        return None
