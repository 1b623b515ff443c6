"""The doctor at a PostgreSQL server: what a client can see of it, and what follows from that."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
import sqlalchemy as sa
from fakes import NOON, Clock, accept, take
from psycopg import sql

from relay import migrations
from relay.commands.doctor import examine, examine_server
from relay.config.model import Config
from relay.shapes.findings import Finding
from relay.store import Database, Inbox, Queue, connect, copy
from relay.store.checkup import BY_NODE, Server, Standby, look_at
from relay.store.copy import Copy
from relay.store.nodes import Node, Nodes

GOOD = Server(
    now=NOON,
    fsync=True,
    connections=97,
    connected=12,
    size=5 << 20,
    waits=False,
    standbys=[],
    idle_slots={},
)


def _found(server: Server, *, nodes: int = 2) -> dict[str, Finding]:
    """Return what is not good, by the name of the check."""
    found = examine_server(server, nodes=nodes, now=NOON)
    return {each.check: each for each in found if each.severity != "good"}


def _examined(database: Database) -> dict[str, Finding]:
    config = Config.model_validate(
        {
            "store": str(database.url),
            "endpoints": [{"path": "/webhooks/gofax", "allow_unsigned": True}],
        }
    )
    return {each.check: each for each in examine(config, database, now=NOON)}


def test_a_server_that_is_well_is_well() -> None:
    assert _found(GOOD) == {}


@pytest.mark.parametrize(
    ("changes", "check", "severity", "said"),
    [
        ({"fsync": False}, "disk", "broken", "fsync=off"),
        (
            {"idle_slots": {"old": 5 << 20}},
            "disk",
            "notice",
            "old has no reader.*5 MiB",
        ),
        ({"idle_slots": {"old": 2 << 30}}, "disk", "broken", "2048 MiB"),
        ({"connected": 97}, "connections", "broken", "97 of 97.*raise .*max_connections"),
        ({"connections": 40}, "connections", "notice", f"2 nodes open up to {BY_NODE} each"),
        ({"waits": True}, "standbys", "broken", "nothing can be accepted"),
        ({"now": NOON + timedelta(seconds=11)}, "server clock", "notice", "by 11.0 s"),
        ({"now": NOON - timedelta(seconds=11)}, "server clock", "notice", "by 11.0 s"),
    ],
)
def test_what_is_wrong_is_found(
    changes: dict[str, object], check: str, severity: str, said: str
) -> None:
    (found,) = _found(replace(GOOD, **changes)).values()  # type: ignore[arg-type]

    assert (found.check, found.severity) == (check, severity)
    assert re.search(said, found.said)


def test_a_standby_in_step_is_well_and_one_far_behind_is_noticed() -> None:
    near = Standby(name="b", state="streaming", sync_state="sync", behind=2048)
    unseen = Standby(name="c", state=None, sync_state=None, behind=None)
    far = replace(near, behind=2 << 30)

    assert _found(replace(GOOD, waits=True, standbys=[near])) == {}
    assert _found(replace(GOOD, standbys=[unseen])) == {}
    assert _found(replace(GOOD, standbys=[far]))["standbys"].severity == "notice"


def test_a_server_is_asked_what_a_plain_user_may_ask(emptied: str) -> None:
    name = f"gofax_test_{secrets.token_hex(6)}"
    role = sql.Identifier(name)
    with psycopg.connect(emptied, autocommit=True) as server:
        server.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        database = connect(emptied.replace("postgres@", f"{name}@"))
        try:
            seen = look_at(database)
        finally:
            database.close()
            server.execute(sql.SQL("DROP ROLE {}").format(role))
    assert seen.connected >= 1
    assert seen.size > 1 << 20
    assert abs(seen.now - database.clock()) < timedelta(seconds=5)


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
def test_schema_and_nodes_are_looked_at_on_both_databases(
    database: Database, inbox: Inbox, queue: Queue, clock: Clock
) -> None:
    accept(inbox, "m1")
    take(queue)
    Nodes(database).beat(Node(name="web-1", role="web", version="1", host="here", pid=2))
    fleet = Nodes(database, clock=clock)
    fleet.beat(Node(name="worker-1", role="worker", version="1", host="here", pid=1))

    found = _examined(database)

    assert found["schema"].said == f"the tables have schema {migrations.newest()}"
    assert found["nodes"].severity == "notice"
    assert (
        "worker-1 was last heard of at 2026-11-24 12:00:00Z and holds 1 lease:"
        in found["nodes"].said
    )
    assert ("connections" in found) != (database.file is not None)


def test_a_newer_schema_that_serves_us_is_noticed(database: Database) -> None:
    with database.writing() as db:
        db.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    assert _examined(database)["schema"].severity == "notice"


def test_a_copy_that_is_under_way_is_noticed(database: Database, emptied: str) -> None:
    target = connect(emptied)
    Copy(database, target, name="the server").begin()
    assert "--abandon" in _examined(database)["copy"].said

    copy.abandon(database)
    assert "copy" not in _examined(database)
    target.close()
