"""Group commit: many callers, few commits, and each caller's own result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import eventually
from structlog.testing import capture_logs

from relay.store.group_commit import Closed, GroupCommit


class Away(Exception):
    """What the tests' groups share."""


class Committer:
    """Doubles numbers, and holds its first batch until it is told to go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.faults: dict[int, Exception] = {}

    def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        assert self.go.wait(30)
        for item in items:
            if item in self.faults:
                raise self.faults[item]
        return [2 * item for item in items]


@pytest.fixture
def commit() -> Committer:
    return Committer()


@pytest.fixture
def together(commit: Committer) -> Iterator[Callable[..., list[int | BaseException]]]:
    """Submit 0 alone, then the numbers given as they all wait behind it."""
    groups = []

    def together(*numbers: int, limit: int = 256) -> list[int | BaseException]:
        group = GroupCommit(commit, name="test", shared=Away, limit=limit)
        groups.append(group)
        with ThreadPoolExecutor(len(numbers) + 1) as callers:
            first = callers.submit(group.submit, 0)
            eventually(lambda: commit.batches)
            rest = []
            for position, number in enumerate(numbers, 1):
                rest.append(callers.submit(group.submit, number))
                eventually(lambda position=position: group._waiting.qsize() == position)
            commit.go.set()
        assert first.result() == 0
        return [each.exception() or each.result() for each in rest]

    yield together
    commit.go.set()
    for group in groups:
        group.close()


def test_a_single_item_is_committed_at_once() -> None:
    group: GroupCommit[int, int] = GroupCommit(
        lambda items: [item + 1 for item in items], name="test", shared=Away
    )

    assert group.submit(3) == 4

    group.close()


def test_items_that_gather_during_a_commit_share_the_next_one_in_their_order(
    commit: Committer, together: Callable[..., list[int | BaseException]]
) -> None:
    results = together(3, 1, 2)

    assert commit.batches == [[0], [3, 1, 2]]
    assert results == [6, 2, 4]


def test_a_batch_is_never_longer_than_the_limit(
    commit: Committer, together: Callable[..., list[int | BaseException]]
) -> None:
    results = together(1, 2, 3, 4, 5, limit=2)

    assert commit.batches == [[0], [1, 2], [3, 4], [5]]
    assert results == [2, 4, 6, 8, 10]


def test_an_item_that_cannot_be_committed_does_its_neighbours_no_harm(
    commit: Committer, together: Callable[..., list[int | BaseException]]
) -> None:
    commit.faults[2] = fault = ValueError("not this one")

    results = together(1, 2, 3)

    assert results == [2, fault, 6]


def test_an_error_that_is_everybodys_reaches_everybody_and_nothing_is_tried_alone(
    commit: Committer, together: Callable[..., list[int | BaseException]]
) -> None:
    commit.faults[2] = away = Away()

    results = together(1, 2, 3)

    assert results == [away, away, away]
    assert commit.batches == [[0], [1, 2, 3]]


def test_a_group_goes_on_after_errors(commit: Committer) -> None:
    commit.faults |= {1: Away(), 2: ValueError("no")}
    commit.go.set()
    group = GroupCommit(commit, name="test", shared=Away)

    for number, error in commit.faults.items():
        with pytest.raises(type(error)):
            group.submit(number)

    assert group.submit(3) == 6
    group.close()


def test_a_callback_that_fails_keeps_nothing_from_its_neighbours(commit: Committer) -> None:
    group = GroupCommit(commit, name="test", shared=Away, patience=20)
    told: list[BaseException | None] = []

    def fail(error: BaseException | None) -> None:
        raise KeyError("a bug in the callback")

    with capture_logs() as logs:
        group.submit_later(0, fail)
        eventually(lambda: commit.batches)
        group.submit_later(1, fail)
        group.submit_later(2, told.append)
        eventually(lambda: group._waiting.qsize() == 2)
        commit.go.set()
        eventually(lambda: told)

    assert told == [None]
    assert group.submit(3) == 6
    assert [line["event"] for line in logs] == ["commit.not_told"] * 2
    group.close()


def test_close_commits_what_was_submitted_and_then_takes_no_more(commit: Committer) -> None:
    group = GroupCommit(commit, name="test", shared=Away)
    with ThreadPoolExecutor(5) as callers:
        results = [callers.submit(group.submit, 0)]
        eventually(lambda: commit.batches)
        results += [callers.submit(group.submit, number) for number in (1, 2, 3)]
        eventually(lambda: group._waiting.qsize() == 3)
        closing = callers.submit(group.close)
        eventually(lambda: group._closed)
        commit.go.set()

    assert closing.exception() is None
    assert [each.result() for each in results] == [0, 2, 4, 6]
    with pytest.raises(Closed):
        group.submit(4)


def test_a_group_can_be_closed_twice() -> None:
    group: GroupCommit[int, int] = GroupCommit(lambda items: items, name="test", shared=Away)

    group.close()
    group.close()


def test_every_one_of_many_callers_gets_its_own_result() -> None:
    batches: list[int] = []

    def commit(items: Sequence[int]) -> Sequence[int]:
        batches.append(len(items))
        return [item * 10 for item in items]

    group = GroupCommit(commit, name="test", shared=Away, limit=8)
    with ThreadPoolExecutor(32) as callers:
        results = list(callers.map(group.submit, range(2000)))
    group.close()

    assert results == [number * 10 for number in range(2000)]
    assert sum(batches) == 2000
    assert max(batches) <= 8


def test_those_in_line_are_turned_away_with_whom_the_database_failed(commit: Committer) -> None:
    group = GroupCommit(commit, name="test", shared=Away)
    commit.faults[0] = Away()
    with ThreadPoolExecutor(3) as callers:
        first = callers.submit(group.submit, 0)
        eventually(lambda: commit.batches)
        others = [callers.submit(group.submit, number) for number in (1, 2)]
        eventually(lambda: group._waiting.qsize() == 2)
        commit.go.set()

    assert [type(each.exception()) for each in (first, *others)] == [Away] * 3
    assert commit.batches == [[0]]
    assert group.submit(3) == 6
    group.close()
