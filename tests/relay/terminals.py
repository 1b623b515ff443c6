"""Commands in terminals of their own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class Terminal:
    """A command in a terminal of its own."""

    def __init__(
        self, *arguments: str, folder: Path, columns: int, term: str, program: Sequence[str]
    ) -> None:
        self._ours, theirs = pty.openpty()
        self._heard = bytearray()
        self.process = subprocess.Popen(
            [*program, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            start_new_session=True,
            env={**os.environ, "TERM": term, "COLUMNS": str(columns)},
        )
        os.close(theirs)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def said(self) -> str:
        return self._heard.decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """Wait for the command's end and return its exit code."""
        code = self.process.wait(60)
        self._listener.join(10)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def _listen(self) -> None:
        # Linux reports an error where others report the end.
        try:
            while piece := os.read(self._ours, 4096):
                self._heard += piece
        except OSError:
            return


@contextmanager
def terminal(
    *arguments: str,
    folder: Path,
    columns: int = 100,
    term: str = "xterm",
    program: Sequence[str] = (sys.executable, "-m", "relay.cli"),
) -> Iterator[Terminal]:
    """Run a gofax-relay command; it is killed at the end if it still runs."""
    made = Terminal(*arguments, folder=folder, columns=columns, term=term, program=program)
    try:
        yield made
    finally:
        made.close()
