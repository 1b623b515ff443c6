"""The processes of the relay: whatever hangs, they end in time and leave nothing in doubt."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import site_of_nodes
from fakes import eventually
from site_of_nodes import PATIENCE, Flow, Site

#: Seconds in which docs/operating.md says that a process ends.
PROMISED = 10.0


@pytest.fixture
def system() -> Iterator[Flow]:
    with site_of_nodes.flow() as made:
        yield made


@pytest.fixture
def site(tmp_path: Path, system: Flow) -> Iterator[Site]:
    made = Site(tmp_path, store="sqlite:///relay.db", flow=system.url)
    yield made
    made.close()


def test_a_worker_finishes_what_runs_when_it_is_told_to_stop(site: Site, system: Flow) -> None:
    site.serve("web")
    for number in (signal.SIGTERM, signal.SIGHUP):
        names = [*system.names, number.name]
        system.answering.clear()
        worker = site.start("work")
        assert site.post(number.name, customer=f"+6140000000{number}") == "accepted"
        eventually(lambda names=names: system.names == names, seconds=PATIENCE)

        worker.send_signal(number)
        system.answering.set()

        assert worker.wait(PROMISED) == 0
    assert site.said().count('"left_to_their_leases":0') == 2
    assert site.run("doctor").returncode == 0


@pytest.mark.slow
def test_a_worker_ends_in_time_although_connector_and_store_hang(
    site: Site, system: Flow, tmp_path: Path
) -> None:
    site.serve("web")
    system.answering.clear()
    worker = site.start("work")
    assert site.post("m1") == "accepted"
    eventually(lambda: system.names == ["m1"], seconds=PATIENCE)

    with closing(sqlite3.connect(tmp_path / "relay.db", isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        worker.terminate()

        assert worker.wait(PROMISED) == 0
