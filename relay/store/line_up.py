"""Lining up what a batch of arrivals delivers: new deliveries in turn, revived ones late."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.rules.restoring import DOUBT, Caution, caution
from relay.store import schema
from relay.store.database import Database
from relay.store.ids import new_id
from relay.store.lanes import forget_empty, lane_name, late_values
from relay.store.values import Arrival


@dataclass(kw_only=True)
class Batch:
    """What a batch changes in lanes; everything locked before lanes is locked by then."""

    #: Events that get deliveries, by id.
    new: dict[str, Arrival]
    #: Deliveries to revive, by number.
    dead: dict[int, InLane] = field(default_factory=dict)
    #: Events that may have been delivered before the store was restored.
    doubtful: set[str] = field(default_factory=set)
    #: Destinations that look before they write.
    looking: Collection[str]

    def new_deliveries(self) -> list[_NewDelivery]:
        return [
            _NewDelivery(
                event_id=event_id,
                destination=destination,
                arrival=arrival,
                lane_id=lane_name(destination, arrival.event.conversation),
                caution=caution(
                    doubtful=event_id in self.doubtful, looks=destination in self.looking
                ),
            )
            for event_id, arrival in self.new.items()
            for destination in arrival.match.destinations
        ]

    def due(self) -> Mapping[str, int]:
        """Return the number of deliveries that may be due now at each destination."""
        new = (name for each in self.new.values() for name in each.match.destinations)
        return Counter([*new, *(each.destination for each in self.dead.values())])


@dataclass(frozen=True, kw_only=True, slots=True)
class InLane:
    """A lane, and the arrival that puts a delivery into it."""

    lane_id: str
    destination: str
    arrival: Arrival
    #: What to do first because it may have been delivered already.
    caution: Caution

    @property
    def lane_row(self) -> dict[str, str]:
        return {
            "id": self.lane_id,
            "destination": self.destination,
            "conversation": self.arrival.event.conversation,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _NewDelivery(InLane):
    event_id: str

    def row(self, *, waiting: bool) -> dict[str, Any]:
        now = self.arrival.event.received_at
        return {
            "id": new_id("dlv"),
            "event_id": self.event_id,
            "destination": self.destination,
            "lane_id": self.lane_id,
            "key": delivery_key(self.arrival.key, self.destination),
            "state": (State.WAITING if waiting else State.PENDING).value,
            "due_at": None if waiting else now,
            "created_at": now,
            "config": self.arrival.config,
            "late": False,
            "repeat": self.caution is Caution.LOOK,
            "attempts": 0,
            "claims": 0,
        }

    def held_row(self) -> dict[str, Any]:
        row = self.row(waiting=True)
        return {**row, **_held(row["created_at"])}


class LineUp:
    """Lines up what batches deliver, by statements in the dialect of their database."""

    def __init__(self, database: Database) -> None:
        lanes = database.insert_locking(schema.lanes, key="id", same="destination")
        deliveries = sa.insert(schema.deliveries)
        self._lanes = database.prepare(lanes, columns=("id", "destination", "conversation"))
        self._busy = database.prepare_select(schema.lanes, _busy, columns=("id",))
        self._deliveries = database.prepare(deliveries, columns=_DELIVERY_COLUMNS)

    def add(self, db: sa.Connection, batch: Batch) -> None:
        """Add new deliveries to the ends of their lanes, and revived ones to the late ends."""
        new = batch.new_deliveries()
        lanes = {each.lane_id: each.lane_row for each in batch.dead.values()}
        lanes |= {each.lane_id: each.lane_row for each in new}
        if not lanes:
            return
        self._lanes.many(db, [lanes[lane_id] for lane_id in sorted(lanes)])
        gone = {
            each.lane_id for seq, each in sorted(batch.dead.items()) if not _revive(db, seq, each)
        }
        if gone:
            # The delivery, and maybe its lane, was removed while we waited for the lane.
            forget_empty(db, gone - {each.lane_id for each in new})
        if new:
            busy = self._busy_of(db, {each.lane_id for each in new})
            rows = []
            for each in new:
                if each.caution is Caution.ASK:
                    db.execute(sa.insert(schema.deliveries).values(each.held_row()))
                    continue
                rows.append(each.row(waiting=each.lane_id in busy))
                busy.add(each.lane_id)
            self._deliveries.many(db, rows)

    def _busy_of(self, db: sa.Connection, lane_ids: Iterable[str]) -> set[str]:
        """Return the lanes that have a delivery in line, or that wait for a person."""
        found = self._busy.scalars(db, ({"id": each} for each in lane_ids))
        return {lane_id for each in found if each for lane_id in each.split(",")}


def delivery_key(event_key: bytes, destination: str) -> str:
    """Return the key shared by all attempts to deliver one event to one destination."""
    return hashlib.sha256(event_key + destination.encode()).hexdigest()[:40]


def _revive(db: sa.Connection, seq: int, dead: InLane) -> bool:
    """Give a dead delivery a new series of attempts, late; return whether it was still dead."""
    table = schema.deliveries
    now = dead.arrival.event.received_at
    if dead.caution is Caution.ASK:
        values = _held(now)
    else:
        values = {**late_values(db, dead.lane_id, now=now), "reason": None, "ended_at": None}
    revived = db.execute(
        sa.update(table)
        .where(table.c.seq == seq, table.c.state == State.DEAD)
        .values(**values, trigger="scheduled", attempts=0, failing_since=None)
    )
    return bool(revived.rowcount)


def _held(now: datetime) -> dict[str, Any]:
    """Return what lets a person decide whether something is delivered."""
    return {"state": State.HELD.value, "repeat": True, "reason": DOUBT, "ended_at": now}


_DELIVERY_COLUMNS = (
    "id", "event_id", "destination", "lane_id", "key", "state", "due_at", "created_at",
    "config", "late", "repeat", "attempts", "claims",
)  # fmt: skip

# Not whether there is one: PostgreSQL may answer that from a hash of all deliveries in line.
_FIRST_IN_LINE = (
    sa.select(sa.func.min(schema.deliveries.c.seq))
    .where(schema.deliveries.c.lane_id == schema.lanes.c.id, schema.IN_LINE)
    .scalar_subquery()
)


def _busy(rows: sa.FromClause) -> sa.Select[Any]:
    """Ask which of the lanes in *rows* have a delivery in line, or wait for a person."""
    # One row, because SQLite's driver releases the interpreter at each row that it fetches.
    # The comma is no parameter, because parameters are those of the rows.
    comma: Any = sa.literal_column("','")
    return sa.select(sa.func.aggregate_strings(schema.lanes.c.id, comma)).where(
        schema.lanes.c.id == rows.c.id,
        sa.or_(_FIRST_IN_LINE.is_not(None), schema.lanes.c.parked_by.is_not(None)),
    )
