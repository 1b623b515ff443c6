"""The health of destinations, shared by all workers: read under a lock, written on change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog

from relay.rules.health import Health, health_after
from relay.rules.units import RateLimit
from relay.store import schema
from relay.store.database import Database
from relay.store.values import Connection, Record, health_row, load_health

log = structlog.get_logger()

#: Called with a destination whose pause has begun, and with the cause. Must not wait.
Paused = Callable[[str, str], None]

#: Rates are exact while the clocks of two workers differ by no more than this.
SKEW = timedelta(seconds=5)

#: How many waits one transaction ends.
BATCH = 100

_table = schema.destinations
_KNOWN = (
    sa.select(_table)
    .where(_table.c.name.in_(sa.bindparam("b_names", expanding=True)))
    .order_by(_table.c.name)
    .with_for_update()
)
# An attempt that seems to start in the future started before the clock was set back.
_started_at = schema.attempts.c.started_at
_RECENT = (
    schema.attempts.c.destination.in_(sa.bindparam("b_names", expanding=True)),
    _started_at > sa.bindparam("b_from", type_=schema.UtcTime()),
    _started_at <= sa.bindparam("b_to", type_=schema.UtcTime()),
)
_HOW_MANY = sa.select(sa.func.count()).select_from(schema.attempts).where(*_RECENT)
_WHEN = sa.select(_started_at).where(*_RECENT)


_deliveries, _d = schema.deliveries, schema.deliveries.c
_WAITS = (
    sa.select(_d.seq)
    .where(
        _d.destination == sa.bindparam("b_name"),
        schema.HURRIED,
        _d.hurry_from <= sa.bindparam("b_back_at", type_=schema.UtcTime()),
    )
    .order_by(_d.hurry_from)
    .limit(BATCH)
    .with_for_update(skip_locked=True)
)
# Due since they were made, so that they go before what came later.
_END_WAITS = (
    sa.update(_deliveries)
    .where(_d.seq.in_(sa.bindparam("b_seqs", expanding=True)))
    .values(due_at=_d.created_at, hurry_from=None)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A destination whose health has changed."""

    destination: str
    before: Health
    after: Health

    @property
    def is_back(self) -> bool:
        """Whether it answered again, so that what waited for it became due."""
        return self.after.back_at not in (None, self.before.back_at)


def locked(db: sa.Connection, destination: str) -> Health:
    """Return the health of a destination, locked until this transaction ends."""
    return _known(db, [destination]).get(destination, Health())


def within(
    database: Database,
    db: sa.Connection,
    rate: RateLimit,
    connection: Connection,
    *,
    now: datetime,
) -> int:
    """Return how many deliveries *rate* lets all destinations of *connection* start now.

    None may start while another node claims there, because its number is not known yet.
    """
    if not database.try_exclusive(db, f"claim {connection.name}"):
        return 0
    window = {"b_from": now - rate.memory, "b_to": now + SKEW}
    recent = {"b_names": connection.destinations, **window}
    if not rate.is_spread:
        return rate.count - int(db.execute(_HOW_MANY, recent).scalar_one())
    return rate.room(db.scalars(_WHEN, recent).all(), now=now)


def end_waits(db: sa.Connection, name: str, health: Health) -> Health:
    """Make a batch of what waits for a returned destination due; return the health after it."""
    if health.back_at is None or health.pause is not None:
        return health
    seqs = db.scalars(_WAITS, {"b_name": name, "b_back_at": health.back_at}).all()
    if not seqs:
        return replace(health, back_at=None)
    db.execute(_END_WAITS, {"b_seqs": seqs})
    return health


def note(database: Database, db: sa.Connection, records: Sequence[Record]) -> Sequence[Turn]:
    """Write the health of the destinations of *records*; return those that it changed."""
    before = _known(db, sorted({record.claim.destination for record in records}))
    after = _after(before, records)
    unknown = [name for name in sorted(after) if name not in before and after[name] != Health()]
    if unknown:
        # Two workers may find a failure at the same time; the row lets them take turns.
        _make(database, db, unknown)
        before |= _known(db, unknown)
        after = _after(before, records)
    turns = []
    for name, health in after.items():
        turn = Turn(destination=name, before=before.get(name, Health()), after=health)
        if turn.is_back:
            health = end_waits(db, name, health)
        if health != turn.before:
            write(database, db, name, health)
            turns.append(turn)
    return turns


def say(turns: Iterable[Turn], *, paused: Paused = lambda destination, cause: None) -> None:
    """Log the pauses that began or ended; call it when the change is committed.

    *paused* is called for each that began.
    """
    for turn in turns:
        before, after = turn.before.pause, turn.after.pause
        if after is not None and (before is None or before.cause != after.cause):
            # Waiting as it asks is how a busy destination is served.
            level = logging.INFO if after.cause == "throttled" else logging.WARNING
            until = after.until and after.until.isoformat()
            said = {"cause": after.cause, "reason": after.reason or None, "until": until}
            log.log(level, "destination.paused", destination=turn.destination, **said)
            paused(turn.destination, after.cause)
        if before is not None and after is None:
            log.info("destination.resumed", destination=turn.destination, cause=before.cause)


def _after(before: Mapping[str, Health], records: Sequence[Record]) -> dict[str, Health]:
    after = dict(before)
    for record in records:
        name = record.claim.destination
        after[name] = health_after(
            after.get(name, Health()),
            record.outcome,
            claimed_at=record.claim.claimed_at,
            now=record.ended_at,
        )
    return after


def _make(database: Database, db: sa.Connection, names: Sequence[str]) -> None:
    rows = [health_row(name, Health()) for name in names]
    db.execute(database.insert(_table).on_conflict_do_nothing(), rows)


def write(database: Database, db: sa.Connection, name: str, health: Health) -> None:
    """Write *health*; a healthy destination has no row."""
    if health == Health():
        db.execute(sa.delete(_table).where(_table.c.name == name))
        return
    insert = database.insert(_table).values(health_row(name, health))
    changed = {each.name: insert.excluded[each.name] for each in _table.c if not each.primary_key}
    db.execute(insert.on_conflict_do_update(index_elements=[_table.c.name], set_=changed))


def _known(db: sa.Connection, names: Sequence[str]) -> dict[str, Health]:
    rows = db.execute(_KNOWN, {"b_names": names}).mappings()
    return {row["name"]: load_health(row) for row in rows}
