"""The list of the nodes: who is at work, who is silent, and what it holds."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import servers
import site_of_nodes
from fakes import Clock, accept, eventually, take
from site_of_nodes import PATIENCE, Flow, Site, kill

from relay.node import Heartbeat
from relay.store import Database, Inbox, Queue, connect
from relay.store.nodes import FORGOTTEN_AFTER, SILENT_AFTER, Node, Nodes, NodeView

ON_BOTH = True


@pytest.fixture
def fleet(database: Database, clock: Clock) -> Nodes:
    return Nodes(database, clock=clock)


def _node(name: str, **changes: object) -> Node:
    node = Node(name=name, role="worker", version="1.2.3", host="here", pid=1)
    return replace(node, **changes)  # type: ignore[arg-type]


def _seen(fleet: Nodes) -> dict[str, NodeView]:
    return {view.name: view for view in fleet.nodes()}


def test_a_node_is_listed_from_its_first_beat_on(fleet: Nodes, clock: Clock) -> None:
    started = clock()
    node = fleet.beat(_node("a"))
    beat_at = clock.advance(5)

    assert fleet.beat(node) == node
    assert list(fleet.nodes()) == [
        NodeView(name="a", node=_node("a", started_at=started), beat_at=beat_at, leases=0,
                 state="alive"),
    ]  # fmt: skip


def test_a_node_that_starts_again_under_its_name_is_another_one(
    fleet: Nodes, clock: Clock
) -> None:
    fleet.beat(_node("a"))
    clock.advance(5)
    fleet.beat(_node("a", pid=2, version="1.2.4"))

    (view,) = fleet.nodes()
    assert view.node == _node("a", pid=2, version="1.2.4", started_at=clock())


def test_a_node_that_is_not_heard_of_is_silent_and_after_a_day_forgotten(
    fleet: Nodes, clock: Clock
) -> None:
    fleet.beat(_node("a"))
    clock.advance(SILENT_AFTER.total_seconds())
    fleet.beat(_node("b"))
    assert [view.state for view in fleet.nodes()] == ["alive", "alive"]

    clock.advance(0.001)
    assert [view.state for view in fleet.nodes()] == ["silent", "alive"]

    clock.advance((FORGOTTEN_AFTER - SILENT_AFTER).total_seconds())
    fleet.beat(_node("b"))
    assert list(_seen(fleet)) == ["b"]


def test_a_node_that_stops_leaves_the_list(fleet: Nodes) -> None:
    fleet.beat(_node("a"))
    fleet.beat(_node("b"))

    fleet.leave("a")

    assert list(_seen(fleet)) == ["b"]


def test_leases_are_counted_also_those_of_nodes_that_nobody_knows(
    fleet: Nodes, inbox: Inbox, new_queue: Callable[[str], Queue]
) -> None:
    for number in range(3):
        accept(inbox, f"m{number}", customer=f"+6140000000{number}")
    fleet.beat(_node("a"))
    take(new_queue("a"), limit=2)
    take(new_queue("z"), limit=1)

    seen = _seen(fleet)

    assert (seen["a"].leases, seen["a"].state) == (2, "alive")
    assert (seen["z"].leases, seen["z"].state, seen["z"].node) == (1, "unknown", None)


def test_a_heartbeat_says_who_it_is_until_it_stops(database: Database) -> None:
    fleet, heartbeat = Nodes(database), Heartbeat(database, name="a", role="web", seconds=0.02)
    heartbeat.start()
    eventually(lambda: _seen(fleet))
    (first,) = fleet.nodes()
    eventually(lambda: _seen(fleet)["a"].beat_at != first.beat_at)
    heartbeat.close()

    assert first.node is not None
    assert (first.node.role, first.node.pid) == ("web", os.getpid())
    assert (first.node.host, first.node.version) == (
        socket.gethostname(), metadata.version("gofax-relay"),
    )  # fmt: skip
    assert _seen(fleet) == {}


def test_a_heartbeat_outlives_a_store_that_is_away(path: Path) -> None:
    with closing(connect(f"sqlite:///{path}")) as database:
        heartbeat = Heartbeat(database, name="a", role="web", seconds=0.02)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("ALTER TABLE nodes RENAME TO away")
            heartbeat.start()
            threading.Event().wait(0.2)
            other.execute("ALTER TABLE away RENAME TO nodes")

        eventually(lambda: _seen(Nodes(database)))
        heartbeat.close()


@pytest.fixture
def site(server: None, tmp_path: Path, system: Flow) -> Iterator[Site]:
    """A site on a PostgreSQL database of its own."""
    with servers.new_database() as url:
        made = Site(tmp_path, store=url, flow=system.url)
        yield made
        made.close()


def _pids(site: Site) -> set[int]:
    return {each["pid"] for each in site.listed("nodes")}


def _states(site: Site) -> dict[str, tuple[str, int]]:
    """Return state and leases of each node, by its role and process."""
    return {
        f"{each['role']} {each['pid']}": (each["state"], each["leases"])
        for each in site.listed("nodes")
    }


@pytest.mark.slow
def test_a_node_that_is_killed_is_silent_and_another_one_takes_its_work_over(
    site: Site, system: Flow
) -> None:
    def worker() -> tuple[subprocess.Popen[bytes], str]:
        known = set(_states(site))
        process = site.start("work")
        # Its entry is that of the child that works.
        site_of_nodes.within(PATIENCE, lambda: set(_states(site)) - known)
        [name] = set(_states(site)) - known
        return process, name

    receiver = site.serve("web")
    system.answering.clear()
    doomed, doomed_name = worker()
    assert site.post("m1") == "accepted"
    eventually(lambda: system.names == ["m1"], seconds=PATIENCE)
    assert _states(site)[doomed_name] == ("alive", 1)
    _, heir_name = worker()

    kill(doomed)
    system.answering.set()
    site_of_nodes.within(35, lambda: _states(site)[doomed_name][0] == "silent")
    # Within its lease of 30 s and the beat in which another one looks for what was lost.
    site_of_nodes.within(30, lambda: system.names == ["m1", "m1"])

    site_of_nodes.within(PATIENCE, lambda: _states(site)[doomed_name] == ("silent", 0))
    states = _states(site)
    states.pop(doomed_name)
    assert states.pop(heir_name) == ("alive", 0)
    (_, (state, _)) = states.popitem()
    assert state == "alive"
    receiver.terminate()
    assert receiver.wait(PATIENCE) == 0
    assert set(_states(site)) == {doomed_name, heir_name}


@pytest.mark.slow
def test_a_relay_on_one_machine_lists_itself_while_it_runs(tmp_path: Path) -> None:
    site = Site(tmp_path, store="sqlite:///relay.db")
    running = site.serve()

    with closing(connect(f"sqlite:///{tmp_path}/relay.db")) as database:
        fleet = Nodes(database)
        site_of_nodes.within(PATIENCE, lambda: len(fleet.nodes()) == 2)
        shown = site.run("nodes").stdout
        running.terminate()

        assert "web-1" in shown and "worker-1" in shown and "alive" in shown
        assert running.wait(PATIENCE) == 0
        assert fleet.nodes() == []
    site.close()


@pytest.mark.slow
def test_a_receiver_that_is_told_to_stop_leaves_the_list(site: Site) -> None:
    receiver = site.serve("web")
    site_of_nodes.within(PATIENCE, lambda: _states(site))

    receiver.terminate()

    assert receiver.wait(PATIENCE) == 0
    assert _states(site) == {}


@pytest.mark.slow
def test_a_receiver_that_is_killed_leaves_its_name_to_the_next(site: Site) -> None:
    site.serve("web")
    site_of_nodes.within(PATIENCE, lambda: _states(site))
    [before] = site.listed("nodes")

    os.kill(before["pid"], signal.SIGKILL)

    site_of_nodes.within(PATIENCE, lambda: before["pid"] not in _pids(site))
    [after] = site.listed("nodes")
    assert after["name"] == before["name"]
    assert after["state"] == "alive"


@pytest.mark.slow
def test_a_receiver_with_a_request_that_never_ends_leaves_the_list(site: Site) -> None:
    receiver = site.serve("web")
    site_of_nodes.within(PATIENCE, lambda: _states(site))

    with socket.create_connection(("127.0.0.1", site.port)) as client:
        client.sendall(b"POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        # Until it is being read.
        assert site.answers()
        receiver.terminate()

        assert receiver.wait(PATIENCE) == 0
    assert _states(site) == {}


@pytest.mark.slow
def test_a_store_that_was_moved_away_is_not_made_again_at_the_end(
    tmp_path: Path, system: Flow
) -> None:
    place = tmp_path / "data"
    with closing(Site(tmp_path, store=f"sqlite:///{place}/relay.db", flow=system.url)) as site:
        receiver = site.serve("web")
        site_of_nodes.within(PATIENCE, lambda: _states(site))
        place.rename(tmp_path / "moved")

        receiver.terminate()
        receiver.wait(PATIENCE)

        assert not place.exists()
