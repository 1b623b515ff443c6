"""What people do about deliveries, and what is kept of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from fakes import NOON, failed, finish, take

from relay.rules import recovery
from relay.rules.delivery import OutcomeKind, Policy
from relay.rules.recovery import Change, ChangeKind
from relay.store import Database, Queue, Recovery, schema
from relay.store.actions import Act

LATER = NOON + timedelta(days=4)
HOLD = Policy(on_dead="hold", on_ambiguous="hold")


def act(
    *, who: str = "anna", why: str | None = "the token was wrong", at: datetime = LATER
) -> Act:
    return Act(who=who, why=why, at=at)


def refuse(queue: Queue, *, policy: Policy | None = None, detail: str = "no such field") -> None:
    """Let everything that is due die."""
    for claim in take(queue, now=LATER):
        finish(queue, claim, failed(OutcomeKind.REFUSED, detail), policy=policy)


def resend(desk: Recovery, name: str, *, again: bool = False, at: datetime = LATER) -> Change:
    """Resend the one delivery that *name* means, if that can be done."""
    (case,) = desk.deliveries_named(name)
    step = recovery.resend(case, again=again, now=at)
    assert desk.do([step], act(at=at)) == [step.kind is not ChangeKind.NOTHING]
    return step


def settle(desk: Recovery, name: str, end: Any) -> Change:
    (case,) = desk.deliveries_named(name)
    step = recovery.settle(case, end=end)
    assert desk.do([step], act()) == [step.kind is not ChangeKind.NOTHING]
    return step


def actions(database: Database) -> list[dict[str, Any]]:
    with database.reading() as db:
        rows = db.execute(sa.select(schema.actions).order_by(schema.actions.c.seq)).mappings()
        return [dict(row) for row in rows]


def names(queue: Queue, *, now: datetime = LATER) -> list[str | None]:
    return [claim.event.message_id for claim in take(queue, now=now)]


def together(count: int, do: Callable[[], Any]) -> list[Any]:
    """Do something in *count* threads at the same time."""
    barrier = threading.Barrier(count, timeout=30)

    def run() -> Any:
        barrier.wait()
        return do()

    with ThreadPoolExecutor(count) as threads:
        futures = [threads.submit(run) for _ in range(count)]
        return [future.result() for future in futures]
