"""How much came in, and how much arrived, minute by minute?

A node counts each minute once (:class:`Traffic`), when the attempts that began in it have ended.
So a chart of a week adds up small numbers; only the newest minutes are counted when asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from relay.rules.delivery import OutcomeKind
from relay.store import candidates, schema
from relay.store.database import Database

MINUTE = timedelta(minutes=1)
#: How long a minute is over before it is counted, and how long its numbers are kept.
SETTLED_AFTER, KEPT = MINUTE, timedelta(days=31)
#: Minutes that are counted after a pause, and minutes of one step.
CAUGHT_UP, STEP = timedelta(days=7), 30
#: Minutes that are counted when asked, because no node has counted them yet.
COUNTED_WHEN_ASKED = 4
#: Attempts of a destination and a minute whose outcomes are looked at then: of more, these are
#: the sample.
SAMPLE = 1000
#: What only one node does at a time.
LOCK = "traffic"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_t, _e, _a = schema.traffic.c, schema.events.c, schema.attempts.c


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """A part of a chart."""

    begins_at: datetime
    #: Events that were received, and attempts begun that delivered.
    came: int
    arrived: int


class Traffic:
    """The numbers of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self, *, limit: int = STEP) -> int:
        """Count up to *limit* minutes that are over, and return how many that were.

        If these are fewer, none are left.
        """
        with self._database.reading() as db:
            now = self._database.clock()
            newest = _newest(db)
            end = _minute(now - SETTLED_AFTER)
            first = max(_minute(now - CAUGHT_UP), -1 if newest is None else newest + 1)
            if first >= end:
                return 0
            # Minutes without anything have no row, except the last one that was looked at.
            first = int(min(_busy_from(db, first), end - 1))
            rows = [
                {"minute": minute, "came": _came(db, minute), "arrived": _arrived(db, minute)}
                for minute in range(first, min(end, first + limit))
            ]
        with self._database.writing_unsynced() as db:
            if not self._database.try_exclusive(db, LOCK) or _newest(db) != newest:
                return 0  # another node is at it
            db.execute(sa.insert(schema.traffic), rows)
            db.execute(sa.delete(schema.traffic).where(_t.minute < _minute(now - KEPT)))
        return len(rows)

    def series(self, *, since: datetime, until: datetime, size: timedelta) -> Sequence[Bucket]:
        """Return what came and arrived from *since* to *until*, in buckets of *size*.

        All three are whole minutes. Minutes that nobody has counted are zero.
        """
        first, end, width = _minute(since), _minute(until), size // MINUTE
        came, arrived = [0] * -(-(end - first) // width), [0] * -(-(end - first) // width)
        bucket = ((_t.minute - first) // width).label("bucket")
        summed = sa.select(bucket, sa.func.sum(_t.came), sa.func.sum(_t.arrived))
        summed = summed.where(_t.minute >= first, _t.minute < end).group_by(sa.text("bucket"))
        with self._database.reading() as db:
            for number, of_events, of_attempts in db.execute(summed):
                came[number], arrived[number] = int(of_events), int(of_attempts)
            for minute in self._uncounted(db):
                if first <= minute < end:
                    came[(minute - first) // width] += _came(db, minute)
                    arrived[(minute - first) // width] += _arrived(db, minute, sample=SAMPLE)
        return [
            Bucket(begins_at=since + number * size, came=of_events, arrived=of_attempts)
            for number, (of_events, of_attempts) in enumerate(zip(came, arrived, strict=True))
        ]

    def _uncounted(self, db: sa.Connection) -> range:
        """Return the newest minutes that are not counted yet."""
        now = _minute(self._database.clock())
        newest = _newest(db)
        after = now - COUNTED_WHEN_ASKED if newest is None else newest
        return range(max(after, now - COUNTED_WHEN_ASKED) + 1, now + 1)


def _newest(db: sa.Connection) -> int | None:
    newest: int | None = db.scalar(sa.select(sa.func.max(_t.minute)))
    return newest


def _busy_from(db: sa.Connection, minute: int) -> float:
    """Return the first minute from *minute* on in which anything came or was tried."""
    begin = _EPOCH + minute * MINUTE
    firsts = [
        db.scalar(sa.select(sa.func.min(_e.received_at)).where(_e.received_at >= begin)),
        *(
            db.scalar(
                sa.select(sa.func.min(_a.started_at)).where(
                    _a.destination == name, _a.started_at >= begin
                )
            )
            for name in candidates.attempted(db)
        ),
    ]
    return min((_minute(at) for at in firsts if at is not None), default=math.inf)


def _came(db: sa.Connection, minute: int) -> int:
    received = _within(_e.received_at, minute)
    return db.scalar(sa.select(sa.func.count()).select_from(schema.events).where(*received)) or 0


def _arrived(db: sa.Connection, minute: int, *, sample: int | None = None) -> int:
    """Count the attempts that began in *minute* and delivered.

    *sample*: of how many the outcomes are looked at, at the most.
    """
    started = _within(_a.started_at, minute)
    arrived = 0
    for name in candidates.attempted(db):
        these = sa.select(_a.outcome).where(_a.destination == name, *started)
        some = these.order_by(_a.started_at).limit(sample).subquery()
        is_delivered = some.c.outcome == OutcomeKind.DELIVERED.value
        seen, delivered = db.execute(
            sa.select(sa.func.count(), sa.func.count(sa.case((is_delivered, 1)))).select_from(some)
        ).one()
        if sample is not None and seen == sample:
            # The index tells how many began, and no more.
            all_of_them = sa.select(sa.func.count()).select_from(schema.attempts)
            number = db.scalar(all_of_them.where(_a.destination == name, *started)) or 0
            delivered = round(number * delivered / seen)
        arrived += delivered
    return arrived


def _within(column: sa.Column[datetime], minute: int) -> Sequence[sa.ColumnElement[bool]]:
    begin = _EPOCH + minute * MINUTE
    return column >= begin, column < begin + MINUTE


def _minute(moment: datetime) -> int:
    return (moment - _EPOCH) // MINUTE
