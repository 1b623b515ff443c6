"""Recording how attempts ended, many in one transaction, each fenced by its lease."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.rules.delivery import Decision, OutcomeKind, State
from relay.store import schema
from relay.store.database import Database
from relay.store.lanes import promote_all
from relay.store.values import Record

_deliveries, _attempts, _lanes = schema.deliveries, schema.attempts, schema.lanes
_d = _deliveries.c

#: States in which a success still counts that came after its lease was lost.
_UNSETTLED = (State.WAITING, State.PENDING, State.HELD, State.DEAD)

_ROWS = (
    sa.select(_d.id, _d.state, _d.claims, _d.lease_until, _d.late, _d.reference)
    .where(_d.id.in_(sa.bindparam("b_ids", expanding=True)))
    .order_by(_d.seq)
    .with_for_update()
)

_SETTLEMENT = (
    "id", "state", "due_at", "hurry_from", "attempts", "repeat", "failing_since", "reason",
    "reference", "url", "ended_at", "node", "lease_until",
)  # fmt: skip
_ENDING = ("id", "ended_at", "outcome", "detail", "status")


def _settle(rows: sa.FromClause) -> sa.Update:
    kept = {name: sa.func.coalesce(rows.c[name], _d[name]) for name in ("reference", "url")}
    changed = {name: rows.c[name] for name in _SETTLEMENT[1:]}
    return sa.update(_deliveries).where(_d.id == rows.c.id).values({**changed, **kept})


def _end(rows: sa.FromClause) -> sa.Update:
    changed = {name: rows.c[name] for name in _ENDING[1:]}
    return sa.update(_attempts).where(_attempts.c.id == rows.c.id).values(changed)


def _bound(table: sa.Table, *names: str) -> dict[str, sa.ColumnElement[Any]]:
    return {name: sa.bindparam(f"b_{name}", type_=table.c[name].type) for name in names}


_ARRIVE = (
    sa.update(_deliveries)
    .where(_d.id == sa.bindparam("b_id"))
    .values(**_bound(_deliveries, "reference", "url"))
)
# A late record may replace "nobody knows" with what happened, never the reverse.
_END_LATE = (
    sa.update(_attempts)
    .where(
        _attempts.c.id == sa.bindparam("b_id"),
        sa.or_(_attempts.c.outcome.is_(None), _attempts.c.outcome == OutcomeKind.AMBIGUOUS),
    )
    .values(**_bound(_attempts, *_ENDING[1:]))
)
_KEEP_THREAD = (
    sa.update(_lanes)
    .where(_lanes.c.id == sa.bindparam("b_lane"))
    .values(thread=sa.bindparam("b_thread"))
)
_PARK = (
    sa.update(_lanes)
    .where(_lanes.c.id == sa.bindparam("b_lane"))
    .values(parked_by=sa.bindparam("b_delivery"))
)
_UNPARK = (
    sa.update(_lanes)
    .where(_lanes.c.id == sa.bindparam("b_lane"), _lanes.c.parked_by == sa.bindparam("b_delivery"))
    .values(parked_by=None)
)


@dataclass(slots=True)
class _DeliveryRow:
    """A delivery's row, as the records of this transaction change it."""

    id: str
    state: str
    claims: int
    lease_until: datetime | None
    late: bool
    #: Set if an attempt that lost its lease has arrived while another is under way.
    reference: str | None


@dataclass(slots=True)
class _Writes:
    """What one transaction has to write, statement by statement."""

    arrive: list[dict[str, Any]] = field(default_factory=list)
    #: By delivery and by attempt; if there are two records of one, the last one counts.
    settle: dict[str, dict[str, Any]] = field(default_factory=dict)
    end: dict[str, dict[str, Any]] = field(default_factory=dict)
    end_late: list[dict[str, Any]] = field(default_factory=list)
    keep_thread: list[dict[str, Any]] = field(default_factory=list)
    park: list[dict[str, Any]] = field(default_factory=list)
    unpark: list[dict[str, Any]] = field(default_factory=list)
    promote: list[tuple[str, datetime]] = field(default_factory=list)
    promote_late: list[tuple[str, datetime]] = field(default_factory=list)


class Results:
    """Writes how attempts ended and what follows."""

    def __init__(self, database: Database) -> None:
        prepare = database.prepare_update
        self._settle = prepare(_deliveries, _settle, columns=_SETTLEMENT)
        self._end = prepare(_attempts, _end, columns=_ENDING)

    def record(self, db: sa.Connection, records: Sequence[Record]) -> None:
        """Write *records*. The caller has locked their lanes."""
        rows = _rows_of(db, {record.claim.delivery_id for record in records})
        writes = _Writes()
        for record in records:
            row = rows.get(record.claim.delivery_id)
            if row is not None and _settles(record, row):
                _add_settled(writes, record, row)
            else:
                _add_late(writes, record, row)
        self._execute(db, writes)

    def _execute(self, db: sa.Connection, writes: _Writes) -> None:
        _each(db, _ARRIVE, writes.arrive)
        self._settle.many(db, writes.settle.values())
        self._end.many(db, writes.end.values())
        _each(db, _END_LATE, writes.end_late)
        _each(db, _KEEP_THREAD, writes.keep_thread)
        _each(db, _PARK, writes.park)
        _each(db, _UNPARK, writes.unpark)
        promote_all(db, writes.promote)
        promote_all(db, writes.promote_late, late=True)


def _each(db: sa.Connection, statement: sa.Update, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        db.execute(statement, rows)


def _rows_of(db: sa.Connection, ids: Iterable[str]) -> dict[str, _DeliveryRow]:
    rows = db.execute(_ROWS, {"b_ids": sorted(ids)})
    return {row[0]: _DeliveryRow(*row) for row in rows}


def _settles(record: Record, row: _DeliveryRow) -> bool:
    """Return whether this record decides; it does not if another took over its lease."""
    claim = record.claim
    if row.state == State.IN_FLIGHT and row.claims == claim.number:
        # A worker that has renewed the lease since is not lost.
        return not record.lost or row.lease_until == claim.lease_until
    # The lease was lost, but the delivery arrived: that decides unless it is in flight again.
    return record.outcome.kind is OutcomeKind.DELIVERED and row.state in _UNSETTLED


def _add_settled(writes: _Writes, record: Record, row: _DeliveryRow) -> None:
    claim, decision = record.claim, _decided(record, row)
    if row.state != State.IN_FLIGHT:
        writes.unpark.append({"b_lane": claim.lane_id, "b_delivery": claim.delivery_id})
    writes.settle[claim.delivery_id] = _settlement(record, decision)
    writes.end[claim.attempt_id] = _ending(record)
    _add_thread(writes, record)
    if row.late:
        # A late delivery is outside of the order: it parks nothing, and promotes only late ones.
        if decision.ends:
            writes.promote_late.append((claim.lane_id, record.ended_at))
    elif decision.parks:
        writes.park.append({"b_lane": claim.lane_id, "b_delivery": claim.delivery_id})
    elif decision.ends:
        writes.promote.append((claim.lane_id, record.ended_at))
    row.state, row.lease_until = decision.state, None


def _add_late(writes: _Writes, record: Record, row: _DeliveryRow | None) -> None:
    """Complete the attempt; if it arrived while another is under way, note that."""
    if record.lost:
        # It is not lost: its lease was renewed, or its end was recorded.
        return
    bound = {f"b_{name}": value for name, value in _ending(record).items()}
    writes.end_late.append(bound)
    receipt = record.outcome.receipt
    if receipt is None or row is None or row.state != State.IN_FLIGHT:
        return
    row.reference = receipt.reference
    place = {"b_reference": receipt.reference, "b_url": receipt.url}
    writes.arrive.append({"b_id": record.claim.delivery_id, **place})
    _add_thread(writes, record)


def _decided(record: Record, row: _DeliveryRow) -> Decision:
    """Return what the rules say, unless an earlier attempt is known to have arrived."""
    decision = record.decision
    if decision.state is State.DELIVERED or row.reference is None:
        return decision
    return Decision(state=State.DELIVERED, attempts=decision.attempts, repeat=decision.repeat)


def _add_thread(writes: _Writes, record: Record) -> None:
    receipt = record.outcome.receipt
    if receipt is not None and receipt.thread not in (None, record.claim.thread):
        lane_id = record.claim.lane_id
        writes.keep_thread.append({"b_lane": lane_id, "b_thread": receipt.thread})


def _settlement(record: Record, decision: Decision) -> dict[str, Any]:
    receipt = record.outcome.receipt
    reason = decision.reason or record.outcome.detail
    return {
        "id": record.claim.delivery_id,
        "state": decision.state,
        "due_at": decision.due_at,
        "hurry_from": decision.hurry_from,
        "attempts": decision.attempts,
        "repeat": decision.repeat,
        "failing_since": decision.failing_since,
        "reason": None if decision.state is State.DELIVERED else reason or None,
        "reference": receipt and receipt.reference,
        "url": receipt and receipt.url,
        "ended_at": record.ended_at if decision.ends else None,
        "node": None,
        "lease_until": None,
    }


def _ending(record: Record) -> dict[str, Any]:
    outcome = record.outcome
    return {
        "id": record.claim.attempt_id,
        "ended_at": record.ended_at,
        "outcome": outcome.kind,
        "detail": outcome.detail or None,
        "status": outcome.status,
    }
