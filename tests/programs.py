"""Programs under test: each a process of its own, waited for, and at a port of its own."""

from __future__ import annotations

import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

#: Seconds that anything may take on a machine that others keep busy.
PATIENCE = 180.0
#: Seconds that a process may take to stop when a test is over.
LAST_WORDS = 15.0


def eventually(what: Callable[[], Any], *, patience: float = PATIENCE, said: str = "") -> Any:
    """Call *what* until it returns something true, and return that."""
    ends_at = time.monotonic() + patience
    pause = threading.Event()
    while not (found := what()):
        assert time.monotonic() < ends_at, f"not within {patience} s: {said or what}"
        pause.wait(0.05)
    return found


def free_port() -> int:
    """Return a port that nobody listens on, below those that outgoing connections are given."""
    while True:
        # Not from random, which starts anew with each test, in every process alike.
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Process:
    """A command in a process of its own, what it says kept in a file."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command, stdout=stream, stderr=stream, cwd=cwd, env=environ, start_new_session=True
            )
        self.pid = self._process.pid

    @property
    def code(self) -> int | None:
        """What it ended with; None while it runs."""
        return self._process.poll()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        return self._process.wait(timeout)

    def descendants(self) -> list[psutil.Process]:
        """Return every process below this one, the oldest first."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def standing(self) -> str:
        """Say what became of the process so far."""
        if self.code is not None:
            return f"ended with {self.code}"
        process = psutil.Process(self.pid)
        spent = process.cpu_times()
        return f"{process.status()}, {spent.user:.1f} s and {spent.system:.1f} s of CPU"

    def hang(self) -> None:
        """Let this process and all below it stand still."""
        tree = self._tree()
        for each in tree:
            each.suspend()
        eventually(lambda: {each.status() for each in tree} == {psutil.STATUS_STOPPED})

    def go_on(self) -> None:
        """Let what stood still go on."""
        for each in self._tree():
            each.resume()

    def _tree(self) -> list[psutil.Process]:
        return [psutil.Process(self.pid), *self.descendants()]

    def stop(self) -> None:
        """Ask this process to end, and end it if it does not."""
        if self.code is None:
            self._process.terminate()
            try:
                self._process.wait(LAST_WORDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End this process and all below it, also those that are stopped."""
        below = self.descendants()
        if self.code is None:
            self._process.kill()
        for each in below:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.wait(PATIENCE)
