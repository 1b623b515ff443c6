"""The pipe by which receivers wake the workers of a SQLite store."""

from __future__ import annotations

import stat
import threading
import time
from pathlib import Path

import pytest
from fakes import Scripted, arrival, destination, eventually

from relay.leases import Intervals
from relay.store import Inbox, Queue, connect, schema
from relay.store.wake_pipe import PipeListener, notify
from relay.worker import Worker


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    return tmp_path / "relay.db.wake"


def test_a_listener_is_woken(pipe: Path) -> None:
    woken = threading.Event()
    listener = PipeListener(pipe, woken.set)

    notify(pipe)

    assert woken.wait(20)
    listener.close()
    assert stat.S_IMODE(pipe.stat().st_mode) == 0o600


def test_without_a_listener_nothing_happens(pipe: Path) -> None:
    notify(pipe)

    assert not pipe.exists()

    PipeListener(pipe, lambda: None).close()
    notify(pipe)


def test_more_than_a_pipe_holds_blocks_nobody(pipe: Path) -> None:
    go_on, times = threading.Event(), []

    def wake() -> None:
        times.append(time.monotonic())
        go_on.wait(20)

    listener = PipeListener(pipe, wake)
    for _ in range(70_000):
        notify(pipe)
    go_on.set()

    eventually(lambda: len(times) >= 2)
    listener.close()


def test_one_that_waits_is_closed_at_once(pipe: Path) -> None:
    listener = PipeListener(pipe, lambda: None)
    time.sleep(0.05)

    begun = time.monotonic()
    listener.close()

    assert time.monotonic() - begun < 2


def test_the_next_listener_takes_over(pipe: Path) -> None:
    PipeListener(pipe, lambda: None).close()
    woken = threading.Event()
    listener = PipeListener(pipe, woken.set)

    notify(pipe)

    assert woken.wait(20)
    listener.close()


def test_a_file_of_that_name_is_left_alone(pipe: Path) -> None:
    pipe.write_text("somebody's")

    listener = PipeListener(pipe, lambda: None)
    notify(pipe)
    listener.close()

    assert pipe.read_text() == "somebody's"


def test_an_accepted_event_wakes_the_worker_of_another_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/relay.db"
    receiving, working = connect(url), connect(url)
    schema.metadata.create_all(receiving.engine)
    crm, inbox, queue = Scripted(), Inbox(receiving), Queue(working, node="worker-1")
    never = Intervals(poll=60.0)
    worker = Worker({"crm": destination("crm", crm)}, queue, intervals=never)
    listener = working.listen(worker.wake)
    thread = threading.Thread(target=worker.run)
    thread.start()
    time.sleep(0.2)  # it has found nothing to do

    inbox.accept(arrival("m1"))

    eventually(lambda: crm.calls)
    worker.stop()
    thread.join(20)
    listener.close()
    worker.drain(20)
    for each in (inbox, queue, worker, receiving, working):
        each.close()
