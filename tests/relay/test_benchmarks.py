"""The benchmarks' instruments: what is filled by bulk SQL is what accepting would have made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import accept
import cluster
import fill
import pytest
import servers

from relay.clock import wall
from relay.rules.delivery import State
from relay.rules.wording import Wording
from relay.store import Inbox, Queries, Queue, connect
from relay.store.checkup import Checkup
from relay.store.search import Filter
from relay.store.texts import Texts

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EVENTS = 300


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/relay.db"
        return
    request.getfixturevalue("server")
    with servers.new_database() as url:
        yield url


def test_a_filled_store_is_as_if_its_events_had_been_accepted_and_delivered(url: str) -> None:
    fill.fill(url, events=EVENTS)

    with closing(connect(url)) as database, closing(Inbox(database)) as inbox:
        queries, checkup = Queries(database), Checkup(database)
        accepted = inbox.accept(fill.arrival("another", customer=7))
        new, old = (queries.event(name) for name in (accepted.event_id, fill.message_name(7)))

        assert len(list(queries.events())) == EVENTS + 2  # the model, and the one from here
        words = Filter(wording=Wording.of(fill.words(7)))
        about = {each.event.id for each in queries.events(words)}

        assert Texts(database).lag().older is None
        assert about == {fill.event_name(7)}
        assert old is not None
        assert new is not None
        assert (old.event.id, old.event.customer) == (fill.event_name(7), fill.phone(7))
        assert old.event.payload["messageId"] == fill.message_name(7)
        assert [len(each.history) for each in old.deliveries] == [1]
        assert old.deliveries[0].state is State.DELIVERED
        assert new.event.conversation == old.event.conversation
        assert new.deliveries[0].state is State.PENDING
        found = (
            checkup.undelivered_events(),
            checkup.stuck_conversations(),
            checkup.overdue(wall()),
        )
        assert found == (0, 0, {fill.DESTINATION: 1})


def test_a_store_can_be_filled_with_what_is_to_be_delivered(url: str) -> None:
    fill.fill(url, events=EVENTS, delivered=False)

    with closing(connect(url)) as database, closing(Queue(database, node="n")) as queue:
        claims = queue.claim(
            fill.DESTINATION, limit=EVENTS + 9, rate=None, lease=fill.LEASE, clock=wall
        )

    assert len({claim.lane_id for claim in claims}) == EVENTS + 1


def test_an_event_that_was_answered_200_and_is_not_stored_is_counted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/relay.db"
    fill.fill(url, events=EVENTS)
    stored = {fill.message_name(number) for number in range(EVENTS)}
    side = {"port": 1, "process": None, "load_cores": None, "store": url}

    kept, lost = (
        accept.checked([accept.Side(**side, answered=answered)])  # type: ignore[arg-type]
        for answered in (stored, {*stored, "nowhere"})
    )

    assert (kept["answered"], kept["lost"]) == (EVENTS, 0)
    assert (lost["answered"], lost["lost"]) == (EVENTS + 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("against", ["verify", "webhook"])
def test_each_event_that_the_load_saw_accepted_is_in_the_store(
    against: str, missing: Callable[[str, str], None]
) -> None:
    for command in {"wrk", "webhook"} - {"webhook" if against == "verify" else ""}:
        if shutil.which(command) is None:
            missing(command, "no such command")
    command = [sys.executable, str(BENCHMARKS / "accept.py"), "--seconds", "1", "--rounds", "1",
               "--connections", "8", "--against", against, "--json"]  # fmt: skip

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["answered"] <= found["stored"]["events"]
    assert found["lost"] == 0
    assert found["ratio"] > 0


@pytest.mark.slow
def test_small_and_large_tables_are_compared(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "scale.py"), "--tables", "--sizes", "100,300",
               "--rounds", "3", "--databases", "sqlite", "--json",
               # Three rounds beside other tests say nothing of how long a step takes.
               "--within", "1000"]  # fmt: skip

    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120
    )

    assert done.returncode == 0, done.stderr
    sizes = json.loads(done.stdout)["tables"]["sqlite"]
    assert list(sizes) == ["100", "300"]
    assert {"accept 1", "claim 32", "record 1", "events", "requests", "explain unknown"} <= set(
        sizes["100"]
    )


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("load", "kinds"),
    [(["--events", "100"], ["accepts", "deliveries"]), (["--each", "50"], ["paced"])],
    ids=["all_that_it_takes", "paced"],
)
def test_what_an_event_costs_is_measured_on_nodes_of_their_own(
    load: list[str], kinds: list[str], tmp_path: Path, missing: Callable[[str, str], None]
) -> None:
    if reason := cluster.unavailable():
        missing("postgres", reason)
    if shutil.which("wrk") is None:
        missing("wrk", "no such command")
    command = [sys.executable, str(BENCHMARKS / "scale.py"), "--nodes", "2", "--rounds", "1",
               "--seconds", "1", "--json", *load]  # fmt: skip

    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300
    )

    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["nodes"]
    assert list(measured) == kinds
    for costs in measured.values():
        assert set(costs) == {"postgres, 2 nodes", "sqlite, 1 node"}
        assert costs["postgres, 2 nodes"]["server_us"] > 0
        assert costs["sqlite, 1 node"]["relay_us"] > 0


# What flows of others lose is no promise of ours.
THEIRS = [pytest.param(flow, marks=pytest.mark.long) for flow in ("webhook", "after")]


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["relay", *THEIRS])
def test_what_a_kill_loses_is_counted_in_each_flow(
    flow: str, missing: Callable[[str, str], None]
) -> None:
    for what, needed in (("redis", "redis-server"), ("webhook", "webhook"), ("webhook", "curl")):
        if shutil.which(needed) is None:
            missing(what, f"no command {needed}")
    command = [sys.executable, str(BENCHMARKS / "baselines" / "compare.py"), "--flows", flow,
               # So slowly that even a busy machine kills before the last one is answered.
               "--rate", "25", "--events", "60", "--rounds", "1", "--patience", "8",
               "--kills", "all", "--json"]  # fmt: skip

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["flows"][flow]
    assert found["cost"]["events"] == 60
    assert found["cost"]["cpu_seconds"] > 0
    killed = found["kills"]["all"]
    assert 0 < killed["answered"] < 60
    if flow == "relay":
        assert (killed["lost"], found["cost"]["disk_mb"] > 0) == (0, True)
