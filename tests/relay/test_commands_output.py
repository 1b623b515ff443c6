"""The workbench at a real terminal: it asks, shows a bar, and stops at Ctrl-C."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from fakes import accept_together, arrival, customer, eventually, failed, finish, take
from terminals import terminal

from relay.rules.delivery import OutcomeKind
from relay.store import Database, Inbox, Queries, Queue

CONFIG = """\
store: sqlite:///relay.db
endpoints:
  - {path: /webhooks/gofax, allow_unsigned: true}
destinations:
  crm: {connector: hubspot, access_token: test}
"""


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
        assert "resent 10 deliveries\r\n" in screen.said
        assert "stopped after 10 of 40" in screen.said
        assert "Traceback" not in screen.said

    assert queries.backlog() == {"crm": {"dead": 30, "pending": 10}}
