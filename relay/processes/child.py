"""A child process: forked, or found again after the parent executed itself anew."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from relay import logs
from relay.processes.process import ENDING, Ready, end_with

#: Seconds between looks at a child that is waited for.
LOOK = 0.02


class Child:
    """A process of ours that we start, tell things, and wait for."""

    def __init__(
        self, role: str, pid: int, *, name: str = "", readiness: int | None = None
    ) -> None:
        self.role = role
        self.name = name
        self.pid = pid
        self.started = time.monotonic()
        #: None while it runs; negative: the signal that ended it.
        self.exit_code: int | None = None
        #: Its end of a pipe says when it works.
        self._readiness = readiness
        self._is_ready = readiness is None

    @property
    def is_alive(self) -> bool:
        if self.exit_code is None:
            pid, status = 0, 0
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid = self.pid
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
                self.forget_readiness()
        return self.exit_code is None

    @property
    def is_ready(self) -> bool:
        if not self._is_ready and self._readiness is not None:
            with suppress(BlockingIOError):
                self._is_ready = bool(os.read(self._readiness, 1))
            if self._is_ready:
                self.forget_readiness()
        return self._is_ready

    def tell(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.is_alive:
            os.kill(self.pid, number)

    def join(self, ends_at: float) -> bool:
        """Wait until it has ended, and return whether it has; give up at *ends_at*."""
        while self.is_alive and time.monotonic() < ends_at:
            time.sleep(LOOK)
        return not self.is_alive

    def forget_readiness(self) -> None:
        if self._readiness is not None:
            os.close(self._readiness)
            self._readiness = None


def fork(
    role: str, run: Callable[[Ready], None], *, name: str = "", forget: Callable[[], None]
) -> Child:
    """Start a child that runs *run* and dies with us. *forget* closes there what is only ours.

    A fork shares the memory of what is imported.
    """
    parent = os.getpid()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    logs.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(role, pid, name=name, readiness=reading)
    code = 1
    try:
        os.close(reading)
        _become_child(parent)
        forget()
        run(lambda: _say_ready(writing))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        logs.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def apart(run: Callable[[], None]) -> Iterator[None]:
    """Call *run* in a child, whose imports and caches go with it, while we do what is inside.

    Then wait for its end, and exit as it did if it failed.
    """
    child = fork("short-lived", lambda _: run(), forget=lambda: None)
    try:
        yield
    finally:
        _, status = os.waitpid(child.pid, 0)
        child.forget_readiness()
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(code)


def _become_child(parent: int) -> None:
    signal.set_wakeup_fd(-1)
    for number in (*ENDING, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # Sent to all by a terminal that closes: the parent decides.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_with(parent)


def _say_ready(pipe: int) -> None:
    # Nobody listens any more if it took too long.
    with suppress(OSError):
        os.write(pipe, b"1")
