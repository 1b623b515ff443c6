"""The reserve of disk: what comes in stops first, then what goes out, recording last."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fakes import Clock, arrival, eventually, finish, request, take, take_one

from relay import node
from relay.node import Pruner
from relay.rules.delivery import State
from relay.store import Database, Inbox, Queries, Queue, StoreUnavailable, connect, refused
from relay.store.prune import Pruning
from relay.store.sqlite_file import Disk
from relay.store.values import DeliveryView


@pytest.fixture
def with_reserve(path: Path) -> Iterator[Callable[[int], Database]]:
    """Open the store with a reserve of so many bytes."""
    made = []

    def with_reserve(reserve: int) -> Database:
        made.append(connect(f"sqlite:///{path}", reserve=reserve))
        return made[-1]

    yield with_reserve
    for database in made:
        database.close()


def test_below_the_reserve_nothing_is_taken_in(with_reserve: Callable[[int], Database]) -> None:
    free = shutil.disk_usage("/").free
    inbox = Inbox(with_reserve(10 * free))

    with pytest.raises(StoreUnavailable, match="disk_reserve"):
        inbox.accept(arrival("m1"))
    with pytest.raises(StoreUnavailable, match="disk_reserve"):
        inbox.refuse([request(outcome="refused")])
    inbox.close()


def test_refused_requests_stop_before_events_do(with_reserve: Callable[[int], Database]) -> None:
    inbox = Inbox(with_reserve(shutil.disk_usage("/").free * 4 // 5))

    with pytest.raises(StoreUnavailable, match="disk_reserve"):
        inbox.refuse([request(outcome="refused")])
    assert inbox.accept(arrival("m1")).standing == "accepted"
    inbox.close()


def test_below_half_of_it_nothing_is_claimed_but_what_was_done_is_recorded(
    inbox: Inbox,
    queue: Queue,
    with_reserve: Callable[[int], Database],
    delivery: Callable[..., DeliveryView],
) -> None:
    inbox.accept(arrival("m1"))
    inbox.accept(arrival("m2", to=("chat",)))
    claim = take_one(queue)
    poor = Queue(with_reserve(10 * shutil.disk_usage("/").free), node="worker-1")

    with pytest.raises(StoreUnavailable, match="disk_reserve"):
        take(poor, destination="chat")
    finish(poor, claim)

    poor.close()
    assert delivery("m1").state == State.DELIVERED


def test_what_comes_in_stops_before_what_goes_out(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    disk = Disk(tmp_path, reserve=free * 3 // 2)

    assert "MiB free" in disk.lack(share=1.0)
    assert disk.lack(share=0.5) == ""


def test_without_a_reserve_nobody_asks(tmp_path: Path) -> None:
    assert Disk(tmp_path / "is not there", reserve=0).lack(share=1.0) == ""


def test_free_pages_of_the_file_are_room_for_one_half(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    disk = Disk(tmp_path, reserve=free * 3 // 2)

    assert disk.lack(share=1.0, free_pages=lambda: free) == ""
    assert "MiB free" in disk.lack(share=1.0, free_pages=lambda: free // 4)
    # The write-ahead log finds no room.
    assert "MiB free" in disk.lack(share=2.0, free_pages=lambda: 9 * free)


def test_a_file_says_how_much_of_it_is_free(
    inbox: Inbox, database: Database, with_reserve: Callable[[int], Database]
) -> None:
    for _ in range(20):
        inbox.refuse([request(outcome="refused", body=bytes(4096)) for _ in range(100)])
    size = _file(database).stat().st_size
    poor = with_reserve(shutil.disk_usage("/").free + size // 2)
    with pytest.raises(StoreUnavailable, match="disk_reserve"):
        poor.require_room()

    with database.writing() as db:
        refused.evict(database, db, rows=0)

    poor.require_room()


def test_room_is_made_by_the_oldest_refused_requests(
    inbox: Inbox, database: Database, queries: Queries, with_reserve: Callable[[int], Database]
) -> None:
    for _ in range(20):
        inbox.refuse([request(outcome="refused", body=bytes(4096)) for _ in range(100)])
    assert database.truncate_log() == ""
    newest = [each.id for each in queries.requests()][-1]
    wanted = shutil.disk_usage("/").free + _file(database).stat().st_size // 2
    poor = with_reserve(int(wanted / refused.EVICTED_BELOW))

    gone = list(Pruning(poor).make_room())

    assert 800 < sum(gone) < 1800
    assert [each.id for each in queries.requests()][-1] == newest
    assert list(Pruning(poor).make_room()) == []


def _file(database: Database) -> Path:
    assert database.file is not None
    return database.file


def test_a_long_log_is_truncated(inbox: Inbox, database: Database) -> None:
    log = Path(f"{database.file}-wal")
    inbox.accept(arrival("m1"))

    assert database.truncate_log(above=64 << 20) == ""
    assert log.stat().st_size > 0
    assert database.truncate_log() == ""
    assert log.stat().st_size == 0


def test_the_worker_shortens_a_log_that_has_become_long(
    inbox: Inbox, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "LONGEST_LOG", 100_000)
    monkeypatch.setattr(node, "LOOK", 0.02)
    log = Path(f"{database.file}-wal")
    pruner = Pruner(
        Pruning(database),
        retention=timedelta(days=1),
        backups=timedelta(days=1),
        horizon=None,
        clock=Clock(),
        first=3600,
    )
    pruner.start()

    inbox.refuse([request(outcome="refused", body=bytes(4096)) for _ in range(50)])

    eventually(lambda: log.stat().st_size == 0)
    inbox.accept(arrival("m1"))
    assert 0 < log.stat().st_size < 100_000
    pruner.close()
