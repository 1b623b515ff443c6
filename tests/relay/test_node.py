"""Names of workers: never two with one name, and a name is free as soon as its bearer is dead."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes import eventually

from relay.config import installed
from relay.config.load import load
from relay.node import Heartbeat, NodeSlot
from relay.store import Database
from relay.store.nodes import Nodes
from relay.store.sqlite_file import is_used

ROOT = Path(__file__).parents[2]

BEARER = """
import pathlib, sys
from relay.node import NodeSlot
slot = NodeSlot(pathlib.Path(sys.argv[1]))
print(slot.name, flush=True)
sys.stdin.read()
"""


@contextmanager
def _bearer(store: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a process that takes a name, and give that."""
    with subprocess.Popen(
        [sys.executable, "-c", BEARER, str(store)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        yield process.stdout.readline().strip(), process
        process.kill()


@pytest.mark.slow
def test_workers_at_one_store_have_different_names(tmp_path: Path) -> None:
    store = tmp_path / "relay.db"

    with _bearer(store) as (first, _), _bearer(store) as (second, _):
        assert (first, second) == ("worker-1", "worker-2")


@pytest.mark.slow
def test_a_worker_that_is_killed_leaves_its_name_to_the_next(tmp_path: Path) -> None:
    store = tmp_path / "relay.db"

    with _bearer(store) as (first, process):
        process.kill()
        process.wait(30)

    with _bearer(store) as (second, _):
        assert first == second == "worker-1"


@pytest.mark.slow
def test_stores_beside_each_other_do_not_share_names(tmp_path: Path) -> None:
    with _bearer(tmp_path / "a.db") as (first, _), _bearer(tmp_path / "b.db") as (second, _):
        assert first == second == "worker-1"


def test_a_name_that_is_given_back_while_it_is_taken_is_not_taken_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "relay.db"
    first = NodeSlot(store)
    lock = fcntl.flock

    def lock_later(file: int, how: int) -> None:
        """Lock it as soon as the first has given it back, and not only when it still has it."""
        monkeypatch.setattr(fcntl, "flock", lock)
        first.close()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", lock_later)
    second = NodeSlot(store)

    assert is_used(store)
    third = NodeSlot(store)
    assert second.name != third.name
    for each in (second, third):
        each.close()
    assert not is_used(store)


def test_a_node_says_that_its_file_is_newer_than_what_it_runs(
    database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("endpoints: [{path: /hook, allow_unsigned: true}]\n")
    config = load(file, find_connector=installed.find)
    nodes = Nodes(database)
    heartbeat = Heartbeat(database, name="a", role="worker", config=config, seconds=0.05)

    def is_outdated() -> bool:
        return any(view.node is not None and view.node.is_outdated for view in nodes.nodes())

    heartbeat.start()
    eventually(nodes.nodes)
    assert not is_outdated()
    later = file.stat().st_mtime + 1
    os.utime(file, (later, later))
    eventually(is_outdated)
    heartbeat.close()
