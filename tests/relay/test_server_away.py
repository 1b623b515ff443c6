"""The server stops, starts and is replaced: senders are told, nothing is lost, all goes on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cluster
import psycopg
import pytest
from cluster import Cluster
from fakes import Hang, Scripted, arrival, destination, eventually
from flask.testing import FlaskClient

from relay import migrations
from relay.app import create_app
from relay.config.load import load
from relay.leases import Intervals
from relay.refused import Refusals
from relay.store import Database, Inbox, Queries, Queue, StoreUnavailable, connect
from relay.worker import Worker

pytestmark = pytest.mark.slow

CONFIG = """\
endpoints: [{path: /open, allow_unsigned: true}]
destinations: {crm: {connector: scripted}}
routes: [{to: [crm]}]
"""


@pytest.fixture
def folder(missing: Callable[[str, str], None]) -> Iterator[Path]:
    """A folder for servers."""
    if reason := cluster.unavailable():
        missing("postgres", reason)
    with cluster.new_folder() as folder:
        yield folder


@pytest.fixture
def primary(folder: Path) -> Iterator[Cluster]:
    made = Cluster(folder / "a")
    made.start()
    yield made
    made.close()


@contextmanager
def _relay(database: Database, crm: Scripted, tmp_path: Path) -> Iterator[FlaskClient]:
    """Run receiver and worker on *database*."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    config = load(path, find_connector=lambda name: Scripted)
    migrations.upgrade(database)
    inbox, queue = Inbox(database), Queue(database, node="worker-1", again=0.1)
    refusals = Refusals(inbox.refuse)
    worker = Worker(
        {"crm": destination("crm", crm)},
        queue,
        clock=database.clock,
        intervals=Intervals(store_away=0.1),
    )
    listener = database.listen(worker.wake)
    thread = threading.Thread(target=worker.run)
    thread.start()
    app = create_app(config, database=database, inbox=inbox, refusals=refusals)
    try:
        yield app.test_client()
    finally:
        worker.stop()
        thread.join(30)
        listener.close()
        worker.drain(10)
        refusals.close()
        inbox.close()
        queue.close()
        worker.close()


def _post(client: FlaskClient, name: str) -> int:
    body = {"messageId": name, "eventType": "SMS_REPLY", "from": f"+614{len(name):08}"}
    return client.post("/open", data=json.dumps(body), content_type="application/json").status_code


def _is(database: Database, backlog: Mapping[str, Mapping[str, int]]) -> bool:
    try:
        return Queries(database).backlog() == backlog
    except StoreUnavailable:
        return False


def test_a_server_that_stops_and_starts_loses_nothing_and_needs_nobody(
    primary: Cluster, tmp_path: Path
) -> None:
    database, crm = connect(primary.url), Scripted()
    with _relay(database, crm, tmp_path) as client:
        assert [_post(client, f"before-{number}") for number in range(5)] == [200] * 5
        eventually(lambda: len(crm.calls) == 5)

        primary.stop()
        assert _post(client, "during") == 503
        assert client.get("/readyz").status_code == 503
        primary.start()

        assert _post(client, "during") == 200
        eventually(lambda: "during" in crm.message_ids)
        assert client.get("/readyz").status_code == 200
        eventually(lambda: _is(database, {"crm": {"delivered": 6}}))
    database.close()


def test_a_receiver_that_starts_while_the_server_is_away_says_so_until_it_is_back(
    primary: Cluster,
) -> None:
    database = connect(primary.url)
    migrations.upgrade(database)
    primary.stop()

    inbox = Inbox(database)
    with pytest.raises(StoreUnavailable):
        inbox.accept(arrival("m1"))
    primary.start()

    assert inbox.accept(arrival("m1")).standing == "accepted"
    inbox.close()
    database.close()


def test_what_was_delivered_while_the_server_was_away_is_recorded_when_it_is_back(
    primary: Cluster, tmp_path: Path
) -> None:
    database, crm, hang = connect(primary.url), Scripted(), Hang()
    crm.script.append(hang)
    with _relay(database, crm, tmp_path) as client:
        assert _post(client, "m1") == 200
        assert hang.begun.wait(20)
        primary.stop()
        hang.release()
        assert _post(client, "m2") == 503

        primary.start()

        eventually(lambda: _is(database, {"crm": {"delivered": 1}}))
    assert crm.message_ids == ["m1"]
    database.close()


def test_a_standby_that_takes_over_has_all_that_was_acknowledged(
    primary: Cluster, folder: Path, tmp_path: Path
) -> None:
    standby = Cluster(folder / "b", standby_of=primary)
    standby.start()
    with psycopg.connect(primary.url, autocommit=True) as server:
        server.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        server.execute("SELECT pg_reload_conf()")
        waits = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
        eventually(lambda: server.execute(waits).fetchone())
    both = f"postgresql://postgres@/postgres?host={primary.folder},{standby.folder}"
    database, crm = connect(both), Scripted()
    with _relay(database, crm, tmp_path) as client:
        names = [f"m{number}" for number in range(10)]
        assert [_post(client, name) for name in names] == [200] * 10

        primary.stop()
        assert _post(client, "m10") == 503
        standby.promote()

        eventually(lambda: _post(client, "m10") == 200)
        # A claim that was broken off waits for the end of its lease.
        eventually(lambda: _is(database, {"crm": {"delivered": 11}}), seconds=60)
    seen = {view.event.message_id for view in Queries(database).events()}
    assert seen == {*names, "m10"}
    database.close()
    standby.close()
