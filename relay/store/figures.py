"""What the store says about itself in numbers, for metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from relay.store import schema
from relay.store.database import Database
from relay.store.values import load_pauses

_d, _e = schema.deliveries.c, schema.events.c
# Two questions with an index each, so that what has ended costs nothing.
_UNFINISHED = [
    sa.select(_d.destination, sa.func.count(), sa.func.min(_d.created_at))
    .where(line)
    .group_by(_d.destination)
    for line in (schema.IN_LINE, schema.LATE_IN_LINE)
]
_STOPPED = (
    sa.select(_d.destination, _d.state, sa.func.count())
    .where(schema.STOPPED)
    .group_by(_d.destination, _d.state)
)
_EVENTS = sa.select(sa.func.count()).select_from(schema.events)
_UNUSUAL = sa.select(_e.standing, sa.func.count()).where(schema.UNUSUAL).group_by(_e.standing)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The store at one moment."""

    #: Deliveries of each destination that have not ended, and how old the oldest is, in seconds.
    backlog: Mapping[str, int]
    oldest_seconds: Mapping[str, float]
    #: Deliveries that are dead or held, by destination and state.
    stopped: Mapping[tuple[str, str], int]
    #: Destinations that are not served now.
    paused: frozenset[str]
    #: Events by their standing.
    events: Mapping[str, int]
    #: Bytes that the store takes.
    size: int


def read(database: Database) -> Figures:
    """Count now. Raises :class:`~relay.store.StoreUnavailable`."""
    now = database.clock()
    backlog: dict[str, int] = {}
    oldest: dict[str, datetime] = {}
    with database.reading() as db:
        for statement in _UNFINISHED:
            for name, number, created_at in db.execute(statement):
                backlog[name] = backlog.get(name, 0) + number
                oldest[name] = min(oldest.get(name, created_at), created_at)
        stopped = {(name, state): number for name, state, number in db.execute(_STOPPED)}
        events = {standing: number for standing, number in db.execute(_UNUSUAL)}
        events["accepted"] = db.execute(_EVENTS).scalar_one() - sum(events.values())
        paused = frozenset(load_pauses(db))
    return Figures(
        backlog=backlog,
        oldest_seconds={
            name: max((now - created_at).total_seconds(), 0.0)
            for name, created_at in oldest.items()
        },
        stopped=stopped,
        paused=paused,
        events=events,
        size=database.size(),
    )
