"""What a client can see of a PostgreSQL server: its limits, its clock, its standbys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.store import postgres
from relay.store.database import Database

#: Connections that one node may open: its pool, and the one on which a worker is woken.
BY_NODE = postgres.KEPT + postgres.MORE + 1

_LIMITS = """
    SELECT clock_timestamp() AS now,
        current_setting('fsync')::bool AS fsync,
        current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int AS connections,
        (SELECT sum(numbackends)::int FROM pg_stat_database) AS connected,
        pg_database_size(current_database()) AS size,
        current_setting('synchronous_standby_names') <> '' AS waits
"""
# Who may not see more of them sees that they are there.
_STANDBYS = """
    SELECT coalesce(nullif(application_name, ''), 'a standby') AS name, state, sync_state,
        pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint AS behind
    FROM pg_stat_replication ORDER BY 1
"""
_SLOTS = """
    SELECT slot_name AS name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS kept
    FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL ORDER BY 1
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standby:
    """A server that follows; what the client may not see of it is None."""

    name: str
    state: str | None
    sync_state: str | None
    #: Bytes of the log that it has not replayed.
    behind: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """What a server says of itself."""

    now: datetime
    #: Whether what is committed is on its disk.
    fsync: bool
    #: Connections that it grants, and those that there are.
    connections: int
    connected: int
    #: Bytes of the database.
    size: int
    #: Whether a commit waits for a standby.
    waits: bool
    standbys: Sequence[Standby]
    #: Replication slots that nobody reads, and the bytes of log that each keeps on the disk.
    idle_slots: Mapping[str, int]


def look_at(database: Database) -> Server:
    """Ask the server of a PostgreSQL store. Raises StoreUnavailable."""
    with database.reading() as db:
        limits: dict[str, Any] = dict(db.execute(sa.text(_LIMITS)).mappings().one())
        standbys = [Standby(**row) for row in db.execute(sa.text(_STANDBYS)).mappings()]
        slots = {row.name: row.kept for row in db.execute(sa.text(_SLOTS))}
    return Server(**limits, standbys=standbys, idle_slots=slots)
