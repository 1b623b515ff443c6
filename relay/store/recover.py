"""What people do: resend, settle, replay, pause, resume; each with who, when and why."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.rules.health import back
from relay.rules.recovery import (
    Before,
    Change,
    ChangeKind,
    FoundDelivery,
    FoundEvent,
    Latest,
    Replay,
    ReplayStep,
    kind_of_reason,
)
from relay.store import health, schema, search, targets
from relay.store.actions import Act, note
from relay.store.database import Database, once_more
from relay.store.ids import new_id
from relay.store.lanes import lane_name, late_values, lock_lanes, promote
from relay.store.line_up import delivery_key
from relay.store.search import Filter
from relay.store.undo import take_back

#: Changes per transaction, few enough that nobody waits long for the lock.
BATCH = 100

#: What a change is called; any other one is a resend.
_WORDS = {
    ChangeKind.END: "settle",
    ChangeKind.RESTORE: "undo",
    ChangeKind.REMOVE: "undo",
}

_deliveries, _lanes = schema.deliveries, schema.lanes
_d, _e = schema.deliveries.c, schema.events.c


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasonGroup:
    """Deliveries to one destination that stopped for one kind of reason."""

    destination: str
    #: What their reasons have in common, with ``*`` for what differs.
    reason: str
    number: int
    #: When the oldest and the newest of their events were received.
    oldest: datetime
    newest: datetime


class Recovery:
    """Finds what stopped and does what a person decides.

    Read first, then decide (:mod:`relay.rules.recovery`), then act. A delivery that has changed in
    between is left alone.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def clock(self) -> datetime:
        """Return the time that workers use: that of the server, if there is one."""
        return self._database.clock()

    def deliveries_named(self, name: str) -> Sequence[FoundDelivery]:
        """Return the delivery *name*, or the newest ones of the event or messageId *name*.

        Raises :class:`~relay.store.search.Unknown`.
        """
        with self._database.reading() as db:
            return targets.deliveries_named(db, name)

    def event_named(self, name: str) -> FoundEvent:
        """Return the event with the id or messageId *name*.

        Raises :class:`~relay.store.search.Unknown`.
        """
        with self._database.reading() as db:
            event_id = search.event_named(db, name)
            (found,) = targets.load_events(db, sa.select(schema.events).where(_e.id == event_id))
            return found

    def count(self, wanted: Filter) -> int:
        """Return how many deliveries *wanted* means."""
        return self._count(targets.select_deliveries(wanted).with_only_columns(_d.seq))

    def count_events(self, wanted: Filter) -> int:
        """Return how many events *wanted* means."""
        return self._count(search.select_events(wanted).with_only_columns(_e.seq))

    def pages(self, wanted: Filter, *, size: int = BATCH) -> Iterator[Sequence[FoundDelivery]]:
        """Yield the deliveries that *wanted* means now, oldest first, a page at a time.

        A delivery that is added or stops again meanwhile is not yielded again.
        """
        end = self._newest(_d.seq)
        parts = [wanted]
        if wanted.is_stopped:
            # Their index has an order within each destination only.
            parts = [replace(wanted, destinations=[name]) for name in self._destinations(wanted)]
        found = [self._deliveries_of(part, end=end, size=size) for part in parts]
        merged = heapq.merge(*found, key=lambda delivery: delivery.seq)
        while page := list(itertools.islice(merged, size)):
            yield page

    def _deliveries_of(self, wanted: Filter, *, end: int, size: int) -> Iterator[FoundDelivery]:
        last = 0
        while last < end:
            select = targets.select_deliveries(wanted).where(_d.seq > last, _d.seq <= end)
            with self._database.reading() as db:
                page = targets.load_deliveries(db, select.order_by(_d.seq).limit(size))
            if not page:
                return
            yield from page
            last = page[-1].seq

    def _destinations(self, wanted: Filter) -> Sequence[str]:
        with self._database.reading() as db:
            return db.scalars(search.select_destinations(wanted)).all()

    def event_pages(self, wanted: Filter, *, size: int = BATCH) -> Iterator[Sequence[FoundEvent]]:
        """Yield the events that *wanted* means now, oldest first, a page at a time."""
        end, last = self._newest(_e.seq), 0
        while last < end:
            select = search.select_events(wanted).where(_e.seq > last, _e.seq <= end)
            with self._database.reading() as db:
                page = targets.load_events(db, select.order_by(_e.seq).limit(size))
            if not page:
                return
            yield page
            last = page[-1].seq

    def destinations(self, wanted: Filter) -> Sequence[str]:
        """Return the destinations of the deliveries that *wanted* means."""
        selected = targets.select_deliveries(wanted).with_only_columns(_d.destination).distinct()
        with self._database.reading() as db:
            return db.scalars(selected.order_by(_d.destination)).all()

    def groups(self, wanted: Filter) -> Sequence[ReasonGroup]:
        """Return the deliveries that *wanted* means by destination and reason, largest first."""
        found: dict[tuple[str, str], ReasonGroup] = {}
        with self._database.reading() as db:
            for row in db.execute(search.select_reasons(wanted)):
                name = (row.destination, kind_of_reason(row.reason))
                group = ReasonGroup(
                    destination=name[0],
                    reason=name[1],
                    number=row.number,
                    oldest=row.oldest,
                    newest=row.newest,
                )
                found[name] = _joined(found[name], group) if name in found else group
        return sorted(found.values(), key=lambda group: (-group.number, group.destination))

    @once_more
    def do(self, changes: Sequence[Change], act: Act) -> Sequence[bool]:
        """Make *changes* in one transaction; return whether each was made.

        A change is not made if there is nothing to do, or if the delivery has changed since.
        """
        todo = [change for change in changes if change.kind is not ChangeKind.NOTHING]
        if not todo:
            return [False] * len(changes)
        what = _WORDS.get(todo[0].kind, "resend")
        if what == "resend":
            self._database.require_room()
        with self._database.writing() as db:
            lock_lanes(db, {change.delivery.lane_id for change in todo})
            found = [(change, _do(db, change, act)) for change in todo]
            made = [(change, name) for change, name in found if name]
            note(db, act, what, [_of_change(change, name) for change, name in made])
            done = {change.delivery.id for change, _ in made}
        return [change.delivery.id in done for change in changes]

    @once_more
    def replay(self, replays: Sequence[Replay], act: Act) -> Sequence[Sequence[ReplayStep]]:
        """Add the deliveries of *replays* in one transaction; return for each what was added."""
        wanted = [(each.found, step) for each in replays for step in each.steps if step.adds]
        added: set[tuple[str, str]] = set()
        if wanted:
            self._database.require_room()
            with self._database.writing() as db:
                _make_lanes(self._database, db, wanted)
                done = [(*each, name) for each in wanted if (name := _add(db, *each, act))]
                note(db, act, "replay", [_of_replay(*each) for each in done])
            added = {(found.event.id, step.destination) for found, step, _ in done}
        return [
            [step for step in each.steps if (each.found.event.id, step.destination) in added]
            for each in replays
        ]

    def pause(self, destination: str, act: Act, *, until: datetime | None = None) -> bool:
        """Stop serving *destination* until :meth:`resume`; False if a person has paused it."""
        table = schema.destinations
        with self._database.writing() as db:
            known = sa.select(table.c.cause, table.c.until).where(table.c.name == destination)
            if db.execute(known.with_for_update()).first() == ("operator", until):
                return False
            values = {
                "cause": "operator",
                "reason": act.why or "",
                "since": act.at,
                "until": until,
            }
            insert = self._database.insert(table).values(name=destination, failures=0, **values)
            db.execute(
                insert.on_conflict_do_update(
                    index_elements=[table.c.name],
                    set_={name: insert.excluded[name] for name in values},
                )
            )
            ends = f" until {until:%Y-%m-%dT%H:%M:%SZ}" if until else ""
            note(db, act, "pause", [{"destination": destination, "detail": f"paused{ends}"}])
            return True

    def resume(self, destination: str, act: Act) -> str | None:
        """Serve *destination* again; return the cause of the pause, None if there was none."""
        table = schema.destinations
        with self._database.writing() as db:
            paused = table.c.name == destination, table.c.cause.is_not(None)
            known = sa.select(table.c.cause).where(*paused).with_for_update()
            cause: str | None = db.scalar(known)
            if cause is not None:
                served = health.end_waits(db, destination, back(act.at))
                health.write(self._database, db, destination, served)
                detail = f"resumed; it was paused: {cause}"
                note(db, act, "resume", [{"destination": destination, "detail": detail}])
            return cause

    def paused(self) -> Sequence[str]:
        """Return the names of the destinations that are not being served."""
        table = schema.destinations.c
        with self._database.reading() as db:
            return db.scalars(sa.select(table.name).where(table.cause.is_not(None))).all()

    def _count(self, wanted: sa.Select[Any]) -> int:
        with self._database.reading() as db:
            counted = sa.select(sa.func.count()).select_from(wanted.subquery())
            return int(db.execute(counted).scalar_one())

    def _newest(self, seq: sa.Column[Any]) -> int:
        with self._database.reading() as db:
            return db.scalar(sa.select(sa.func.max(seq))) or 0


def _joined(one: ReasonGroup, other: ReasonGroup) -> ReasonGroup:
    return ReasonGroup(
        destination=one.destination,
        reason=one.reason,
        number=one.number + other.number,
        oldest=min(one.oldest, other.oldest),
        newest=max(one.newest, other.newest),
    )


def _make_lanes(
    database: Database, db: sa.Connection, wanted: Iterable[tuple[FoundEvent, ReplayStep]]
) -> None:
    """Create missing lanes of new deliveries, and lock all of them."""
    rows = {}
    for found, step in wanted:
        lane_id = lane_name(step.destination, found.event.conversation)
        rows[lane_id] = {
            "id": lane_id,
            "destination": step.destination,
            "conversation": found.event.conversation,
        }
    made = database.insert_locking(schema.lanes, key="id", same="destination")
    db.execute(made, [rows[lane_id] for lane_id in sorted(rows)])


def _do(db: sa.Connection, change: Change, act: Act) -> str | None:
    """Make one change if its delivery is still as it was seen; return the delivery it made."""
    match change.kind:
        case ChangeKind.COPY:
            return _copy(db, change, act)
        case ChangeKind.HURRY:
            done = _update(db, change, due_at=act.at)
        case ChangeKind.END:
            done = _end(db, change, act)
        case ChangeKind.RESTORE | ChangeKind.REMOVE:
            done = take_back(db, change, now=act.at)
        case _:
            done = _renew(db, change, act)
    return change.delivery.id if done else None


def _update(
    db: sa.Connection, change: Change, *where: sa.ColumnElement[bool], **values: Any
) -> bool:
    """Update a delivery unless it has changed since it was read."""
    delivery = change.delivery
    seen = _d.id == delivery.id, _d.state == delivery.state, _d.claims == delivery.claims
    return bool(db.execute(sa.update(_deliveries).where(*seen, *where).values(values)).rowcount)


def _renew(db: sa.Connection, change: Change, act: Act) -> bool:
    delivery = change.delivery
    parked = sa.select(1).where(_parked_by(delivery)).exists()
    place = (
        late_values(db, delivery.lane_id, now=act.at)
        if change.late
        else {"state": State.PENDING, "late": False, "due_at": act.at}
    )
    done = _update(
        db,
        change,
        # A parked lane has no head, so the delivery that parks it may become the head again.
        *(() if change.late else (parked,)),
        **place,
        trigger="manual",
        attempts=0,
        failing_since=None,
        reason=None,
        ended_at=None,
    )
    if done and delivery.parks:
        _unpark(db, delivery)
    return done


def _end(db: sa.Connection, change: Change, act: Act) -> bool:
    delivery = change.delivery
    reason = delivery.reason or f"given up by {act.who}"
    values = {"reason": None if change.state is State.DELIVERED else reason}
    if not _update(db, change, state=change.state, due_at=None, ended_at=act.at, **values):
        return False
    _unpark(db, delivery)
    promote(db, delivery.lane_id, now=act.at)
    return True


def _parked_by(delivery: FoundDelivery) -> sa.ColumnElement[bool]:
    return sa.and_(_lanes.c.id == delivery.lane_id, _lanes.c.parked_by == delivery.id)


def _unpark(db: sa.Connection, delivery: FoundDelivery) -> None:
    db.execute(sa.update(_lanes).where(_parked_by(delivery)).values(parked_by=None))


def _copy(db: sa.Connection, change: Change, act: Act) -> str | None:
    delivery = change.delivery
    newest = _latest(db, delivery.event_id, delivery.destination)
    if newest is None or (newest.id, newest.state) != (delivery.id, delivery.state):
        return None
    name = new_id("dlv")
    key = delivery_key(name.encode(), delivery.destination)
    _insert(db, act, name, delivery.event_id, delivery.destination, delivery.lane_id, key)
    return name


def _add(db: sa.Connection, found: FoundEvent, step: ReplayStep, act: Act) -> str | None:
    """Add the delivery of one step, unless another was added since the event was read."""
    event, before = found.event, step.latest
    newest = _latest(db, event.id, step.destination)
    if (newest and newest.id) != (before and before.id):
        return None
    if newest is None and db.execute(sa.select(_e.id).where(_e.id == event.id)).first() is None:
        return None
    name = new_id("dlv")
    # The first delivery gets the key that it would have had when the event came.
    of = found.key if before is None else name.encode()
    key = delivery_key(of, step.destination)
    lane_id = lane_name(step.destination, event.conversation)
    _insert(db, act, name, event.id, step.destination, lane_id, key)
    return name


def _latest(db: sa.Connection, event_id: str, destination: str) -> Latest | None:
    return targets.latest_of(db, [event_id]).get(event_id, {}).get(destination)


def _insert(
    db: sa.Connection,
    act: Act,
    name: str,
    event_id: str,
    destination: str,
    lane_id: str,
    key: str,
) -> None:
    """Insert a late delivery, which does not hold up others or wait for them."""
    db.execute(
        sa.insert(_deliveries).values(
            id=name,
            event_id=event_id,
            destination=destination,
            lane_id=lane_id,
            key=key,
            **late_values(db, lane_id, now=act.at),
            trigger="manual",
            config=act.config,
            attempts=0,
            claims=0,
            repeat=False,
            created_at=act.at,
        )
    )


def _of_change(change: Change, made: str) -> dict[str, Any]:
    delivery = change.delivery
    undone = change.kind in (ChangeKind.RESTORE, ChangeKind.REMOVE)
    before = Before.added(made) if change.kind is ChangeKind.COPY else Before.of(change)
    return {
        "event_id": delivery.event_id,
        "delivery_id": delivery.id,
        "destination": delivery.destination,
        "detail": change.says,
        "before": None if undone else before.as_json(),
    }


def _of_replay(found: FoundEvent, step: ReplayStep, made: str) -> dict[str, Any]:
    return {
        "event_id": found.event.id,
        "destination": step.destination,
        "detail": step.says,
        "before": Before.added(made).as_json(),
    }
