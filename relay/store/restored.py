"""A store that was put back from a backup: what it says of itself, and what it may repeat."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from relay.rules.delivery import OutcomeKind, State
from relay.rules.restoring import DOUBT, Window
from relay.store import schema
from relay.store.database import Database
from relay.store.values import COMMAND_LINE

#: The mark of a backup until :func:`mark` has been through it, and that of a restored store.
BACKUP, RESTORED = "backup", "restored"

#: Why a backup must not be used.
IS_BACKUP = (
    "this is a backup, which would deliver again what was delivered since:"
    " put it back with gofax-relay restore FILE"
)

_UNFINISHED = (State.WAITING, State.PENDING, State.IN_FLIGHT)
_deliveries, _attempts, _marks = schema.deliveries, schema.attempts, schema.marks
_d, _a = _deliveries.c, _attempts.c


@dataclass(frozen=True, kw_only=True, slots=True)
class Marked:
    """What a restore made of the deliveries that were not over."""

    window: Window
    #: Deliveries whose connector looks first, and those that a person decides about.
    repeated: int
    held: int
    #: Destinations that wait until a person resumes them.
    paused: tuple[str, ...]


def objection(database: Database) -> str:
    """Return why a store must not be used: it is a backup as it was made; else nothing."""
    with database.reading() as db:
        if not sa.inspect(db).has_table(_marks.name) or _mark(db, BACKUP) is None:
            return ""
    return IS_BACKUP


def window_of(database: Database) -> Window | None:
    """Return the time that a restored store knows nothing of; None: it was never restored."""
    with database.reading() as db:
        found = _mark(db, RESTORED)
    if found is None:
        return None
    return Window(**{name: datetime.fromisoformat(at) for name, at in json.loads(found).items()})


def forget_window(database: Database) -> bool:
    """Take what comes as new from now on; return whether the store had been restored."""
    with database.writing() as db:
        return bool(db.execute(sa.delete(_marks).where(_marks.c.name == RESTORED)).rowcount)


def mark(
    database: Database, *, looking: Collection[str], destinations: Collection[str], who: str
) -> Marked:
    """Let a backup that was put back repeat nothing without looking or asking.

    *looking*: destinations that look before they write; *destinations*: all of the config.
    """
    with database.writing() as db:
        database.hold_exclusive(db, "restore")
        now = database.clock()
        window = Window(since=_last_known(db) or now, until=now)
        _end_attempts(db, now)
        held = _hold(db, looking, now)
        repeated = _repeat(db, now)
        paused = _pause(db, destinations, window)
        _note(database, db, window, who)
    return Marked(window=window, repeated=repeated, held=held, paused=paused)


def _last_known(db: sa.Connection) -> datetime | None:
    """Return the last moment of which the store knows; a copy that was made otherwise has one."""
    columns = (
        schema.backups.c.at,
        schema.events.c.received_at,
        schema.nodes.c.beat_at,
        _a.started_at,
    )
    found = (db.scalar(sa.select(sa.func.max(column))) for column in columns)
    return max((at for at in found if at is not None), default=None)


def _end_attempts(db: sa.Connection, now: datetime) -> None:
    running = _a.ended_at.is_(None)
    detail = "nobody knows: the store was put back from a backup"
    db.execute(
        sa.update(_attempts)
        .where(running)
        .values(ended_at=now, outcome=OutcomeKind.AMBIGUOUS, detail=detail)
    )


def _hold(db: sa.Connection, looking: Collection[str], now: datetime) -> int:
    """Let a person decide about what was not over, where the connector cannot look."""
    blind = _d.state.in_(_UNFINISHED), _d.destination.not_in(looking)
    values = {"state": State.HELD, "reason": DOUBT, "ended_at": now, "due_at": None}
    return db.execute(sa.update(_deliveries).where(*blind).values(values | _FRESH)).rowcount


def _repeat(db: sa.Connection, now: datetime) -> int:
    """Let everything else be looked for first, what stopped included: it may have been resent."""
    over = _d.state.in_((State.DEAD, State.HELD))
    db.execute(sa.update(_deliveries).where(over).values(repeat=True))
    db.execute(
        sa.update(_deliveries)
        .where(schema.IN_FLIGHT)
        .values(state=State.PENDING, due_at=now, lease_until=None)
    )
    unfinished = _d.state.in_(_UNFINISHED)
    return db.execute(sa.update(_deliveries).where(unfinished).values(_FRESH)).rowcount


#: A new series of attempts: the failures of the old one may be of long ago.
_FRESH = {
    "repeat": True,
    "attempts": 0,
    "failing_since": None,
    "node": None,
    "lease_until": None,
}


def _pause(db: sa.Connection, destinations: Collection[str], window: Window) -> tuple[str, ...]:
    """Serve nobody until a person says so."""
    named = sa.select(_d.destination).where(_d.state.in_(_UNFINISHED)).distinct()
    paused = tuple(sorted({*destinations, *db.scalars(named)}))
    db.execute(sa.delete(schema.destinations))
    if paused:
        reason = f"a backup of {window.since:%Y-%m-%d %H:%M} UTC was put back"
        same = {"failures": 0, "cause": "operator", "reason": reason, "since": window.until}
        rows = [{"name": name, **same, "until": None} for name in paused]
        db.execute(sa.insert(schema.destinations), rows)
    return paused


def _note(database: Database, db: sa.Connection, window: Window, who: str) -> None:
    db.execute(sa.delete(schema.nodes))
    db.execute(sa.delete(_marks).where(_marks.c.name.in_([BACKUP, RESTORED])))
    times = {"since": window.since.isoformat(), "until": window.until.isoformat()}
    db.execute(sa.insert(_marks).values(name=RESTORED, value=json.dumps(times).encode()))
    detail = f"the store is that of {times['since']}"
    said = {"at": window.until, "who": who, "what": "restore", "detail": detail}
    db.execute(sa.insert(schema.actions).values(**said, origin=COMMAND_LINE))


def _mark(db: sa.Connection, name: str) -> bytes | None:
    return db.scalar(sa.select(_marks.c.value).where(_marks.c.name == name))
