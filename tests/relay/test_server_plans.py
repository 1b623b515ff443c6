"""PostgreSQL's plans: what people ask of one event reads no table from end to end.

A table that is nearly empty is read like that whatever there is to help, unless it is forbidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import arrival, finish, take_one

from relay.store import Database, Inbox, Queries, Queue, connect

FORBIDDEN = "?options=-c%20enable_seqscan%3Doff"
#: Those that grow; the others are small whatever happens.
GROWING = {"events", "keys", "requests", "lanes", "deliveries", "attempts"}


@pytest.fixture
def database(emptied: str) -> Iterator[Database]:
    with closing(connect(emptied + FORBIDDEN)) as database:
        yield database


def _plans(database: Database, statements: list[tuple[str, Any]]) -> list[str]:
    with database.engine.connect() as db:
        return [
            row[0]
            for statement, values in statements
            for row in db.exec_driver_sql(f"EXPLAIN {statement}", values)
        ]


def test_one_event_is_found_by_indexes_whatever_it_is_named_by(
    database: Database, inbox: Inbox, queue: Queue, queries: Queries
) -> None:
    inbox.accept(arrival("m1"))
    finish(queue, take_one(queue))
    statements: list[tuple[str, Any]] = []
    sa.event.listen(
        database.engine,
        "before_cursor_execute",
        lambda _, __, statement, values, *___: statements.append((statement, values)),
    )

    view = queries.event("m1")
    assert view is not None
    for name in (view.event.id, view.deliveries[0].id, "nobody"):
        queries.event(name)

    selected = [each for each in statements if each[0].startswith("SELECT")]
    assert len(selected) > 20
    scanned = [step for step in _plans(database, selected) if "Seq Scan" in step]
    assert not [step for step in scanned if step.split(" on ")[1].split()[0] in GROWING], scanned
