"""Several processes that receive at one port."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest
from fakes import eventually
from site_of_nodes import PATIENCE, Flow, Site
from stream import Stream


def receive_with(site: Site, workers: int) -> None:
    path = site.folder / "config.yaml"
    text = path.read_text()
    assert "server: {" in text
    path.write_text(text.replace("server: {", f"server: {{workers: {workers}, "))


def receivers(site: Site) -> dict[str, int]:
    """Return the processes that receive, by the names of their nodes."""
    nodes = map(json.loads, site.run("nodes", "--json").stdout.splitlines())
    return {
        each["name"]: each["pid"]
        for each in nodes
        if each["role"] == "web" and each["state"] == "alive"
    }


@pytest.mark.slow
def test_one_that_is_killed_leaves_its_name_to_the_next_and_loses_nothing(
    site: Site, system: Flow
) -> None:
    receive_with(site, 2)
    site.serve()
    eventually(lambda: len(receivers(site)) == 2, seconds=PATIENCE)
    before = receivers(site)

    with Stream(site.port, per_second=50) as stream:
        eventually(lambda: len(stream.answers) > 50, seconds=PATIENCE)
        os.kill(before["web-2"], signal.SIGKILL)
        eventually(
            lambda: receivers(site).get("web-2") not in (None, before["web-2"]), seconds=PATIENCE
        )
        counted = len(stream.answers)
        eventually(lambda: len(stream.answers) > counted + 50, seconds=PATIENCE)

    after = receivers(site)
    assert after.keys() == before.keys() == {"web-1", "web-2"}
    assert after["web-1"] == before["web-1"]
    assert len(stream.accepted) > 100
    eventually(lambda: stream.accepted <= set(system.names), seconds=PATIENCE)


def counted(site: Site) -> dict[str, int]:
    """Return how often the relay has said what it serves."""
    said = [json.loads(line) for line in site.said().splitlines()]
    about = [(each["event"], each.get("url", "")) for each in said]
    return {
        event + url: about.count((event, url))
        for event, url in about
        if event in ("web.started", "endpoint.served")
    }


@pytest.mark.slow
def test_what_is_served_is_said_once_for_all_at_the_start_and_at_a_reload(site: Site) -> None:
    receive_with(site, 2)
    site.serve()
    eventually(lambda: len(receivers(site)) == 2, seconds=PATIENCE)
    at_start = counted(site)
    before = receivers(site)
    os.kill(before["web-2"], signal.SIGKILL)
    eventually(
        lambda: receivers(site).get("web-2") not in (None, before["web-2"]), seconds=PATIENCE
    )
    after_a_death = counted(site)

    assert site.run("reload").returncode == 0

    assert len(at_start) > 1
    assert set(at_start.values()) == {1}
    assert after_a_death == at_start
    eventually(lambda: counted(site) == dict.fromkeys(at_start, 2), seconds=PATIENCE)


@pytest.mark.slow
def test_a_reload_changes_how_many_there_are_and_refuses_nobody(site: Site, system: Flow) -> None:
    site.serve()
    eventually(lambda: len(receivers(site)) == 1, seconds=PATIENCE)

    with Stream(site.port, per_second=50) as stream:
        eventually(lambda: len(stream.answers) > 25, seconds=PATIENCE)
        receive_with(site, 3)
        ended = site.run("reload")
        eventually(lambda: len(receivers(site)) == 3, seconds=PATIENCE)

    assert ended.returncode == 0
    assert set(stream.kinds) == {"accepted"}
    assert all(psutil.pid_exists(pid) for pid in receivers(site).values())
    eventually(lambda: set(system.names) == stream.accepted, seconds=PATIENCE)
