"""The write lock: one at a time, in turn, and nobody waits for ever."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import eventually

from relay.store.database import StoreUnavailable
from relay.store.write_lock import FileLock, WriteLock


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def stranger(path: Path) -> Iterator[int]:
    """Another process's hold on the lock: flock belongs to what was opened, not to the process."""
    file = _open(path)
    fcntl.flock(file, fcntl.LOCK_EX)
    yield file
    os.close(file)


def _is_free(path: Path) -> bool:
    file = _open(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def test_a_lock_is_held_and_given_back(path: Path) -> None:
    lock = WriteLock(_open(path))

    with lock:
        assert not _is_free(path)

    assert _is_free(path)
    lock.close()


def test_who_is_kept_waiting_for_too_long_is_told(path: Path, stranger: int) -> None:
    lock = WriteLock(_open(path), patience=0.05)

    with pytest.raises(StoreUnavailable, match="another process"), lock:
        pass

    fcntl.flock(stranger, fcntl.LOCK_UN)
    eventually(lambda: _is_free(path))
    with lock:
        pass
    lock.close()


def test_a_lock_that_comes_free_in_time_is_taken(path: Path, stranger: int) -> None:
    lock = FileLock(_open(path))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lock.acquire, 30)
        eventually(lambda: lock._waiter is not None)
        fcntl.flock(stranger, fcntl.LOCK_UN)

        assert waiting.result() is True

    assert not _is_free(path)
    lock.release()
    lock.close()


def test_one_thread_stands_in_line_however_often_somebody_gives_up(
    path: Path, stranger: int
) -> None:
    before = threading.active_count()
    lock = FileLock(_open(path))

    assert not any(lock.acquire(0.001) for _ in range(5))

    assert threading.active_count() == before + 1
    fcntl.flock(stranger, fcntl.LOCK_UN)
    eventually(lambda: _is_free(path))
    assert lock.acquire(5)
    lock.close()


def test_another_thread_of_the_process_waits_no_longer_either(path: Path) -> None:
    lock = WriteLock(_open(path), patience=0.05)

    with lock, ThreadPoolExecutor(1) as pool:
        error = pool.submit(lock.__enter__).exception()

    assert isinstance(error, StoreUnavailable)
    with lock:
        pass
    lock.close()


def test_many_threads_of_two_locks_never_hold_it_together(path: Path) -> None:
    locks = [WriteLock(_open(path)) for _ in range(2)]
    inside, worst = [], []

    def write(number: int) -> None:
        for _ in range(30):
            with locks[number % 2]:
                inside.append(number)
                worst.append(len(inside))
                inside.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))

    assert max(worst) == 1
    assert len(worst) == 240
    for lock in locks:
        lock.close()
