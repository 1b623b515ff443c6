"""The workbench at a real terminal: it asks, shows a bar, and stops at Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes import accept_together, arrival, customer, eventually, failed, finish, take

from relay.rules.delivery import OutcomeKind
from relay.store import Database, Inbox, Queries, Queue

CONFIG = """\
store: sqlite:///relay.db
endpoints:
  - {path: /webhooks/gofax, allow_unsigned: true}
destinations:
  crm: {connector: hubspot, access_token: test}
"""


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        self._heard = bytearray()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relay.cli", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
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
def terminal(*arguments: str, folder: Path) -> Iterator[Terminal]:
    made = Terminal(*arguments, folder=folder)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def folder(path: Path, database: Database, inbox: Inbox, queue: Queue) -> Path:
    """A folder with a config, and a store in which 40 deliveries are dead."""
    (path.parent / "config.yaml").write_text(CONFIG)
    arrivals = [arrival(f"m{number}", customer=customer(number)) for number in range(40)]
    accept_together(database, inbox, arrivals)
    for claim in take(queue):
        finish(queue, claim, failed(OutcomeKind.REFUSED, "HTTP 400"))
    return path.parent


def test_it_asks_before_it_does_much(folder: Path, queries: Queries) -> None:
    with terminal("resend", "--all-dead", folder=folder) as screen:
        eventually(lambda: "[y/N]" in screen.said)
        assert "40  crm  refused: HTTP 400" in screen.said
        assert "Resend 40 deliveries?" in screen.said
        screen.type("n\n")
        assert screen.end() == 1

    assert queries.backlog() == {"crm": {"dead": 40}}


def test_it_shows_how_far_it_is_and_stops_at_ctrl_c(folder: Path, queries: Queries) -> None:
    with terminal("resend", "--all-dead", "--rate", "10/10m", folder=folder) as screen:
        eventually(lambda: "[y/N]" in screen.said)
        screen.type("y\n")
        eventually(lambda: "10/40" in screen.said)
        # What the terminal does at Ctrl-C.
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == 1
        assert "resent 10 deliveries\r\nstopped after 10 of 40" in screen.said
        assert "Traceback" not in screen.said

    assert queries.backlog() == {"crm": {"dead": 30, "pending": 10}}
