"""The well-filled store of the console's tests has what it says, and every page shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import consoles
import pytest
from consoles import Console

from relay.rules.access import Role
from relay.store import Database

ON_BOTH = True


@pytest.fixture
def console(tmp_path: Path, database: Database) -> Iterator[Console]:
    with consoles.console(tmp_path, database) as made:
        yield made


def test_the_store_has_deliveries_in_every_state(console: Console) -> None:
    filled = consoles.fill(console)

    assert console.states(filled.arrived) == dict.fromkeys(
        ("crm", "helpdesk", "front-desk"), "delivered"
    )
    assert console.states(filled.dead)["helpdesk"] == "dead"
    assert console.states(filled.held)["front-desk"] == "held"
    assert console.states(filled.pending)["helpdesk"] == "pending"
    assert console.states(filled.waiting)["helpdesk"] == "waiting"
    assert console.states(filled.in_flight)["helpdesk"] == "in_flight"
    assert console.states(filled.unrouted) == console.states(filled.test) == {}
    assert console.event(filled.test).event.test
    assert console.event(filled.conflict).standing == "conflict"
    assert console.event(filled.arrived).duplicates == 1


@pytest.mark.parametrize("role", Role)
def test_a_visitor_has_signed_in(console: Console, role: Role) -> None:
    page = console.visitor(role).get("/console/")

    assert (page.status, f"{role} <b>" in page.text) == (200, True)
    assert console.nobody.get("/console/").location.startswith("/console/sign-in")


def test_every_page_answers(console: Console) -> None:
    filled = consoles.fill(console)
    names = ("arrived", "dead", "held", "pending", "waiting", "in_flight", "hostile", "unrouted",
             "test", "conflict", "outbound")  # fmt: skip
    paths = [
        *(f"events/{getattr(filled, name)}" for name in names),
        *(f"requests/{id_}" for id_ in (filled.signed, filled.unsigned, filled.elsewhere)),
        *(f"conversations/{each}" for each in (consoles.ANN, consoles.BEN, consoles.EVE)),
        "events", "events?text=urgent&state=held&tests=hide", "events/export.csv", "requests",
        "requests?standing=refused&customer=0126", "requests/export.csv", "stopped",
        "stopped/list", "stopped/export.csv", "search?q=urgent", "search?q=ticket+1013",
    ]  # fmt: skip

    found = {path: console.visitor("operator").get(f"/console/{path}").status for path in paths}

    assert found == dict.fromkeys(paths, 200)
