"""Requests and acts that mention a customer, beside what belongs to the customer's events."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from relay.rules.mentions import Mentions
from relay.store import schema, traces
from relay.store.actions import Entry, load_entry
from relay.store.database import Database
from relay.store.values import Request, load_request

#: Rows that are looked at together.
STEP = 200


class Mentioned:
    """Finds what :meth:`relay.store.prune.Pruning.erase` would remove or blank, and reads it."""

    def __init__(self, database: Database, mentions: Mentions) -> None:
        self._database = database
        self._mentions = mentions

    def requests(self) -> Iterator[Request]:
        """Yield the refused requests that mention the customer, the oldest first."""
        table = schema.requests
        last = -1
        while last:
            with self._database.reading() as db:
                last, seqs = traces.refused(db, self._mentions, after=max(last, 0), limit=STEP)
                chosen = sa.select(table).where(table.c.seq.in_(seqs)).order_by(table.c.seq)
                found = [load_request(row) for row in db.execute(chosen).mappings()]
            yield from found

    def actions(self) -> Iterator[Entry]:
        """Yield the acts of people whose words mention the customer, the oldest first."""
        table = schema.actions
        last = -1
        while last:
            with self._database.reading() as db:
                last, words = traces.words(db, self._mentions, after=max(last, 0), limit=STEP)
                mine = table.c.seq.in_([each.seq for each in words])
                chosen = sa.select(table).where(mine).order_by(table.c.seq)
                found = [load_entry(row) for row in db.execute(chosen).mappings()]
            yield from found
