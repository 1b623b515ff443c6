"""Refusals: noted after the answer, sampled in a flood, never in the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from fakes import NOON, eventually, locked, request
from structlog.testing import capture_logs

from relay import every, refused
from relay.refused import KEPT_PER_WRITE, LOGGED_EACH, LOGGED_TOGETHER, Refusals, Sample, Signed
from relay.store import Database, Inbox, Queries, StoreUnavailable
from relay.store.values import Request


class Keeper:
    """Keeps what it is given; *go* holds it up, *error* makes it fail."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.go = threading.Event()
        self.error: Exception | None = None
        self.go.set()

    def __call__(self, requests: Sequence[Request]) -> None:
        self.writes.append([each.id for each in requests])
        assert self.go.wait(30)
        if self.error:
            raise self.error

    @property
    def kept(self) -> list[str]:
        return [each for write in self.writes for each in write]


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def refusals(keeper: Keeper) -> Iterator[Refusals]:
    refusals = Refusals(keeper)
    yield refusals
    keeper.go.set()
    refusals.close()


def _refused(name: str, *, reason: str = "no signature") -> Request:
    return request(id=name, status=401, outcome="refused", reason=reason)


def test_a_refused_request_is_written_soon(refusals: Refusals, keeper: Keeper) -> None:
    refusals.note(_refused("r1"))

    eventually(lambda: keeper.writes == [["r1"]])


def test_noting_never_waits_for_the_store(refusals: Refusals, keeper: Keeper) -> None:
    keeper.go.clear()
    refusals.note(_refused("r1"))
    eventually(lambda: keeper.writes)

    for number in range(1000):
        refusals.note(_refused(f"more {number}"))

    assert keeper.writes == [["r1"]]


def test_a_flood_is_sampled_and_the_rest_is_counted_by_status(
    refusals: Refusals, keeper: Keeper
) -> None:
    keeper.go.clear()
    refusals.note(_refused("r1"))
    eventually(lambda: keeper.writes)
    for number in range(KEPT_PER_WRITE):
        refusals.note(_refused(f"kept {number}"))
    for number in range(30):
        refusals.note(_refused("not kept", reason=f"what a stranger wrote {number}"))

    with capture_logs() as logs:
        keeper.go.set()
        eventually(lambda: len(keeper.writes) == 2)

    assert keeper.writes[1] == [f"kept {number}" for number in range(KEPT_PER_WRITE)]
    assert logs == [
        {
            "event": "requests.not_kept",
            "log_level": "warning",
            "count": 30,
            "statuses": {"401": 30},
        }
    ]


def test_what_is_waiting_at_the_end_is_written(keeper: Keeper) -> None:
    refusals = Refusals(keeper)
    for number in range(5):
        refusals.note(_refused(f"r{number}"))

    refusals.close()

    assert keeper.kept == [f"r{number}" for number in range(5)]


def test_nothing_to_write_is_not_written(keeper: Keeper) -> None:
    refusals = Refusals(keeper)

    refusals.close()

    assert keeper.writes == []


def test_a_store_that_is_away_loses_the_sample_and_not_the_thread(
    refusals: Refusals, keeper: Keeper
) -> None:
    keeper.error = StoreUnavailable("the disk is full")
    with capture_logs() as logs:
        refusals.note(_refused("lost"))
        eventually(lambda: logs)
    keeper.error = None

    refusals.note(_refused("kept"))

    eventually(lambda: keeper.kept[-1:] == ["kept"])
    assert [(each["event"], each["count"]) for each in logs] == [("requests.not_kept", 1)]


def test_an_unexpected_error_loses_the_sample_and_not_the_thread(
    refusals: Refusals, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(every, "AFTER_ERROR", 0.001)
    keeper.error = KeyError("a bug")
    with capture_logs() as logs:
        refusals.note(_refused("lost"))
        eventually(lambda: logs)
    keeper.error = None

    refusals.note(_refused("kept"))

    eventually(lambda: keeper.kept[-1:] == ["kept"])
    assert [(each["event"], each["loop"]) for each in logs] == [("loop.failed", "refusals")]


def test_a_sample_is_whole_though_many_threads_note(keeper: Keeper) -> None:
    refusals = Refusals(keeper)

    def note(part: int) -> None:
        for number in range(10):
            refusals.note(_refused(f"{part}-{number}"))

    threads = [threading.Thread(target=note, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refusals.close()

    everything = {f"{part}-{number}" for part in range(8) for number in range(10)}
    assert len(keeper.kept) == len(set(keeper.kept))
    assert set(keeper.kept) == everything  # fewer than one write may keep


def test_refused_requests_reach_the_store(
    inbox: Inbox, database: Database, queries: Queries
) -> None:
    refusals = Refusals(inbox.refuse)
    noted = _refused("r1")
    refusals.note(noted)
    eventually(lambda: list(queries.requests()) == [noted])

    with locked(database), capture_logs() as logs:
        refusals.note(_refused("lost"))
        eventually(lambda: logs)
    refusals.note(_refused("r2"))
    refusals.close()

    assert [each.id for each in queries.requests()] == ["r1", "r2"]


class TestSample:
    """Which refusals of a flood are logged."""

    def test_the_first_of_each_second_are(self) -> None:
        sample = Sample()

        taken = [sample.takes("a", 401, 7 + number / 10) for number in range(20)]

        assert taken == ([True] * LOGGED_EACH + [False] * (10 - LOGGED_EACH)) * 2

    def test_each_address_and_status_has_its_own(self) -> None:
        sample = Sample()
        for _ in range(50):
            sample.takes("a", 401, 7.0)

        assert sample.takes("b", 401, 7.0)
        assert sample.takes("a", 413, 7.0)

    def test_the_others_are_counted_once_when_the_second_is_over(self) -> None:
        sample = Sample()
        for _ in range(LOGGED_EACH + 20):
            sample.takes("a", 401, 7.5)

        assert sample.left_out(7.9) == {}
        assert sample.is_more
        assert sample.left_out(8.0) == {("a", 401): 20}
        assert sample.left_out(8.0) == {}
        assert not sample.is_more

    def test_a_flood_from_many_addresses_is_bounded_too(self) -> None:
        sample = Sample()

        taken = sum(sample.takes(f"a{number}", 401, 7.0) for number in range(5000))

        left_out = sample.left_out(8.0)
        assert taken == LOGGED_TOGETHER
        assert left_out.total() == 5000 - taken
        assert len(left_out) == LOGGED_TOGETHER + 1


def test_the_log_counts_what_has_no_line(refusals: Refusals) -> None:
    with capture_logs() as logs:
        logged = sum(refusals.is_logged(_refused(f"r{number}")) for number in range(500))
        eventually(lambda: sum(_counts(logs)) == 500 - logged, seconds=5)

    # Two seconds or more begin meanwhile on a slow machine.
    assert LOGGED_EACH <= logged < 500
    assert logs[0]["statuses"].keys() == {"401"}


def _counts(logs: Sequence[MutableMapping[str, Any]]) -> list[int]:
    return [line["count"] for line in logs if line["event"] == "requests.not_logged"]


def test_the_log_counts_at_the_end_too(keeper: Keeper) -> None:
    refusals = Refusals(keeper)
    with capture_logs() as logs:
        logged = sum(refusals.is_logged(_refused(f"r{number}")) for number in range(100))
        refusals.close()

    assert sum(_counts(logs)) == 100 - logged > 0


def signed_request(number: int, remote: str = "198.51.100.7", *, signed: bool = True) -> Request:
    return Request(
        id=f"req_{number}",
        at=NOON + timedelta(seconds=number),
        endpoint="/hook",
        method="POST",
        remote=remote,
        headers={},
        status=503,
        outcome="refused",
        body=b"x" * 1000,
        signed=signed,
        whole=signed,
    )


def test_signed_requests_wait_for_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused, "AGAIN", 0.01)
    kept: list[str] = []
    tried: set[str] = set()

    def keep(requests: Sequence[Request]) -> None:
        is_away = "req_9" not in tried
        tried.update(each.id for each in requests)
        if is_away:
            raise StoreUnavailable("away")
        kept.extend(each.id for each in requests)

    with closing(Refusals(keep)) as refusals:
        for number in range(3):
            refusals.note(signed_request(number))
        refusals.note(signed_request(9, signed=False))
        eventually(lambda: kept)

    assert kept == ["req_0", "req_1", "req_2"]


def test_who_waits_with_most_bytes_gives_way() -> None:
    held = Signed(room=10_000)
    gone = [*held.add(signed_request(0)), *held.add(signed_request(1))]
    for number in range(2, 12):
        gone += held.add(signed_request(number, remote=f"2001:db8::{number}"))

    left = held.take()

    assert [each.id for each in left[:2]] == ["req_0", "req_1"]
    assert len(gone) + len(left) == 12
    assert [each.id for each in gone] == [f"req_{number}" for number in range(2, 2 + len(gone))]
    assert held.take() == []
