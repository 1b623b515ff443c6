"""What an event costs does not grow with those that wait: SQLite's own steps, counted.

``benchmarks/claim.py`` measures the same in milliseconds, with a million.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from backlog import fill
from fakes import NOON, arrival, customer, failed, finish, lose, take

from relay.rules.delivery import OutcomeKind, Policy
from relay.rules.units import duration
from relay.store import Database, Inbox, Queue, connect
from relay.store.health import BATCH

pytestmark = pytest.mark.slow

#: More than a claim looks at in any case, and a hundred times as many.
SMALL, LARGE = 200, 20_000
#: In how many conversations, and what is changed about them.
BACKLOGS = {
    "few conversations": (10, None),
    "a conversation each": (None, None),
    "all wait for another attempt": (None, "due_at = due_at + 3600000000"),
    "all delivered": (None, "state = 'delivered', due_at = NULL"),
    "all dead": (None, "state = 'dead', due_at = NULL"),
}


class Steps:
    """Counts the instructions of SQLite's machine."""

    def __init__(self, database: Database) -> None:
        self._made = 0
        sa.event.listen(database.engine, "connect", self._watch)

    def _watch(self, connection: sqlite3.Connection, _: object) -> None:
        connection.set_progress_handler(self._step, 1)

    def _step(self) -> None:
        self._made += 1

    @contextmanager
    def counted(self, counts: dict[str, int], name: str) -> Iterator[None]:
        before = self._made
        yield
        counts[name] = self._made - before


def costs(path: Path) -> dict[str, int]:
    """Let 40 new conversations write, be claimed and end in every way; return what that took."""
    database = connect(f"sqlite:///{path}")
    steps, counts = Steps(database), dict[str, int]()
    inbox, queue = Inbox(database), Queue(database, node="worker-1")
    with closing(database), closing(inbox), closing(queue):
        queue.due([], NOON)
        new = [arrival(f"new{who}", customer=customer(50_000_000 + who)) for who in range(40)]
        with steps.counted(counts, "accept"):
            for each in new:
                inbox.accept(each)
        with steps.counted(counts, "look"):
            assert queue.due(["crm"], NOON) == {"crm"}
        with steps.counted(counts, "claim one"):
            (lost,) = take(queue, limit=1, lease=duration("1s"))
        with steps.counted(counts, "claim many"):
            claims = take(queue, limit=32)
        assert len(claims) == 32
        with steps.counted(counts, "record"):
            for claim, result in zip(claims, 7 * list(OutcomeKind), strict=False):
                finish(queue, claim, failed(result), policy=Policy(on_dead="hold"))
        with steps.counted(counts, "renew"):
            queue.renew([claims[-1].delivery_id], lease=duration("1m"), now=NOON)
        with steps.counted(counts, "lose"):
            lose(queue, now=NOON + duration("2s"))
        assert lost.attempt_id
    return counts


def _grown(
    folder: Path, migrated: Path, sizes: tuple[int, int], conversations: int | None, change: str
) -> dict[str, tuple[int, int]]:
    """Return what costs more with the larger of two backlogs, and how much."""
    found = []
    for deliveries in sizes:
        path = shutil.copy(migrated, folder / f"{deliveries}.db")
        fill(path, deliveries=deliveries, conversations=conversations or deliveries)
        if change:
            with closing(sqlite3.connect(path)) as db, db:
                db.execute(f"UPDATE deliveries SET {change}")
        found.append(costs(path))
    small, large = found
    assert set(small) == set(large)
    return {what: (small[what], large[what]) for what in small if large[what] > 1.1 * small[what]}


@pytest.mark.parametrize("name", BACKLOGS)
def test_a_hundred_times_the_backlog_costs_the_same(
    name: str, migrated: Path, tmp_path: Path
) -> None:
    conversations, change = BACKLOGS[name]

    assert _grown(tmp_path, migrated, (SMALL, LARGE), conversations, change or "") == {}


def test_a_destination_that_comes_back_costs_the_same_whatever_waits_for_it(
    migrated: Path, tmp_path: Path
) -> None:
    waits = "due_at = due_at + 3600000000, hurry_from = due_at"
    # Among the ends of 32 attempts are several returns, each of which ends a batch of waits.
    small = 32 * BATCH

    assert _grown(tmp_path, migrated, (small, 10 * small), None, waits) == {}
