"""A store that is removed or exchanged under a running relay: nobody is told 200 any more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from fakes import accept, take
from structlog.testing import capture_logs

from relay import migrations
from relay.node import NodeSlot
from relay.store import Database, Inbox, Queries, Queue, StoreUnavailable, connect

GONE = "relay.db was removed or exchanged"


@pytest.fixture
def other(tmp_path: Path, migrated: Path) -> Path:
    """Another store, with an event in it."""
    file = tmp_path / "other.db"
    file.write_bytes(migrated.read_bytes())
    with closing(connect(f"sqlite:///{file}")) as database, closing(Inbox(database)) as inbox:
        accept(inbox, "another")
    return file


@pytest.fixture
def node(path: Path) -> Iterator[ExitStack]:
    """What a node holds that uses the store, until it is closed."""
    with ExitStack() as held:
        # A lock goes with the process, for which there is no method.
        held.callback(os.close, NodeSlot(path)._file)
        yield held


def _assert_nothing_is_taken(inbox: Inbox, queue: Queue) -> None:
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=GONE):
            accept(inbox, "m2")
        with pytest.raises(StoreUnavailable, match=GONE):
            take(queue)


def test_a_removed_store_takes_nothing_and_is_not_made_anew(
    inbox: Inbox, queue: Queue, database: Database, path: Path
) -> None:
    accept(inbox, "m1")
    path.unlink()

    with capture_logs() as logs:
        _assert_nothing_is_taken(inbox, queue)
        database.engine.dispose()
        _assert_nothing_is_taken(inbox, queue)

    assert [line["event"] for line in logs if line["event"] == "store.gone"] == ["store.gone"]
    assert not path.exists()


def test_an_exchanged_store_takes_nothing_and_is_not_written_to(
    inbox: Inbox, queue: Queue, database: Database, path: Path, other: Path
) -> None:
    accept(inbox, "m1")
    other.replace(path)
    before = path.read_bytes()

    _assert_nothing_is_taken(inbox, queue)
    database.engine.dispose()
    _assert_nothing_is_taken(inbox, queue)

    assert path.read_bytes() == before


def test_an_event_whose_store_went_during_its_commit_is_not_acknowledged(
    inbox: Inbox, database: Database, path: Path
) -> None:
    accept(inbox, "m1")
    sa.event.listen(database.engine, "commit", lambda _: path.unlink(), once=True)

    with pytest.raises(StoreUnavailable, match=GONE):
        accept(inbox, "m2")


def test_a_store_that_is_put_back_goes_on(
    inbox: Inbox, queries: Queries, path: Path, tmp_path: Path
) -> None:
    accept(inbox, "m1")
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match=GONE):
        accept(inbox, "m2")

    (tmp_path / "elsewhere").rename(path)
    accept(inbox, "m2")

    assert [view.event.message_id for view in queries.events()] == ["m1", "m2"]


def test_beside_running_nodes_no_store_is_made_until_theirs_is_back(
    database: Database, node: ExitStack, path: Path, tmp_path: Path
) -> None:
    with database.reading():
        path.rename(tmp_path / "elsewhere")

    with closing(connect(f"sqlite:///{path}")) as beside:
        with pytest.raises(StoreUnavailable, match=GONE):
            migrations.upgrade(beside)
        assert not path.exists()

        (tmp_path / "elsewhere").rename(path)
        migrations.upgrade(beside)


def test_beside_running_nodes_no_other_store_is_opened_until_they_end(
    database: Database, node: ExitStack, path: Path, other: Path
) -> None:
    other.replace(path)

    with (
        closing(connect(f"sqlite:///{path}")) as beside,
        pytest.raises(StoreUnavailable, match=GONE),
    ):
        migrations.upgrade(beside)

    node.close()
    with closing(connect(f"sqlite:///{path}")) as later:
        migrations.upgrade(later)
        [view] = Queries(later).events()
    assert view.event.message_id == "another"
