"""The processes of the relay: whatever hangs, they end in time and leave nothing in doubt."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fakes import eventually
from site_of_nodes import PATIENCE, Flow, Site

#: Seconds in which docs/hosting.md says that a process ends.
PROMISED = 10.0


@pytest.mark.slow
def test_a_worker_finishes_what_runs_when_it_is_told_to_stop(site: Site, system: Flow) -> None:
    site.serve("web")
    for number in (signal.SIGTERM, signal.SIGINT):
        names = [*system.names, number.name]
        system.answering.clear()
        worker = site.start("work")
        assert site.post(number.name, customer=f"+6140000000{number}") == "accepted"
        eventually(lambda names=names: system.names == names, seconds=PATIENCE)

        worker.send_signal(number)
        system.answering.set()

        assert worker.wait(PROMISED) == 0
    assert site.said().count('"left_to_their_leases":0') == 2
    doctor = site.run("doctor")
    # Degraded, because no worker runs any more; by nothing else.
    assert (doctor.returncode, doctor.stdout.count("!! ")) == (3, 2), doctor.stdout


@pytest.mark.slow
def test_a_system_that_answers_again_gets_at_once_what_waited(
    tmp_path: Path, system: Flow
) -> None:
    site = Site(tmp_path, store="sqlite:///relay.db", flow=system.url, schedule="1d")
    try:
        site.serve()
        system.status = 408
        for number in range(5):
            assert site.post(f"m{number}", customer=f"+6140000000{number}") == "accepted"
        eventually(lambda: len(system.names) == 5, seconds=PATIENCE)

        system.status = 204
        eventually(lambda: _all_wait(site), seconds=PATIENCE)
        assert site.post("new", customer="+61400000009") == "accepted"

        eventually(lambda: len(system.names) == 11, seconds=PATIENCE)
        assert sorted(system.names[5:]) == ["m0", "m1", "m2", "m3", "m4", "new"]
    finally:
        site.close()


def _all_wait(site: Site) -> bool:
    return {each["state"] for event in site.listed("events") for each in event["deliveries"]} == {
        "pending"
    }


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
