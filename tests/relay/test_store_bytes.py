"""What was erased or pruned is in no file of the store, in any form in which it was written."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote_plus

import pytest
import site_of_nodes
import sqlalchemy as sa
from fakes import (
    NOON,
    Clock,
    accept,
    customer,
    delivered,
    eventually,
    failed,
    finish,
    request,
    take,
)
from site_of_nodes import PATIENCE, Site
from structlog.testing import capture_logs

from relay import node
from relay.node import Pruner
from relay.rules.delivery import OutcomeKind
from relay.store import Database, Inbox, Queue
from relay.store.actions import Act
from relay.store.prune import Pruning, Removed
from relay.store.recover import Recovery
from relay.store.texts import Texts

DAY = timedelta(days=1)
NUMBER = "+61411222333"
TEXT = "Überweisung an Müller 🙂 bis morgen"
#: The number and the text, as people, JSON and forms write them.
FORMS = [
    form
    for said in (NUMBER.removeprefix("+"), TEXT)
    for form in (said.encode(), json.dumps(said)[1:-1].encode(), quote_plus(said).encode())
]
#: The end of a word, as the full-text index has it: it cuts what words have in common.
FORMS.append(b"berweisung")


def _files_with(folder: Path) -> dict[str, int]:
    """Return the files beside a store that hold any of the forms, and how many they hold."""
    found = {
        path.name: sum(content.count(form) for form in FORMS)
        for path in sorted(folder.rglob("relay.db*"))
        for content in [path.read_bytes()]
    }
    return {name: number for name, number in found.items() if number}


def _fill(inbox: Inbox, queue: Queue) -> None:
    """Store what a customer said among what others said, delivered, dead and refused."""
    for number in range(120):
        of_theirs = number % 3 == 0
        who = NUMBER if of_theirs else customer(number)
        accept(inbox, f"m{number}", customer=who, body=f"{TEXT} {'x' * number * 20}")
    body = json.dumps({"messageId": "?", "from": NUMBER, "messageBody": TEXT})
    escaped = body.replace(NUMBER, NUMBER.replace("+", "\\u002b").replace("2", "\\u0032"))
    form = f"from={quote_plus(NUMBER)}&text={quote_plus(TEXT)}"
    cut = body[: body.index("bis")]
    for raw in (body, escaped, form, cut):
        inbox.refuse([request(outcome="refused", status=401, body=raw.encode())])
    inbox.refuse([request(outcome="refused", status=401, body=b'{"from": "+61499999999"}')])
    while claims := take(queue):
        for claim in claims:
            is_odd = int(claim.event.message_id[1:]) % 2 if claim.event.message_id else 0
            outcome = failed(OutcomeKind.REFUSED, f"no contact {NUMBER}") if is_odd else None
            finish(queue, claim, outcome or delivered(claim.lane_id, thread=NUMBER))


def _index(database: Database) -> None:
    """Index the texts, in several parts."""
    texts = Texts(database)
    while texts.index(limit=30):
        pass
    with database.reading() as db:
        found = sa.text("SELECT count(*) FROM texts WHERE texts MATCH :asked")
        assert db.scalar(found, {"asked": '"000000uberw" *'}) == 120


def _erase(database: Database) -> Removed:
    removed = sum(Pruning(database).erase(NUMBER), Removed())
    # Others said the same, in part.
    for number in range(120):
        list(Pruning(database).erase(customer(number)))
    return removed


def test_what_was_erased_is_in_no_file(
    inbox: Inbox, queue: Queue, database: Database, tmp_path: Path
) -> None:
    _fill(inbox, queue)
    _index(database)
    act = Act(who="alex", why="0411 222 333 called: (04) 1122-2333 or 61411222333", at=NOON)
    Recovery(database).pause("crm", act)
    assert _files_with(tmp_path)

    removed = _erase(database)

    assert database.truncate_log() == ""
    assert _files_with(tmp_path) == {}
    assert (removed.events, removed.requests, removed.words) == (40, 4, 1)


def test_what_was_pruned_is_in_no_file(
    inbox: Inbox, queue: Queue, database: Database, tmp_path: Path
) -> None:
    _fill(inbox, queue)
    _index(database)
    pruner = Pruner(
        Pruning(database),
        retention=DAY,
        backups=DAY,
        horizon=None,
        clock=Clock(NOON + 3 * DAY),
        first=0.0,
    )

    pruner.start()

    eventually(lambda: _files_with(tmp_path) == {})
    pruner.close()


def test_a_reader_that_keeps_removed_texts_in_the_log_is_told_of_and_waited_for(
    inbox: Inbox,
    queue: Queue,
    database: Database,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node, "LOOK", 0.05)
    _fill(inbox, queue)
    pruner = Pruner(
        Pruning(database),
        retention=DAY,
        backups=DAY,
        horizon=None,
        clock=Clock(NOON + 3 * DAY),
        first=0.0,
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchall()
        with capture_logs() as logs:
            pruner.start()
            eventually(lambda: [line for line in logs if line["event"] == "store.log_kept"])
        assert "relay.db-wal" in _files_with(path.parent)
        reader.execute("COMMIT")

    eventually(lambda: "relay.db-wal" not in _files_with(path.parent))
    pruner.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_of_nodes.flow() as system:
        made = Site(tmp_path, store="sqlite:///relay.db", flow=system.url)
        yield made
        made.close()


@pytest.mark.slow
def test_after_a_clean_stop_the_log_holds_nothing(site: Site) -> None:
    relay = site.serve("serve")
    for number in range(20):
        assert site.post(f"m{number}", customer=NUMBER) == "accepted"

    relay.send_signal(signal.SIGTERM)

    assert relay.wait(PATIENCE) == 0
    assert [name for name in _files_with(site.folder)] == ["relay.db"]
    said = site.run("erase", NUMBER, "--yes")
    assert "removed: 20 events with 20 deliveries" in said.stdout, said.stderr
    assert _files_with(site.folder) == {}


@pytest.mark.slow
def test_a_text_is_found_within_two_seconds_and_not_when_it_was_erased(site: Site) -> None:
    site.serve("serve")
    assert site.post("m1", customer=NUMBER, text=TEXT) == "accepted"
    answered = time.monotonic()

    def indexed() -> list[str]:
        # What is not indexed yet would be found as well.
        with closing(sqlite3.connect(site.folder / "relay.db")) as db:
            return [row[0] for row in db.execute("SELECT words FROM texts")]

    eventually(indexed)

    assert time.monotonic() - answered < 2
    wanted = ("events", "--text", "MULLER morg", "--json")
    assert [json.loads(line)["message_id"] for line in site.run(*wanted).stdout.splitlines()] == [
        "m1"
    ]
    eventually(lambda: site.run("erase", NUMBER, "--yes").returncode == 0)
    assert site.run(*wanted).stdout == ""
    assert indexed() == []
