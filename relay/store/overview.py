"""How does each destination stand: is it served, what waits for it, and what happened last?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from relay.rules.delivery import OutcomeKind, State
from relay.rules.health import Pause
from relay.store import candidates, schema
from relay.store.database import Database
from relay.store.values import load_pauses

#: Over which time deliveries are counted for a rate.
SPAN = timedelta(minutes=5)
#: Attempts among which the last success and the last error are looked for.
LOOKED_AT = 5000
#: States of what is not done yet.
UNFINISHED = (State.WAITING, State.PENDING, State.IN_FLIGHT)

_d, _a = schema.deliveries.c, schema.attempts.c


@dataclass(frozen=True, kw_only=True, slots=True)
class DestinationView:
    """A destination as people see it."""

    name: str
    state: Literal["served", "paused", "removed"]
    #: Why it is paused, since when, and until when.
    pause: Pause | None
    #: Deliveries that are not done, and when the oldest of them was made.
    backlog: int
    oldest: datetime | None
    #: Deliveries that a person decides about.
    dead: int
    held: int
    #: Deliveries a minute, lately.
    rate: float
    last_success: datetime | None
    last_error: datetime | None
    #: What the last error said.
    error: str | None


class Overview:
    """Looks at all destinations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def destinations(self, names: Iterable[str], *, now: datetime) -> Sequence[DestinationView]:
        """Return the destinations *names*, which the config has, and those that were removed."""
        have = list(names)
        with self._database.reading() as db:
            pauses = load_pauses(db)
            counts = _counts(db)
            removed = [
                name
                for name in sorted(counts)
                if name not in have and any(counts[name].get(state) for state in UNFINISHED)
            ]
            return [
                _view(db, name, counts.get(name, {}), pauses.get(name), known=known, now=now)
                for known, group in ((True, have), (False, removed))
                for name in group
            ]


def _view(
    db: sa.Connection,
    name: str,
    counts: Mapping[State, int],
    pause: Pause | None,
    *,
    known: bool,
    now: datetime,
) -> DestinationView:
    last_success, _ = db.execute(_last(name, delivered=True)).first() or (None, None)
    last_error, error = db.execute(_last(name, delivered=False)).first() or (None, None)
    return DestinationView(
        name=name,
        state="removed" if not known else "paused" if pause else "served",
        pause=pause,
        backlog=sum(counts.get(state, 0) for state in UNFINISHED),
        oldest=_oldest(db, name, counts),
        dead=counts.get(State.DEAD, 0),
        held=counts.get(State.HELD, 0),
        rate=_rate(db, name, now=now),
        last_success=last_success,
        last_error=last_error,
        error=error,
    )


def _counts(db: sa.Connection) -> dict[str, dict[State, int]]:
    """Count the deliveries of each destination by state, except those that are delivered."""
    counts: dict[str, dict[State, int]] = {}
    for name, state in candidates.listed(db):
        found = counts.setdefault(name, {})
        if state != State.DELIVERED:
            number = sa.select(sa.func.count(_d.seq)).where(candidates.is_listed(name, state))
            found[state] = db.scalar(number) or 0
    return counts


def _oldest(db: sa.Connection, name: str, counts: Mapping[State, int]) -> datetime | None:
    return min(_firsts(db, name, counts), default=None)


def _firsts(db: sa.Connection, name: str, counts: Mapping[State, int]) -> Iterator[datetime]:
    """Yield when the oldest delivery in each unfinished state was made."""
    for state in UNFINISHED:
        if counts.get(state):
            first = sa.select(_d.created_at).where(candidates.is_listed(name, state))
            yield db.execute(first.order_by(_d.event_id).limit(1)).scalar_one()


def _rate(db: sa.Connection, name: str, *, now: datetime) -> float:
    lately = _a.destination == name, _a.started_at > now - SPAN
    delivered = _a.outcome == OutcomeKind.DELIVERED.value
    number = db.scalar(sa.select(sa.func.count(_a.seq)).where(*lately, delivered)) or 0
    return number / (SPAN / timedelta(minutes=1))


def _last(name: str, *, delivered: bool) -> sa.Select[Any]:
    """Select the last attempt that delivered, or that failed, among the newest."""
    newest = sa.select(_a.started_at, _a.outcome, _a.detail).where(_a.destination == name)
    some = newest.order_by(_a.started_at.desc()).limit(LOOKED_AT).subquery()
    arrived = some.c.outcome == OutcomeKind.DELIVERED.value
    last = sa.select(some.c.started_at, some.c.detail).where(arrived if delivered else ~arrived)
    return last.order_by(some.c.started_at.desc()).limit(1)
