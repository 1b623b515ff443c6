"""Taking back what a person did, where nothing was sent and nothing else has changed since."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.rules.recovery import Before, Change, ChangeKind, FoundDelivery
from relay.store import schema, targets
from relay.store.database import Database
from relay.store.lanes import forget_empty, late_values, promote
from relay.store.search import Unknown

_deliveries, _lanes = schema.deliveries, schema.lanes
_d, _a = schema.deliveries.c, schema.actions.c


@dataclass(frozen=True, kw_only=True, slots=True)
class ActNoted:
    """What the audit log has of one act."""

    what: str
    who: str
    why: str | None
    origin: str | None
    #: How many things were done, and when the first and the last of them was.
    number: int
    began_at: datetime
    ended_at: datetime


class Acts:
    """Finds what a person did in one act, by the name that the command printed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self, act: str) -> int:
        """Return how many deliveries were changed. Raises :class:`Unknown` without such an act."""
        counted = sa.select(sa.func.count(), sa.func.count(_a.before)).where(_a.act == act)
        with self._database.reading() as db:
            known, changed = db.execute(counted).one()
        if not known:
            raise Unknown(f'no act "{act}"')
        return int(changed)

    def noted(self, act: str) -> ActNoted:
        """Return what was noted of an act. Raises :class:`Unknown` without such an act."""
        of_act = sa.select(schema.actions).where(_a.act == act)
        with self._database.reading() as db:
            number = db.scalar(sa.select(sa.func.count()).where(_a.act == act)) or 0
            first = db.execute(of_act.order_by(_a.seq).limit(1)).mappings().first()
            last = db.execute(of_act.order_by(_a.seq.desc()).limit(1)).mappings().first()
        if first is None or last is None:
            raise Unknown(f'no act "{act}"')
        return ActNoted(
            what=first["what"],
            who=first["who"],
            why=first["why"],
            origin=first["origin"],
            number=number,
            began_at=first["at"],
            ended_at=last["at"],
        )

    def pages(self, act: str, *, size: int) -> Iterator[Sequence[tuple[FoundDelivery, Before]]]:
        """Yield the deliveries as they are now and were before, newest change first."""
        last = None
        while True:
            wanted = sa.select(_a.seq, _a.before).where(_a.act == act, _a.before.is_not(None))
            wanted = wanted.where(_a.seq < last) if last else wanted
            with self._database.reading() as db:
                rows = db.execute(wanted.order_by(_a.seq.desc()).limit(size)).all()
                before = [Before.from_json(row.before) for row in rows]
                found = targets.deliveries_with(db, [each.delivery_id for each in before])
            if not rows:
                return
            last = rows[-1].seq
            yield [(found[each.delivery_id], each) for each in before if each.delivery_id in found]

    def pauses(self, act: str) -> Sequence[str]:
        """Return the destinations that this act paused, and that are paused by it still."""
        table = schema.destinations.c
        paused = sa.select(_a.destination).where(
            _a.act == act,
            _a.what == "pause",
            table.name == _a.destination,
            table.cause == "operator",
            table.since == _a.at,
        )
        with self._database.reading() as db:
            return [name for name in db.scalars(paused.order_by(_a.seq)) if name is not None]


def take_back(db: sa.Connection, change: Change, *, now: datetime) -> bool:
    """Make a change of kind RESTORE or REMOVE; the caller has locked its lane."""
    delivery = change.delivery
    if change.kind is ChangeKind.REMOVE:
        # Nothing was sent: it has no attempts.
        gone = sa.delete(_deliveries).where(*_as_seen(delivery), _d.claims == 0)
        if not db.execute(gone).rowcount:
            return False
        promote(db, delivery.lane_id, now=now)
        forget_empty(db, [delivery.lane_id])
        return True
    assert change.before is not None
    return _restore(db, delivery, change.before, now=now)


def _restore(db: sa.Connection, delivery: FoundDelivery, before: Before, *, now: datetime) -> bool:
    returns_to_line = before.kind is ChangeKind.END and (
        before.parks or (before.state is State.PENDING and not before.late)
    )
    if returns_to_line and not _step_back(db, delivery):
        return False
    values = {"state": before.state, "late": before.late, "due_at": before.due_at}
    if before.state is State.PENDING and before.late and before.kind is ChangeKind.END:
        values = late_values(db, delivery.lane_id, now=before.due_at or now)
    restored = sa.update(_deliveries).where(*_as_seen(delivery), _d.claims == before.claims)
    changed = db.execute(
        restored.values(
            **values,
            trigger=before.trigger,
            attempts=before.attempts,
            failing_since=before.failing_since,
            reason=before.reason,
            ended_at=before.ended_at,
        )
    )
    if not changed.rowcount:
        return False
    if before.parks:
        lane = sa.update(_lanes).where(_lanes.c.id == delivery.lane_id)
        db.execute(lane.values(parked_by=delivery.id))
    promote(db, delivery.lane_id, now=now)
    return True


def _step_back(db: sa.Connection, delivery: FoundDelivery) -> bool:
    """Let the head of the line wait behind *delivery* again; return False if it was begun."""
    behind = _d.lane_id == delivery.lane_id, _d.seq > delivery.seq, ~_d.late
    if db.execute(sa.select(_d.id).where(*behind, _d.claims > 0).limit(1)).first():
        return False
    head = sa.update(_deliveries).where(_d.lane_id == delivery.lane_id, schema.AT_HEAD)
    db.execute(head.values(state=State.WAITING, due_at=None))
    return True


def _as_seen(delivery: FoundDelivery) -> Sequence[sa.ColumnElement[bool]]:
    return _d.id == delivery.id, _d.state == delivery.state, _d.claims == delivery.claims
