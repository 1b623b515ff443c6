"""Backlogs as large as wished, made by bulk SQL: accepting a million events takes too long."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from fakes import OURS, arrival, customer

from relay.store import Inbox, connect
from relay.store.lanes import lane_name
from relay.store.line_up import delivery_key


def fill(path: Path, *, deliveries: int, conversations: int, destination: str = "crm") -> None:
    """Put *deliveries* into a store that has tables and nothing else, as accepting them would."""
    _accept_one(path, destination)
    with closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -400000;")
        db.create_function("lane", 1, lambda i: lane_name(destination, _conversation(i)))
        db.create_function("event_key", 1, _event_key)
        db.create_function("effect", 1, lambda i: delivery_key(_event_key(i), destination))
        with db:
            who = f"i % {conversations}"
            said = f"printf('+614%08d~{OURS}', {who})"
            name = "printf('evt_%024d', i)"
            _copy(db, "lanes", 0, conversations, id="lane(i)", conversation=said)
            _copy(db, "keys", 0, deliveries, key="event_key(i)", event_id=name)
            _copy(
                db, "events", 0, deliveries,
                id=name, key="event_key(i)", message_id="'b' || i", conversation=said,
                customer=f"printf('+614%08d', {who})", sender=f"printf('+614%08d', {who})",
            )  # fmt: skip
            place = {
                "id": "printf('dlv_%024d', i)",
                "event_id": name,
                "lane_id": f"lane({who})",
                "key": "effect(i)",
            }
            _copy(db, "deliveries", 0, conversations, **place)
            behind = {"state": "'waiting'", "due_at": "NULL"}
            _copy(db, "deliveries", conversations, deliveries, **place, **behind)
        for table in ("deliveries", "events", "keys", "lanes"):
            db.execute(f"DELETE FROM {table} WHERE rowid = 1")
        db.commit()


def _accept_one(path: Path, destination: str) -> None:
    """Accept the event that the others are copies of."""
    database = connect(f"sqlite:///{path}")
    inbox = Inbox(database)
    inbox.accept(arrival("model", customer=customer(99_999_999), to=(destination,)))
    inbox.close()
    database.close()


def _copy(db: sqlite3.Connection, table: str, start: int, end: int, **changes: str) -> None:
    """Copy the first row of *table* for each i from *start* to *end*, with *changes*."""
    cursor = db.execute(f"SELECT * FROM {table} ORDER BY rowid LIMIT 1")
    model = dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))
    model.pop("seq", None)
    values = ", ".join(changes.get(name, f":{name}") for name in model)
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT :start UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :end) "
        f"INSERT INTO {table} ({', '.join(model)}) SELECT {values} FROM n WHERE i < :end",
        {**model, "start": start, "end": end},
    )


def _conversation(i: int) -> str:
    return f"{customer(i)}~{OURS}"


def _event_key(i: int) -> bytes:
    return hashlib.sha256(b"%d" % i).digest()
