"""Questions about the store as a whole: does everything hold that has to hold?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.store import schema
from relay.store.database import Database

#: How many of the newest events are looked at for deliveries that are missing.
EVENTS_SEEN = 100_000

_d = schema.deliveries.c
_head = schema.deliveries.alias("head")


class Checkup:
    """Counts what must not be there, and what a person should know of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def undelivered_events(self) -> int:
        """Return how many of the newest events matched a route and have no delivery."""
        c = schema.events.c
        newest = sa.select(sa.func.max(c.seq)).scalar_subquery()
        matched = sa.or_(
            c.routing.contains('"matched":true', autoescape=True),
            c.routing.contains('"matched": true', autoescape=True),
        )
        has_none = ~sa.select(1).where(_d.event_id == c.id).exists()
        return self._count(
            schema.events,
            c.seq > newest - EVENTS_SEEN,
            c.standing == "accepted",
            matched,
            has_none,
        )

    def expired_leases(self, before: datetime) -> int:
        """Return how many leases ran out before *before*, and nobody took their work over."""
        return self._count(schema.deliveries, schema.IN_FLIGHT, _d.lease_until < before)

    def stuck_conversations(self) -> int:
        """Return in how many lanes somebody waits behind nobody."""
        h, lanes = _head.c, schema.lanes.c
        at_head = sa.select(1).where(
            h.lane_id == _d.lane_id, h.state.in_([State.PENDING, State.IN_FLIGHT])
        )
        parked = sa.select(1).where(lanes.id == _d.lane_id, lanes.parked_by.is_not(None))
        waits = _d.state == State.WAITING
        in_order = schema.IN_LINE, waits, ~at_head.where(~h.late).exists(), ~parked.exists()
        late = schema.LATE_IN_LINE, waits, ~at_head.where(h.late).exists()
        stuck = sa.union(*(sa.select(_d.lane_id).where(*each) for each in (in_order, late)))
        with self._database.reading() as db:
            found = sa.select(sa.func.count()).select_from(stuck.subquery())
            return int(db.execute(found).scalar_one())

    def overdue(self, before: datetime) -> Mapping[str, int]:
        """Return how many deliveries of each destination were due before *before*."""
        wanted = (
            sa.select(_d.destination, sa.func.count().label("number"))
            .where(schema.PENDING, _d.due_at < before)
            .group_by(_d.destination)
        )
        with self._database.reading() as db:
            return {row.destination: row.number for row in db.execute(wanted)}

    def is_served(self, destination: str, *, since: datetime) -> bool:
        """Return whether an attempt at *destination* was begun after *since*."""
        c = schema.attempts.c
        begun = sa.select(c.seq).where(c.destination == destination, c.started_at > since)
        with self._database.reading() as db:
            return db.execute(begun.limit(1)).first() is not None

    def newest_event(self) -> datetime | None:
        """Return when the newest event was accepted."""
        c = schema.events.c
        with self._database.reading() as db:
            newest = sa.select(c.received_at).order_by(c.seq.desc()).limit(1)
            return db.execute(newest).scalar_one_or_none()

    def _count(self, table: sa.Table, *where: sa.ColumnExpressionArgument[bool]) -> int:
        with self._database.reading() as db:
            counted = sa.select(sa.func.count()).select_from(table).where(*where)
            return int(db.execute(counted).scalar_one())
