"""What processes count stays, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from relay.telling.counts import PAGE, PAGES, Counts
from relay.telling.metrics import Metrics

KEY = ("gofax_relay_requests_total", "gofax", "200", "accepted")
BUSY = ("gofax_relay_threads_used", "web", "")


def answer(metrics: Metrics, times: int = 1) -> None:
    for _ in range(times):
        metrics.answered("gofax", 200, "accepted", 0.01)


class Children:
    """Processes that are forked, and do not outlive a test."""

    def __init__(self) -> None:
        self._alive: set[int] = set()

    def start(self, act: Callable[[], object]) -> int:
        """Start a process that acts and then lives on; return its id when it has acted."""
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                act()
                os.write(writing, b"1")
                signal.pause()
            finally:
                os._exit(0)
        self._alive.add(pid)
        os.close(writing)
        assert os.read(reading, 1) == b"1"
        os.close(reading)
        return pid

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self._alive.remove(pid)

    def close(self) -> None:
        for pid in list(self._alive):
            self.kill(pid)


@pytest.fixture
def children() -> Iterator[Children]:
    children = Children()
    yield children
    children.close()


def test_processes_that_live_at_the_same_time_add_up(children: Children) -> None:
    counts = Counts()
    answer(Metrics(counts.page()))

    pid = children.start(lambda: answer(Metrics(counts.page()), 2))

    assert counts.total()[KEY] == [3]
    children.kill(pid)
    assert counts.total()[KEY] == [3]


def test_the_next_process_goes_on_where_a_killed_one_was(children: Children) -> None:
    counts = Counts()

    for _ in range(3 * PAGES):
        children.kill(children.start(lambda: answer(Metrics(counts.page()))))

    assert counts.total()[KEY] == [3 * PAGES]


def test_what_a_killed_process_was_at_is_not_going_on(children: Children) -> None:
    counts = Counts()
    held = []

    def serve() -> None:
        held.append(Metrics(counts.page()).serving)
        held[0].__enter__()

    pid = children.start(serve)
    assert counts.total()[BUSY] == [1]
    children.kill(pid)

    assert BUSY not in counts.total()
    children.start(lambda: Metrics(counts.page()))
    assert counts.total()[BUSY] == [0]


def test_more_processes_than_there_is_room_for_harm_nobody(children: Children) -> None:
    counts = Counts()

    for _ in range(PAGES + 1):
        children.start(lambda: answer(Metrics(counts.page())))

    assert counts.total()[KEY] == [PAGES]


def test_more_series_than_there_is_room_for_harm_nobody() -> None:
    page = Counts().page()
    long = "x" * 1000

    for number in range(2 * PAGE // len(long)):
        page.find((long, str(number))).add()

    assert PAGE // 2000 < len(list(page.series())) < PAGE // len(long)
    assert {tuple(series.values()) for series in page.series()} == {(1.0,)}


def test_threads_lose_no_count() -> None:
    counts = Counts()
    metrics = Metrics(counts.page())
    threads = [threading.Thread(target=answer, args=(metrics, 5000)) for _ in range(8)]

    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert counts.total()[KEY] == [40_000]
    *buckets, total = counts.total()["gofax_relay_accept_seconds", "gofax"]
    assert sum(buckets) == 40_000
    assert total == pytest.approx(400)


def test_who_executes_itself_anew_keeps_what_was_counted() -> None:
    counts = Counts()
    answer(Metrics(counts.page()), 4)

    assert Counts(os.dup(counts.descriptor)).total()[KEY] == [4]
