"""PostgreSQL's plans: what people ask of one event reads no table from end to end.

A table that is nearly empty is read like that whatever there is to help, unless it is forbidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import arrival, delivered, finish, take_one

from relay.store import Database, Inbox, Queries, Queue, connect
from relay.store.find import Finder
from relay.store.pages import Pages, RequestsPlace
from relay.store.search import Filter
from relay.store.waiting import waiting

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


def _scanned(database: Database, statements: list[tuple[str, Any]]) -> list[str]:
    """Return the steps that read a growing table from end to end."""
    selected = [each for each in statements if each[0].startswith("SELECT")]
    scanned = [step for step in _plans(database, selected) if "Seq Scan" in step]
    return [step for step in scanned if step.split(" on ")[1].split()[0] in GROWING]


@pytest.fixture
def statements(database: Database) -> list[tuple[str, Any]]:
    """What is sent to the server from now on."""
    statements: list[tuple[str, Any]] = []
    sa.event.listen(
        database.engine,
        "before_cursor_execute",
        lambda _, __, statement, values, *___: statements.append((statement, values)),
    )
    return statements


def test_search_box_and_pages_read_no_table_from_end_to_end(
    database: Database, inbox: Inbox, queue: Queue, statements: list[tuple[str, Any]]
) -> None:
    inbox.accept(arrival("m1"))
    claim = take_one(queue)
    finish(queue, claim, delivered("ticket 1013", thread="1013"))
    pages, statements[:] = Pages(database), []

    for typed in ("+61400000001", "000001", "1013", "m1", "evt_01", "dlv_01", "req_01"):
        Finder(database).find(typed)
    pages.conversation("+61400000001", limit=5, before=9)
    pages.events(Filter(destinations=("crm",)), limit=5, before=9)
    pages.requests(limit=5, before=RequestsPlace(event=9, request=9))
    pages.stopped(limit=5, before=9)
    pages.attempts(claim.delivery_id, limit=5, before=9)
    waiting(database)

    assert len(statements) > 40
    assert _scanned(database, statements) == []


def test_references_and_threads_are_found_by_their_own_indexes(
    database: Database, inbox: Inbox, queue: Queue, statements: list[tuple[str, Any]]
) -> None:
    inbox.accept(arrival("m1"))
    finish(queue, take_one(queue), delivered("ticket 1013", thread="1013"))
    statements.clear()

    assert Finder(database).find("#1013").kinds == ["records"]

    selected = [each for each in statements if each[0].startswith("SELECT")]
    steps = " / ".join(_plans(database, selected))
    assert "ix_deliveries_reference" in steps
    assert "ix_lanes_thread" in steps


def test_one_event_is_found_by_indexes_whatever_it_is_named_by(
    database: Database,
    inbox: Inbox,
    queue: Queue,
    queries: Queries,
    statements: list[tuple[str, Any]],
) -> None:
    inbox.accept(arrival("m1"))
    finish(queue, take_one(queue))
    statements.clear()

    view = queries.event("m1")
    assert view is not None
    for name in (view.event.id, view.deliveries[0].id, "nobody"):
        queries.event(name)

    selected = [each for each in statements if each[0].startswith("SELECT")]
    assert len(selected) > 20
    assert _scanned(database, statements) == []


def test_an_event_is_accepted_without_a_look_at_other_keys_or_other_lanes(
    database: Database, inbox: Inbox, statements: list[tuple[str, Any]]
) -> None:
    inbox.accept(arrival("m1"))

    selected = [each for each in statements if each[0].startswith("SELECT")]
    assert [statement for statement, _ in selected if "FROM keys" in statement] == []
    steps = " / ".join(_plans(database, selected))
    assert "ix_deliveries_line" in steps
    assert "lane_id = lanes.id" in steps
    assert "hashed" not in steps


def test_a_record_looks_at_no_other_lanes(
    database: Database, inbox: Inbox, queue: Queue, statements: list[tuple[str, Any]]
) -> None:
    inbox.accept(arrival("m1"))
    claim = take_one(queue)
    statements.clear()

    finish(queue, claim)

    asked = [each for each in statements if each[0].startswith("SELECT lanes.id")]
    steps = " / ".join(_plans(database, asked))
    assert "ix_deliveries_line" in steps
    assert "lane_id = lanes.id" in steps
    assert "Join" not in steps
    assert "hashed" not in steps
