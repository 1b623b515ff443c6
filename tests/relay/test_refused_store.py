"""What is kept of refused requests: bounded, and no stranger pushes a genuine one out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from fakes import NOON

from relay.store import Database, Inbox
from relay.store.ids import new_id
from relay.store.refused import Refused, evict_oldest, shares
from relay.store.values import Request

MakeInbox = Callable[[int], Inbox]


@pytest.fixture
def inbox_of(database: Database) -> Iterator[MakeInbox]:
    made: list[Inbox] = []

    def make(keep: int) -> Inbox:
        made.append(Inbox(database, keep=keep))
        return made[-1]

    yield make
    for inbox in made:
        inbox.close()


def refused(
    remote: str | None, *, size: int = 1000, signed: bool = True, status: int = 401, at: int = 0
) -> Request:
    return Request(
        id=new_id("req"),
        at=NOON + timedelta(seconds=at),
        endpoint="/webhooks/gofax",
        method="POST",
        remote=remote,
        headers={},
        status=status,
        outcome="refused",
        reason="signature does not match the secret",
        body=b"x" * size,
        signed=signed,
        whole=True,
    )


def test_the_address_with_most_bytes_loses_its_oldest_first(
    database: Database, inbox_of: MakeInbox
) -> None:
    inbox = inbox_of(50_000)
    genuine = [refused("198.51.100.7") for _ in range(10)]
    inbox.refuse(genuine)

    strange = [refused(f"2001:db8::{number}", size=5000) for number in range(60)]
    for request in strange:
        inbox.refuse([request])

    kept = list(Refused(database).admissible())
    assert {each.id for each in genuine} <= {each.id for each in kept}
    assert 30_000 < sum(len(each.body or b"") for each in kept) <= 50_000
    assert Refused(database).evicted() == 70 - len(kept)
    left = [each.id for each in kept if each.remote != "198.51.100.7"]
    assert left == [each.id for each in strange[-len(left) :]]


def test_what_carries_no_signature_takes_no_room_from_what_does(
    database: Database, inbox_of: MakeInbox
) -> None:
    inbox = inbox_of(5_000)
    genuine = [refused("198.51.100.7") for _ in range(4)]
    inbox.refuse(genuine)

    for _ in range(10):
        inbox.refuse([refused("203.0.113.9", signed=False) for _ in range(10)])

    assert [each.id for each in Refused(database).admissible()] == [each.id for each in genuine]
    assert Refused(database).evicted() == 0


def test_a_short_disk_takes_signed_ones_when_there_are_no_others(
    database: Database, inbox_of: MakeInbox
) -> None:
    inbox_of(10**6).refuse([*(refused("a", signed=False) for _ in range(3)), *_signed()])
    gone = []
    for _ in range(4):
        with database.writing_unsynced() as db:
            gone.append(evict_oldest(database, db, 4))

    assert gone == [3, 4, 4, 2]
    assert Refused(database).evicted() == 10


def _signed() -> list[Request]:
    return [refused("198.51.100.7", at=number) for number in range(10)]


def test_requests_without_an_address_share_one_lot(
    database: Database, inbox_of: MakeInbox
) -> None:
    inbox = inbox_of(3_000)
    inbox.refuse([refused(None) for _ in range(6)])

    assert len(list(Refused(database).admissible())) == 2


@pytest.mark.parametrize("status", [405, 408, 413])
def test_what_was_cut_or_asked_for_otherwise_is_never_let_in(
    status: int, database: Database, inbox_of: MakeInbox
) -> None:
    inbox_of(10**6).refuse([refused("198.51.100.7", status=status)])

    assert list(Refused(database).admissible()) == []


def test_some_of_them_are_chosen_by_time_and_by_id(
    database: Database, inbox_of: MakeInbox
) -> None:
    made = [refused("198.51.100.7", at=second) for second in range(5)]
    inbox_of(10**6).refuse(made)
    store = Refused(database)

    def ids(**wanted: object) -> list[str]:
        return [each.id for each in store.admissible(**wanted)]  # type: ignore[arg-type]

    assert ids() == [each.id for each in made]
    assert ids(since=NOON + timedelta(seconds=1), until=NOON + timedelta(seconds=3)) == [
        each.id for each in made[1:3]
    ]
    assert ids(ids=[made[4].id, made[0].id]) == [made[0].id, made[4].id]
    assert [each.id for each in store.named(made[2].id)] == [made[2].id]
    assert store.named("req_nobody") == []


@pytest.mark.parametrize(
    ("held", "excess", "given"),
    [
        ({"a": 10}, 3, {"a": 3}),
        ({"a": 10, "b": 10}, 4, {"a": 2, "b": 2}),
        ({"a": 10, "b": 6, "c": 1}, 3, {"a": 3}),
        ({"a": 10, "b": 6, "c": 1}, 6, {"a": 5, "b": 1}),
        ({"a": 1, "b": 1}, 2, {"a": 1, "b": 1}),
    ],
)
def test_the_largest_give_first(held: dict[str, int], excess: int, given: dict[str, int]) -> None:
    assert shares(held, excess) == given
