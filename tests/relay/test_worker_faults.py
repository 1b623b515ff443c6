"""The worker beside connectors that break their contract, and a store that is away."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import NOON, Act, Clock, Hang, Scripted, accept, destination, eventually, locked
from structlog.testing import capture_logs
from workers import FindDelivery, NewWorker, step

from connectors.base import DeliveryError, Receipt, Refused, Throttled
from relay.rules.delivery import State
from relay.store import Database, Inbox


def _everything_in(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())


def test_an_error_outside_of_the_contract_is_doubt_and_its_text_is_not_stored(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, delivery: FindDelivery, path: Path
) -> None:
    accept(inbox, "m1")
    hidden = "what nobody" + " may read"
    crm.script = [KeyError(hidden)]

    with capture_logs() as logs:
        step(new_worker(destination("crm", crm)))

    assert delivery().state == State.PENDING
    (attempt,) = delivery().history
    assert attempt.outcome == "ambiguous"
    # In the line of deliver() that raised it.
    assert re.fullmatch(
        r"bug in the connector \(relay/fakes\.py:\d+\): KeyError", attempt.detail or ""
    )
    assert hidden.encode() not in _everything_in(path)
    assert logs[0]["event"] == "connector.failed"
    assert logs[0]["exception"].endswith("KeyError") and hidden not in str(logs)
    assert logs[0]["log_level"] == logging.getLevelName(logging.ERROR).lower()


class Later(Throttled):
    """Sets what the contract does not take after it was made."""

    def __init__(self) -> None:
        super().__init__("slow down")
        self.retry_after = "5 s"  # type: ignore[assignment]  # the fault


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda _: "ticket 7", "deliver() returned str, not a Receipt"),
        (lambda _: Receipt(reference=None), "Receipt.reference takes text or a number, not None"),  # type: ignore[arg-type]
        (lambda _: Throttled("why", retry_after="5"), "retry_after takes seconds or a timedelta"),  # type: ignore[arg-type]
        (Later(), "retry_after takes seconds or a timedelta, not str"),
        (DeliveryError("why"), "raised DeliveryError, which does not say what happened"),
        (SystemExit(1), "SystemExit"),
    ],
)
def test_what_breaks_the_contract_is_doubt_at_once_and_is_named_with_file_and_line(
    inbox: Inbox,
    new_worker: NewWorker,
    crm: Scripted,
    delivery: FindDelivery,
    act: Act,
    said: str,
) -> None:
    accept(inbox, "m1")
    crm.script = [act]

    with capture_logs() as logs:
        step(new_worker(destination("crm", crm)))

    assert delivery().state == State.PENDING
    (attempt,) = delivery().history
    assert attempt.outcome == "ambiguous"
    assert re.match(
        r"bug in the connector \(relay/(fakes|test_worker_faults)\.py:\d+\): ",
        attempt.detail or "",
    )
    assert said in (attempt.detail or "")
    assert [line["event"] for line in logs] == ["connector.failed", "delivery.attempted"]
    assert logs[0]["delivery_id"] == delivery().id


def test_ids_that_are_numbers_and_waits_in_seconds_are_taken(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, clock: Clock, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    number: Any = 7
    crm.script = [Throttled("why", retry_after=2), Receipt(reference=number, thread=number)]
    worker = new_worker(destination("crm", crm))

    step(worker)
    assert delivery("m1").due_at == NOON + timedelta(seconds=2)
    clock.advance(2)
    step(worker)
    step(worker)

    assert (delivery("m1").state, delivery("m1").reference) == (State.DELIVERED, "7")
    assert crm.calls[-1].thread == "7"


def test_an_attempt_that_cannot_be_recorded_is_named(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, database: Database, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    worker = new_worker(destination("crm", crm))
    with database.writing() as db:
        fail = "BEGIN SELECT RAISE(ABORT, 'a bug'); END"
        db.execute(sa.text(f"CREATE TRIGGER t BEFORE UPDATE ON attempts {fail}"))

    with capture_logs() as logs:
        step(worker)

    line = logs[-1]
    assert (line["event"], line["log_level"]) == ("attempt.not_recorded", "error")
    assert (line["event_id"], line["delivery_id"], line["destination"]) == (
        crm.calls[0].event.id, delivery().id, "crm",
    )  # fmt: skip


def test_text_that_cannot_be_stored_does_not_keep_a_success_from_being_recorded(
    inbox: Inbox, new_worker: NewWorker, crm: Scripted, delivery: FindDelivery
) -> None:
    accept(inbox, "m1", "m2")
    odd = "7\ud800\x00"
    crm.script = [Receipt(reference=odd, url=odd, thread=odd), Refused(odd)]
    worker = new_worker(destination("crm", crm))

    assert step(worker) + step(worker) == 2

    assert delivery("m1").state == State.DELIVERED
    assert (delivery("m1").reference or "").startswith("7")
    assert delivery("m2").state == State.DEAD


def test_an_outcome_is_recorded_when_the_store_is_back(
    inbox: Inbox, running: NewWorker, crm: Scripted, database: Database, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")
    crm.script = [hang := Hang(Receipt(reference="while it was away"))]
    running(destination("crm", crm))
    assert hang.begun.wait(20)

    with capture_logs() as logs, locked(database):
        hang.release()
        eventually(lambda: _times_away(logs) >= 2)
        assert delivery().state == State.IN_FLIGHT

    eventually(lambda: delivery().state == State.DELIVERED)
    assert delivery().reference == "while it was away"
    assert len(crm.calls) == 1


def test_a_worker_outlives_a_store_that_is_away_while_it_claims(
    inbox: Inbox, running: NewWorker, crm: Scripted, database: Database, delivery: FindDelivery
) -> None:
    accept(inbox, "m1")

    with capture_logs() as logs, locked(database):
        running(destination("crm", crm))
        eventually(lambda: _times_away(logs) >= 2)
        assert crm.calls == []

    eventually(lambda: delivery().state == State.DELIVERED)


def _times_away(logs: list[Any]) -> int:
    return sum(each["event"] == "store.unavailable" for each in logs)
