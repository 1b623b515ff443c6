"""The state of things now, from which :mod:`relay.rules.problems` finds what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.rules.health import Health
from relay.rules.problems import MOST_COUNTED, Calls, Facts, Process, Stopped
from relay.rules.signature import SigningKey
from relay.store import schema, seen
from relay.store.database import Database, OutOfRoom
from relay.store.nodes import Nodes
from relay.store.values import load_health

#: For how long back requests are counted, and how many of the newest, which bounds the cost.
WINDOW, NEWEST = timedelta(minutes=5), 500
#: Answers to a wrong signature, and to a path that is no endpoint.
MISMATCHED, STRAYED = 401, 404

_d, _e, _r, _a = schema.deliveries.c, schema.events.c, schema.requests.c, schema.alerts.c

#: Tests of ours or of a person do not count.
_NEWEST_EVENT = (
    sa.select(_e.received_at)
    .where(_e.standing == "accepted", ~_e.test)
    .order_by(_e.seq.desc())
    .limit(1)
)


def gather(
    database: Database,
    *,
    destinations: Collection[str],
    channels: Collection[str] = (),
    public_url: str | None = None,
    keys: Mapping[str, Sequence[SigningKey]] | None = None,
    window: timedelta = WINDOW,
) -> Facts:
    """Return the state of things; *keys*: of each endpoint. Raises StoreUnavailable."""
    now = database.clock()
    with database.reading() as db:
        return Facts(
            health=_health(db, destinations),
            stopped=_stopped(db, destinations),
            due_since=_due_since(db, destinations),
            calls=_calls(db, since=now - window),
            unsent=_unsent(db, channels),
            nodes=_nodes(database),
            no_room=_no_room(database),
            certificate=seen.certificate(db, public_url) if public_url else None,
            served=seen.served(db, now=now),
            old_secrets=seen.old_secrets(db, keys or {}),
            newest_event_at=db.scalar(_NEWEST_EVENT),
        )


def _health(db: sa.Connection, names: Collection[str]) -> Mapping[str, Health]:
    table = schema.destinations
    rows = db.execute(sa.select(table).where(table.c.name.in_(names))).mappings()
    return {row["name"]: load_health(row) for row in rows}


def _stopped(db: sa.Connection, names: Collection[str]) -> Mapping[str, Stopped]:
    # The newest only: dead deliveries may be many, and nobody has to settle them.
    found = {}
    for name in names:
        newest = sa.select(_d.state).where(_d.destination == name, schema.STOPPED)
        states = Counter(db.scalars(newest.order_by(_d.seq.desc()).limit(MOST_COUNTED)))
        if states:
            found[name] = Stopped(dead=states[State.DEAD], held=states[State.HELD])
    return found


def _due_since(db: sa.Connection, names: Collection[str]) -> Mapping[str, datetime]:
    # One look at the index for each: grouped, it would be read from end to end.
    found = {}
    for name in names:
        oldest = sa.select(_d.due_at).where(_d.destination == name, schema.PENDING)
        due_at = db.scalar(oldest.order_by(_d.due_at, _d.seq).limit(1))
        if due_at is not None:
            found[name] = due_at
    return found


def _calls(db: sa.Connection, *, since: datetime) -> Mapping[str, Calls]:
    events = sa.select(_e.endpoint, _e.received_at).order_by(_e.seq.desc()).limit(NEWEST)
    accepted = Counter(row.endpoint for row in db.execute(events) if row.received_at >= since)
    refused = sa.select(_r.endpoint, _r.status, _r.at).where(schema.REFUSED, _r.signed)
    refused = refused.order_by(_r.seq.desc()).limit(NEWEST)
    rows = [row for row in db.execute(refused) if row.at >= since]
    mismatched = Counter(row.endpoint for row in rows if row.status == MISMATCHED)
    strayed = Counter(row.endpoint for row in rows if row.status == STRAYED)
    return {
        path: Calls(accepted=accepted[path], mismatched=mismatched[path], strayed=strayed[path])
        for path in {*accepted, *mismatched, *strayed}
    }


def _unsent(db: sa.Connection, channels: Collection[str]) -> Mapping[str, str]:
    """Return the channels at which tries fail, and why."""
    failed = sa.select(_a.channel, _a.error).where(
        schema.UNSENT, _a.error.is_not(None), _a.channel.in_(channels)
    )
    return {row.channel: row.error for row in db.execute(failed.order_by(_a.seq.desc()))}


def _nodes(database: Database) -> Sequence[Process]:
    return [
        Process(
            name=view.name,
            role=view.node.role,
            host=view.node.host,
            started_at=view.node.started_at or view.beat_at,
            beat_at=view.beat_at,
            is_alive=view.state == "alive",
            is_outdated=view.node.is_outdated,
        )
        for view in Nodes(database).nodes()
        if view.node is not None and view.beat_at is not None
    ]


def _no_room(database: Database) -> str:
    try:
        database.require_room()
    except OutOfRoom as error:
        return str(error)
    return ""
