"""Questions about the store as a whole: do its invariants hold, and can it go on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.store import schema
from relay.store.database import KEPT, MORE, Database

#: How many of the newest events are checked for missing deliveries.
EVENTS_SEEN = 100_000

#: Connections that one node may open: its pool, and the one that wakes a worker.
BY_NODE = KEPT + MORE + 1

_LIMITS = """
    SELECT clock_timestamp() AS now,
        current_setting('fsync')::bool AS fsync,
        current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int AS connections,
        (SELECT sum(numbackends)::int FROM pg_stat_database) AS connected,
        pg_database_size(current_database()) AS size,
        current_setting('synchronous_standby_names') <> '' AS waits
"""
# A user without the right to see details still sees that they exist.
_STANDBYS = """
    SELECT coalesce(nullif(application_name, ''), 'a standby') AS name, state, sync_state,
        pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint AS behind
    FROM pg_stat_replication ORDER BY 1
"""
_SLOTS = """
    SELECT slot_name AS name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS kept
    FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL ORDER BY 1
"""

_d = schema.deliveries.c
_head = schema.deliveries.alias("head")


class Checkup:
    """Counts what must not exist, and what a person should know about."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def undelivered_events(self) -> int:
        """Return how many of the newest events matched a route but have no delivery."""
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
        """Return how many leases ran out before *before* and were not taken over."""
        return self._count(schema.deliveries, schema.IN_FLIGHT, _d.lease_until < before)

    def stuck_conversations(self) -> int:
        """Return the number of lanes in which a delivery waits behind no other."""
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
        """Return whether an attempt at *destination* started after *since*."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Standby:
    """A standby server; None stands for what the client may not see."""

    name: str
    state: str | None
    sync_state: str | None
    #: Bytes of the log that it has not replayed yet.
    behind: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """What a server says about itself."""

    now: datetime
    #: Whether committed data is on its disk.
    fsync: bool
    #: Connections that it allows, and those in use.
    connections: int
    connected: int
    #: Bytes of the database.
    size: int
    #: Whether a commit waits for a standby.
    waits: bool
    standbys: Sequence[Standby]
    #: Replication slots without a reader, and the bytes of log that each keeps on the disk.
    idle_slots: Mapping[str, int]


def look_at(database: Database) -> Server:
    """Ask the server of a PostgreSQL store. Raises StoreUnavailable."""
    with database.reading() as db:
        limits: dict[str, Any] = dict(db.execute(sa.text(_LIMITS)).mappings().one())
        standbys = [Standby(**row) for row in db.execute(sa.text(_STANDBYS)).mappings()]
        slots = {row.name: row.kept for row in db.execute(sa.text(_SLOTS))}
    return Server(**limits, standbys=standbys, idle_slots=slots)
