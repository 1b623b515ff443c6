"""What a server's full-text index still holds of removed events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest
import sqlalchemy as sa
from fakes import Clock, accept, eventually, finish, take_one

from relay.node import Pruner
from relay.rules.wording import Wording
from relay.store import Database, Inbox, Queue, connect
from relay.store.prune import Pruning
from relay.store.texts import Texts

DAY = timedelta(days=1)


@pytest.fixture
def database(emptied: str) -> Iterator[Database]:
    with closing(connect(emptied)) as database:
        yield database


@pytest.fixture
def index(database: Database) -> Texts:
    return Texts(database)


def _index_all(index: Texts) -> None:
    while index.index():
        pass


def _index_path(database: Database) -> str:
    with database.reading() as db:
        return str(db.scalar(sa.text("SELECT pg_relation_filepath('ix_texts_words')")))


def _index_file(database: Database) -> bytes:
    """Return what the server has on disk of the index."""
    with psycopg.connect(database.url, autocommit=True) as db:
        db.execute("CHECKPOINT")
        read = db.execute("SELECT pg_read_binary_file(pg_relation_filepath('ix_texts_words'))")
        (content,) = read.fetchone() or (b"",)
        return bytes(content)


def test_the_worker_takes_removed_words_out_of_a_server(
    inbox: Inbox, queue: Queue, index: Texts, database: Database
) -> None:
    accept(inbox, "old", body="confidential")
    finish(queue, take_one(queue))
    _index_all(index)
    pruner = Pruner(
        Pruning(database),
        retention=90 * DAY,
        backups=7 * DAY,
        horizon=None,
        clock=Clock(database.clock() + 91 * DAY),
        first=0.0,
    )
    assert b"confidential" in _index_file(database)

    pruner.start()
    eventually(lambda: b"confidential" not in _index_file(database))
    pruner.close()

    accept(inbox, "new", body="confidential")
    _index_all(index)
    assert list(index.find(Wording.of("confidential")))  # type: ignore[arg-type]  # has a word


def test_words_are_taken_out_once_a_day_by_one_node(
    inbox: Inbox, index: Texts, database: Database, on_server: str
) -> None:
    accept(inbox, "m1", "m2", body="confidential")
    _index_all(index)
    list(index.rebuild())
    with database.writing() as db:
        index.remove(db, [1, *range(10_000)])
    before = _index_path(database)

    with psycopg.connect(on_server, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('rebuild texts', 0))")
        list(index.rebuild())
        assert _index_path(database) == before
    list(index.rebuild(every=DAY))
    after = _index_path(database)
    list(index.rebuild(every=DAY))

    assert before != after == _index_path(database)


def test_a_worker_that_stops_does_not_wait_for_the_server(
    inbox: Inbox, index: Texts, database: Database
) -> None:
    accept(inbox, "m1", body="confidential")
    _index_all(index)
    with database.writing() as db:
        index.remove(db, range(10_000))

    with psycopg.connect(database.url) as other:
        other.execute("LOCK texts IN ACCESS EXCLUSIVE MODE")
        steps = index.rebuild()
        next(steps)
        steps.close()

    before = _index_path(database)
    list(index.rebuild())
    assert _index_path(database) != before
