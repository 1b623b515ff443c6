"""The reserve of disk: what comes in stops first, then what goes out, recording last."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import arrival, finish, request, take, take_one

from relay.rules.delivery import State
from relay.store import Database, Inbox, Queue, StoreUnavailable, connect
from relay.store.sqlite import Disk
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
