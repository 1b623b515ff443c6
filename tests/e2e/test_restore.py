"""A backup that was taken with deliveries under way is put back, and everything is resent."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from gofax import EXAMPLE
from processes import Relay, Sandbox
from programs import eventually

from relay.store import Queries, connect

SERVER = os.environ.get("GOFAX_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432")
DESTINATIONS = ("crm", "helpdesk", "front-desk")
#: What each of the systems is first asked to write by a delivery.
WRITES = {
    "hubspot": "/communications",
    "zendesk": "/tickets",
    "teams": "",
}


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, relay: Relay, missing: Any) -> Iterator[str]:
    """The URL of the relay's store."""
    if request.param == "sqlite":
        yield f"sqlite:///{relay.folder / 'relay.db'}"
        return
    psycopg = pytest.importorskip("psycopg")
    name = f"gofax_test_{secrets.token_hex(6)}"
    try:
        server = psycopg.connect(f"{SERVER}/postgres", autocommit=True, connect_timeout=3)
    except psycopg.Error as error:
        missing("postgres", str(error))
    with server:
        server.execute(f"CREATE DATABASE {name}")
        url = f"{SERVER}/{name}"
        relay.config.write_text(relay.config.read_text().replace("sqlite:///relay.db", url))
        yield url
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def message(name: str, *, customer: int = 0) -> dict[str, Any]:
    return {
        **EXAMPLE,
        "messageId": name,
        "eventTimestamp": datetime.now(UTC).isoformat(),
        "from": f"+6140000000{customer}",
        "messageBody": f"the text of {name}",
    }


def states(store: str) -> dict[tuple[str, str], str]:
    """Return the state of each delivery, by message and destination."""
    with closing(connect(store)) as database:
        return {
            (str(event.event.message_id), each.destination): str(each.state)
            for event in Queries(database).events()
            for each in event.deliveries
        }


def is_over(store: str) -> bool:
    found = states(store)
    return bool(found) and set(found.values()) <= {"delivered", "held"}


def effects(sandbox: Sandbox, names: list[str]) -> Counter[tuple[str, str]]:
    """Count what each system was given of each message."""
    return Counter(
        (record["system"], name)
        for record in sandbox.records()
        for name in names
        if f"the text of {name}" in record["text"]
    )


@pytest.mark.slow
def test_nothing_has_a_second_effect_without_a_persons_word(
    relay: Relay, sandbox: Sandbox, store: str
) -> None:
    serve = relay.start()
    sent = [message(f"early-{n}", customer=n % 2) for n in range(4)]
    for each in sent:
        relay.post(each)
    eventually(lambda: is_over(store))

    # Each system acts, and has not yet answered when the backup is made.
    for system, path in WRITES.items():
        sandbox.fault(system=system, method="POST", path=path, wait=12, act=True)
    under_way = [message(f"underway-{n}", customer=7) for n in range(2)]
    for each in under_way:
        relay.post(each)
    first = {(name, "underway-0") for name in WRITES}
    eventually(lambda: first <= set(effects(sandbox, ["underway-0"])))
    made = relay.command("backup", "a.backup")
    assert made.returncode == 0, made.stderr
    running = [name for name in DESTINATIONS if states(store)["underway-0", name] == "in_flight"]
    assert running == list(DESTINATIONS)
    eventually(lambda: is_over(store))

    after = [message(f"after-{n}", customer=n % 3) for n in range(4)]
    for each in after:
        relay.post(each)
    eventually(lambda: len(states(store)) == 30 and is_over(store))
    sent += under_way + after
    names = [each["messageId"] for each in sent]
    once = Counter((system, name) for system in WRITES for name in names)
    assert effects(sandbox, names) == once

    in_use = relay.command("restore", "a.backup", "--yes")
    assert in_use.returncode == 1 and "stop" in in_use.stderr, in_use.stderr
    serve.stop()
    restored = relay.command("restore", "a.backup", "--yes")
    assert restored.returncode == 0, restored.stderr
    minute = restored.stdout.partition("every event from ")[2][:16]
    resend_from = datetime.strptime(f"{minute}+0000", "%Y-%m-%d %H:%M%z")
    came = datetime.fromisoformat(after[0]["eventTimestamp"])
    assert timedelta() <= came - resend_from < timedelta(minutes=5)

    relay.start()
    for each in sent:
        assert relay.post(each).status_code == 200
    for name in DESTINATIONS:
        assert relay.command("resume", name).returncode == 0
    relay.post(message("new", customer=5) | {"eventTimestamp": "2099-01-01T00:00:00Z"})
    eventually(lambda: len(states(store)) == 33 and is_over(store))

    assert effects(sandbox, names) == once
    assert sum(effects(sandbox, ["new"]).values()) == 3
    held = {name for (name, _), state in states(store).items() if state == "held"}
    assert held == {each["messageId"] for each in under_way + after}
    stopped = {where for (_, where), state in states(store).items() if state == "held"}
    assert stopped == {"front-desk"}

    assert relay.command("resend", "after-0", "--why", "it is not there").returncode == 0
    eventually(lambda: effects(sandbox, ["after-0"])["teams", "after-0"] == 2)
