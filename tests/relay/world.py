"""What the world outside of a store knows of it: messages, attempts, and how those ended."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from relay.store.values import Claim

Row = sqlite3.Row
Rows = Mapping[str, Row]


class Eyes:
    """Reads the tables of a store past all of its code."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row

    def table(self, name: str, order: str = "seq") -> list[Row]:
        return self._db.execute(f"SELECT * FROM {name} ORDER BY {order}").fetchall()

    def deliveries(self) -> Rows:
        """Return the deliveries by their ids, in their order."""
        return {row["id"]: row for row in self.table("deliveries")}

    def close(self) -> None:
        self._db.close()


def stored(at: datetime) -> int:
    """Write a time as SQLite has it."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def facts(rows: Rows) -> dict[str, tuple[Any, ...]]:
    """Return *rows* as values that can be compared."""
    return {name: tuple(row) for name, row in rows.items()}


def changed(before: Rows, after: Rows) -> set[str]:
    """Return which of the rows *before* are others now, or gone."""
    now = facts(after)
    return {name for name, values in facts(before).items() if now.get(name) != values}


@dataclass
class Message:
    """A message that was accepted, as its sender knows it."""

    name: str
    event_id: str
    customer: str
    to: Sequence[str]
    duplicates: int = 0
    removed: bool = False


@dataclass(eq=False)
class Work:
    """A claim, and what became of the worker that has it."""

    claim: Claim
    node: str
    lease_until: datetime
    #: Its process lives: it can still say how the attempt ended.
    alive: bool = True
    #: It renews its lease no more.
    hangs: bool = False
    #: Somebody has settled it as lost.
    given_up: bool = False

    @property
    def id(self) -> str:
        return self.claim.delivery_id


@dataclass
class World:
    messages: dict[str, Message] = field(default_factory=dict)
    #: Claims whose end is not recorded, or whose worker may still come late.
    work: list[Work] = field(default_factory=list)
    #: Deliveries at which an attempt may have acted.
    doubted: set[str] = field(default_factory=set)
    #: Deliveries of which somebody said that they arrived: an attempt, or a person.
    arrived: set[str] = field(default_factory=set)
    #: Deliveries that a person wanted to be a second effect.
    again: set[str] = field(default_factory=set)
    #: Events by lane, in the order in which they got into line.
    line: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    #: Workers that were killed and have not come back; destinations that a person paused.
    down: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)

    def claimed(self, node: str | None = None) -> Iterator[Work]:
        """Yield the claims that hold their delivery, all or those of *node*."""
        for work in self.work:
            if not work.given_up and node in (None, work.node):
                yield work

    def at_work(self) -> list[Work]:
        """Return the claims whose end can still be reported."""
        return [work for work in self.work if work.alive]

    def overdue(self) -> list[Work]:
        """Return the claims that somebody has settled as lost, and whose worker lives."""
        return [work for work in self.work if work.alive and work.given_up]

    def give_up(self, work: Work) -> None:
        """Note that *work* was settled as lost: nobody knows what it did."""
        work.given_up = True
        self.doubted.add(work.id)
        self.work = [each for each in self.work if each.alive or not each.given_up]
