"""What people do is noted, and shown, the newest first: the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from relay.store import schema
from relay.store.database import Database
from relay.store.ids import new_id
from relay.store.values import COMMAND_LINE, ActionView

#: Characters of a name that the index has.
INDEXED = 60

_a = schema.actions.c
_WHO: sa.ColumnElement[str] = sa.literal_column(schema.WHO.text, sa.Text())


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """Who acts, when, from where, and why."""

    who: str
    why: str | None
    at: datetime
    #: The command line, or the address of who calls.
    origin: str = COMMAND_LINE
    #: The version of the config through whose routes events are replayed.
    config: str | None = None
    #: What one command does has one name, by which it can be undone.
    id: str = field(default_factory=partial(new_id, "act"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the audit log."""

    seq: int
    #: The name of the act, by which it can be undone.
    act: str | None
    event_id: str | None
    action: ActionView


class Actions:
    """Reads what people did, and notes what no other part of the store does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(
        self,
        act: Act,
        what: str,
        *,
        detail: str,
        destination: str | None = None,
        event_id: str | None = None,
    ) -> None:
        """Note what a person did: *what* in one word, *detail* in a few."""
        row = {"detail": detail, "destination": destination, "event_id": event_id}
        with self._database.writing() as db:
            note(db, act, what, [row])

    def newest(
        self,
        *,
        limit: int,
        before: int | None = None,
        who: str | None = None,
        what: str | None = None,
        since: datetime | None = None,
    ) -> Sequence[Entry]:
        """Return the newest *limit* entries, the newest first.

        *before*: only those before the entry of that number, to go on from it.
        """
        wanted: list[sa.ColumnElement[bool]] = []
        if before is not None:
            wanted.append(_a.seq < before)
        if who is not None:
            wanted += [_a.who == who, sa.literal(who[:INDEXED]) == _WHO]
        if what is not None:
            wanted.append(_a.what == what)
        if since is not None:
            wanted.append(_a.at >= since)
        chosen = sa.select(schema.actions).where(*wanted).order_by(_a.seq.desc()).limit(limit)
        with self._database.reading() as db:
            return [load_entry(row) for row in db.execute(chosen).mappings()]


def load_entry(row: sa.RowMapping) -> Entry:
    action = ActionView(**{each.name: row[each.name] for each in fields(ActionView)})
    return Entry(seq=row["seq"], act=row["act"], event_id=row["event_id"], action=action)


def note(db: sa.Connection, act: Act, what: str, rows: Sequence[dict[str, Any]]) -> None:
    """Record what was done, by whom and why."""
    nothing = {"event_id": None, "delivery_id": None, "destination": None, "before": None}
    if rows:
        same = {"what": what, "at": act.at, "act": act.id}
        same |= {"who": act.who, "origin": act.origin, "why": act.why}
        db.execute(sa.insert(schema.actions), [nothing | row | same for row in rows])
