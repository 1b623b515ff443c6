"""The doctor finds what is broken, and only that."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import LEASE, NOON, accept, eventually, failed, finish, request, take, take_one

from connectors.base import Options
from relay import every
from relay.commands.doctor import examine, exit_code
from relay.config.model import Config, DestinationConfig
from relay.every import Every
from relay.node import Heartbeat
from relay.rules.delivery import OutcomeKind
from relay.rules.kinds import Kind
from relay.rules.pages import mending_page
from relay.rules.routing import Check, Match, RouteCheck
from relay.shapes.findings import CHECKS, DOCS, Finding
from relay.store import Database, Inbox, Queue, schema
from relay.store.nodes import Node, Nodes
from relay.store.texts import Texts

LATER = NOON + timedelta(minutes=10)

Examine = Callable[..., dict[str, Finding]]


@pytest.fixture
def findings(database: Database) -> Examine:
    """Examine the store, and return what is not good by the name of the check."""

    def findings(
        now: datetime = NOON, *, with_worker: bool = True, **changes: Any
    ) -> dict[str, Finding]:
        crm = DestinationConfig(connector="scripted", options=Options())
        fields: dict[str, Any] = {
            "store": str(database.url),
            "endpoints": [{"path": "/webhooks/gofax", "allow_unsigned": True}],
            "destinations": {"crm": crm},
        }
        config = Config.model_validate(fields | changes)
        Nodes(database).beat(Node(name="web-9", role="web", version="1", host="here", pid=1))
        if with_worker:
            Nodes(database).beat(
                Node(name="worker-9", role="worker", version="1", host="here", pid=1)
            )
            Texts(database).index()
        found = examine(config, database, now=now)
        return {each.check: each for each in found if each.severity != "good"}

    return findings


def test_a_store_at_work_is_well(inbox: Inbox, queue: Queue, findings: Examine) -> None:
    accept(inbox, "m1", "m2", "m3")
    finish(queue, take_one(queue))
    take(queue)

    assert findings() == {}


@pytest.mark.parametrize(
    ("server", "open_to_strangers"),
    [
        ({"listen": "127.0.0.1:8080"}, False),
        ({"listen": "[::1]:8080"}, False),
        ({"listen": "0.0.0.0:8080", "trusted_proxies": 1}, False),
        ({"listen": "0.0.0.0:8080"}, True),
    ],
)
def test_a_receiver_that_strangers_reach_without_a_proxy_is_noticed(
    findings: Examine, server: dict[str, Any], open_to_strangers: bool
) -> None:
    assert ("proxy" in findings(server=server)) is open_to_strangers


def test_an_event_without_its_deliveries_is_found(
    inbox: Inbox, database: Database, findings: Examine
) -> None:
    check = Check(condition="event", wanted="SMS_REPLY", saw="SMS_REPLY", held=True)
    verdict = RouteCheck(route="all", matched=True, to=("crm",), checks=(check,))
    accept(inbox, "m1", match=Match(destinations=("crm",), routes=(verdict,)))
    assert findings() == {}
    with database.writing() as db:
        db.execute(sa.delete(schema.deliveries))

    assert findings()["events"].severity == "broken"


def test_an_event_that_no_route_matched_is_well(inbox: Inbox, findings: Examine) -> None:
    verdict = RouteCheck(route="all", matched=False, to=("crm",), checks=())
    accept(inbox, "m1", match=Match(destinations=(), routes=(verdict,)))

    assert findings() == {}


def test_a_loop_of_a_node_that_cannot_go_on_is_found(
    database: Database, findings: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(every, "AFTER_ERROR", 0.001)
    heartbeat = Heartbeat(database, name="worker-1", role="worker", seconds=0.005)
    with closing(Every("record", 0.001, lambda: {}["missing"])) as loop, closing(heartbeat):
        loop.start()
        heartbeat.start()
        eventually(lambda: "loops" in findings())
        finding = findings()["loops"]
        loop.close()
        eventually(lambda: findings() == {})

    assert finding.severity == "degraded"
    assert finding.said.startswith("worker-1: record: failed ")
    assert "(KeyError)" in finding.said


def test_a_lease_that_nobody_takes_over_is_found(
    inbox: Inbox, queue: Queue, findings: Examine
) -> None:
    accept(inbox, "m1")
    take(queue)

    assert "leases" not in findings(NOON + LEASE)
    assert findings(LATER)["leases"].severity == "degraded"


def test_a_stuck_conversation_is_found(
    inbox: Inbox, database: Database, findings: Examine
) -> None:
    accept(inbox, "m1", "m2", "m3")
    with database.writing() as db:
        head = schema.deliveries.c.state == "pending"
        db.execute(sa.update(schema.deliveries).where(head).values(state="delivered"))

    found = findings()["conversations"]

    assert (found.severity, found.said[:1]) == ("degraded", "1")


def test_a_parked_conversation_is_not_stuck(
    inbox: Inbox, queue: Queue, database: Database, findings: Examine
) -> None:
    accept(inbox, "m1", "m2")
    claim = take_one(queue)
    with database.writing() as db:
        db.execute(sa.update(schema.lanes).values(parked_by=claim.delivery_id))
        db.execute(
            sa.update(schema.deliveries)
            .where(schema.deliveries.c.id == claim.delivery_id)
            .values(state="held")
        )

    assert set(findings()) == {"destinations"}


def test_work_that_nobody_does_is_found(inbox: Inbox, findings: Examine) -> None:
    accept(inbox, "m1")

    assert findings(LATER)["work"].severity == "degraded"
    assert "is a worker running" in findings(LATER)["work"].said


def test_a_backlog_that_is_worked_at_is_only_noticed(
    inbox: Inbox, queue: Queue, findings: Examine
) -> None:
    accept(inbox, "m1")
    accept(inbox, "m2", customer="+61400000002", at=LATER)
    take(queue, now=LATER, limit=1)
    accept(inbox, "m0", customer="+61400000003")

    assert findings(LATER)["work"].severity == "notice"


def test_work_of_a_destination_that_is_gone_from_the_config_is_noticed(
    inbox: Inbox, findings: Examine
) -> None:
    accept(inbox, "m1", to=("former",))

    found = findings(LATER)["work"]

    assert found.severity == "notice"
    assert "former" in found.said


@pytest.mark.parametrize(
    ("severities", "code"),
    [
        (["good", "notice"], 0),
        (["good", "degraded", "notice"], 3),
        (["degraded", "broken", "good"], 1),
    ],
)
def test_the_worst_finding_decides_the_exit_code(severities: list[Any], code: int) -> None:
    found = [Finding(check="work", severity=each, said="") for each in severities]

    assert exit_code(found) == code


def test_every_check_names_a_section_that_there_is() -> None:
    assert set(CHECKS) == set(Kind)
    assert set(CHECKS.values()) <= set(DOCS)
    for where in (*DOCS.values(), *(mending_page(kind).removeprefix("docs/") for kind in Kind)):
        page, _, section = where.partition("#")
        text = (Path(__file__).parents[2] / "docs" / page).read_text()
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        assert not section or section in [each.lower().replace(" ", "-") for each in headings]


def test_no_worker_at_all_degrades(database: Database, findings: Examine) -> None:
    assert findings() == {}
    with database.writing() as db:
        db.execute(sa.delete(schema.nodes))

    found = findings(with_worker=False)["nodes"]

    assert found.severity == "degraded"
    assert "no worker is running" in found.said
    assert "one that has just started is listed within seconds" in found.said


def test_who_asks_before_the_first_beat_is_told_that_it_may_be_that(database: Database) -> None:
    config = Config.model_validate(
        {"store": str(database.url), "endpoints": [{"path": "/a", "allow_unsigned": True}]}
    )

    found = [each for each in examine(config, database, now=NOON) if each.check == "nodes"]

    # Nothing that is said to be good counts to 0.
    assert [each.severity for each in found] == ["degraded", "degraded"]
    for each, role in zip(found, ("worker", "receiver"), strict=True):
        assert each.said.startswith(f"no {role} is running, so nothing ")
        assert each.said.endswith("; one that has just started is listed within seconds")


def test_refused_signatures_degrade(inbox: Inbox, database: Database, findings: Examine) -> None:
    refused = request(outcome="refused", status=401, signed=True, whole=True, at=database.clock())
    inbox.refuse([replace(refused, id=f"req_{number}") for number in range(3)])

    found = findings()["signatures"]

    assert (found.severity, found.docs) == (
        "degraded", "docs/mending.md#signatures",
    )  # fmt: skip


def test_a_backlog_that_is_older_than_a_quarter_of_an_hour_degrades(
    inbox: Inbox, queue: Queue, findings: Examine
) -> None:
    now = NOON + timedelta(minutes=16)
    accept(inbox, "m1", customer="+61400000002", at=now)
    take(queue, now=now, limit=1)
    accept(inbox, "m2", at=NOON)

    assert findings(now)["work"].severity == "degraded"


def test_a_paused_destination_degrades_and_what_is_dead_is_noticed(
    inbox: Inbox, queue: Queue, database: Database, findings: Examine
) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED))
    assert findings()["destinations"].severity == "notice"
    accept(inbox, "m2")
    finish(queue, take_one(queue), failed(OutcomeKind.UNAUTHORIZED, "token expired"))
    with database.writing() as db:
        db.execute(sa.delete(schema.attempts))
        dead = schema.deliveries.c.state == "dead"
        db.execute(sa.delete(schema.deliveries).where(dead))

    found = findings(LATER)

    assert found["destinations"].severity == "degraded"

    assert found["work"].severity == "notice"
    assert "paused" in found["work"].said


def test_too_little_disk_is_found(findings: Examine) -> None:
    assert findings(disk_reserve=2**62)["disk"].severity == "broken"


def test_a_file_that_others_can_read_is_found(path: Path, findings: Examine) -> None:
    path.chmod(0o644)

    assert "chmod 600" in findings()["files"].said


def test_a_clock_that_was_put_back_is_found(inbox: Inbox, findings: Examine) -> None:
    accept(inbox, "m1", at=LATER)

    assert findings(NOON)["clock"].severity == "broken"


def test_texts_that_are_not_indexed_are_noticed(
    inbox: Inbox, database: Database, findings: Examine
) -> None:
    accept(inbox, "m1", "m2", "m3")
    soon = NOON + timedelta(seconds=30)
    assert "texts" not in findings(soon, with_worker=False)
    assert "is a worker running?" in findings(LATER, with_worker=False)["texts"].said

    Texts(database).index(limit=1)

    assert "a worker is indexing texts" in findings(soon, with_worker=False)["texts"].said
    while Texts(database).index():
        pass
    assert "texts" not in findings(LATER, with_worker=False)
