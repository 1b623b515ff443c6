"""What people do: resend, settle, replay, pause and resume, each with who, when and why."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relay.ids import new_id
from relay.rules.delivery import State
from relay.rules.recovery import (
    Change,
    ChangeKind,
    FoundDelivery,
    FoundEvent,
    Latest,
    Replay,
    ReplayStep,
    kind_of_reason,
)
from relay.store import schema, search
from relay.store.accept import delivery_key, lane_name
from relay.store.database import Database, once_more
from relay.store.lanes import late_values, lock_lanes, promote
from relay.store.search import Filter

#: How many are done in one transaction: few enough that nobody waits for the lock.
BATCH = 100

_deliveries, _lanes = schema.deliveries, schema.lanes
_d, _e = schema.deliveries.c, schema.events.c


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """Who does something, when, and why."""

    who: str
    why: str | None
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasonGroup:
    """Deliveries that stopped in one destination for one kind of reason."""

    destination: str
    #: What their reasons have in common; ``*`` stands for what differs.
    reason: str
    number: int
    #: When the oldest and the newest of their events were received.
    oldest: datetime
    newest: datetime


class Recovery:
    """Finds what stopped and does what a person decides.

    First read, then decide (:mod:`relay.rules.recovery`), then act: a delivery that somebody else
    changed in between is left as it is.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def clock(self) -> datetime:
        """Return the time by which workers go: the server's, if there is one."""
        return self._database.clock()

    def named(self, name: str) -> Sequence[FoundDelivery]:
        """Return the delivery *name*, or the newest ones of the event or messageId *name*.

        Raises :class:`~relay.store.search.Unknown`.
        """
        with self._database.reading() as db:
            return search.cases_named(db, name)

    def filed(self, name: str) -> FoundEvent:
        """Return the event with the id or messageId *name*.

        Raises :class:`~relay.store.search.Unknown`.
        """
        with self._database.reading() as db:
            event_id = search.event_named(db, name)
            (found,) = search.load_filed(db, sa.select(schema.events).where(_e.id == event_id))
            return found

    def count(self, wanted: Filter) -> int:
        """Return how many deliveries *wanted* means."""
        return self._count(search.select_cases(wanted).with_only_columns(_d.seq))

    def count_events(self, wanted: Filter) -> int:
        """Return how many events *wanted* means."""
        return self._count(search.select_events(wanted).with_only_columns(_e.seq))

    def pages(self, wanted: Filter, *, size: int = BATCH) -> Iterator[Sequence[FoundDelivery]]:
        """Yield the deliveries that *wanted* means now, oldest first, a page at a time.

        What is added or stops again meanwhile is not met a second time.
        """
        end = self._newest(_d.seq)
        parts = [wanted]
        if wanted.is_stopped:
            # Their index has them in order for each destination, and nothing else.
            parts = [replace(wanted, destinations=[name]) for name in self._destinations(wanted)]
        found = [self._cases(part, end=end, size=size) for part in parts]
        merged = heapq.merge(*found, key=lambda case: case.seq)
        while page := list(itertools.islice(merged, size)):
            yield page

    def _cases(self, wanted: Filter, *, end: int, size: int) -> Iterator[FoundDelivery]:
        last = 0
        while last < end:
            select = search.select_cases(wanted).where(_d.seq > last, _d.seq <= end)
            with self._database.reading() as db:
                page = search.load_cases(db, select.order_by(_d.seq).limit(size))
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
                page = search.load_filed(db, select.order_by(_e.seq).limit(size))
            if not page:
                return
            yield page
            last = page[-1].seq

    def piles(self, wanted: Filter) -> Sequence[ReasonGroup]:
        """Return the deliveries that *wanted* means by destination and reason, largest first."""
        found: dict[tuple[str, str], ReasonGroup] = {}
        with self._database.reading() as db:
            for row in db.execute(search.select_reasons(wanted)):
                name = (row.destination, kind_of_reason(row.reason))
                pile = ReasonGroup(
                    destination=name[0],
                    reason=name[1],
                    number=row.number,
                    oldest=row.oldest,
                    newest=row.newest,
                )
                found[name] = _joined(found[name], pile) if name in found else pile
        return sorted(found.values(), key=lambda pile: (-pile.number, pile.destination))

    @once_more
    def do(self, steps: Sequence[Change], act: Act) -> Sequence[bool]:
        """Do *steps* in one transaction; return for each whether it was done.

        It is not if there is nothing to do, or if somebody was faster.
        """
        todo = [step for step in steps if step.kind is not ChangeKind.NOTHING]
        if not todo:
            return [False] * len(steps)
        what = "settle" if todo[0].kind is ChangeKind.END else "resend"
        if what == "resend":
            self._database.require_room()
        with self._database.writing() as db:
            lock_lanes(db, {step.delivery.lane_id for step in todo})
            done = {step.delivery.id for step in todo if _do(db, step, act)}
            _note(db, act, what, [_of_step(step) for step in todo if step.delivery.id in done])
        return [step.delivery.id in done for step in steps]

    @once_more
    def replay(self, replays: Sequence[Replay], act: Act) -> Sequence[Sequence[ReplayStep]]:
        """Add the deliveries of *replays* in one transaction; return for each what was added."""
        wanted = [(each.found, turn) for each in replays for turn in each.steps if turn.adds]
        added: set[tuple[str, str]] = set()
        if wanted:
            self._database.require_room()
            with self._database.writing() as db:
                _make_lanes(self._database, db, wanted)
                done = [(filed, turn) for filed, turn in wanted if _add(db, filed, turn, act)]
                _note(db, act, "replay", [_of_turn(filed, turn) for filed, turn in done])
            added = {(filed.event.id, turn.destination) for filed, turn in done}
        return [
            [turn for turn in each.steps if (each.found.event.id, turn.destination) in added]
            for each in replays
        ]

    def pause(self, destination: str, act: Act) -> bool:
        """Serve *destination* no more until :meth:`resume`; False if it was paused so already."""
        table = schema.destinations
        with self._database.writing() as db:
            known = sa.select(table.c.cause).where(table.c.name == destination)
            if db.scalar(known.with_for_update()) == "operator":
                return False
            values = {
                "cause": "operator",
                "reason": act.why or "",
                "since": act.at,
                "until": None,
            }
            insert = self._database.insert(table).values(name=destination, failures=0, **values)
            db.execute(
                insert.on_conflict_do_update(
                    index_elements=[table.c.name],
                    set_={name: insert.excluded[name] for name in values},
                )
            )
            _note(db, act, "pause", [{"destination": destination, "detail": "paused"}])
            return True

    def resume(self, destination: str, act: Act) -> str | None:
        """Serve *destination* again; return what the pause was for, None if there was none."""
        table = schema.destinations
        with self._database.writing() as db:
            paused = table.c.name == destination, table.c.cause.is_not(None)
            ended = sa.delete(table).where(*paused).returning(table.c.cause)
            cause: str | None = db.scalar(ended)
            if cause is not None:
                detail = f"resumed; it was paused: {cause}"
                _note(db, act, "resume", [{"destination": destination, "detail": detail}])
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
    """Make the lanes of new deliveries where they are missing, and lock them all."""
    rows = {}
    for filed, turn in wanted:
        lane_id = lane_name(turn.destination, filed.event.conversation)
        rows[lane_id] = {
            "id": lane_id,
            "destination": turn.destination,
            "conversation": filed.event.conversation,
        }
    made = database.insert_locking(schema.lanes, key="id", same="destination")
    db.execute(made, [rows[lane_id] for lane_id in sorted(rows)])


def _do(db: sa.Connection, step: Change, act: Act) -> bool:
    """Do one step if its delivery is still as it was seen."""
    match step.kind:
        case ChangeKind.COPY:
            return _copy(db, step, act)
        case ChangeKind.HURRY:
            return _change(db, step, due_at=act.at)
        case ChangeKind.END:
            return _end(db, step, act)
        case _:
            return _renew(db, step, act)


def _change(
    db: sa.Connection, step: Change, *where: sa.ColumnElement[bool], **values: Any
) -> bool:
    """Change a delivery if nobody else did since it was seen."""
    case = step.delivery
    seen = _d.id == case.id, _d.state == case.state, _d.claims == case.claims
    return bool(db.execute(sa.update(_deliveries).where(*seen, *where).values(values)).rowcount)


def _renew(db: sa.Connection, step: Change, act: Act) -> bool:
    case = step.delivery
    parked = sa.select(1).where(_parked_by(case)).exists()
    place = (
        late_values(db, case.lane_id, now=act.at)
        if step.late
        else {"state": State.PENDING, "late": False, "due_at": act.at}
    )
    done = _change(
        db,
        step,
        # A lane that is parked has nobody at its head: whoever parks it may stand there again.
        *(() if step.late else (parked,)),
        **place,
        trigger="manual",
        attempts=0,
        failing_since=None,
        reason=None,
        ended_at=None,
    )
    if done and case.parks:
        _unpark(db, case)
    return done


def _end(db: sa.Connection, step: Change, act: Act) -> bool:
    case = step.delivery
    reason = case.reason or f"given up by {act.who}"
    values = {"reason": None if step.state is State.DELIVERED else reason}
    if not _change(db, step, state=step.state, due_at=None, ended_at=act.at, **values):
        return False
    _unpark(db, case)
    promote(db, case.lane_id, now=act.at)
    return True


def _parked_by(case: FoundDelivery) -> sa.ColumnElement[bool]:
    return sa.and_(_lanes.c.id == case.lane_id, _lanes.c.parked_by == case.id)


def _unpark(db: sa.Connection, case: FoundDelivery) -> None:
    db.execute(sa.update(_lanes).where(_parked_by(case)).values(parked_by=None))


def _copy(db: sa.Connection, step: Change, act: Act) -> bool:
    case = step.delivery
    newest = _latest(db, case.event_id, case.destination)
    if newest is None or (newest.id, newest.state) != (case.id, case.state):
        return False
    name = new_id("dlv")
    key = delivery_key(name.encode(), case.destination)
    _insert(db, act, name, case.event_id, case.destination, case.lane_id, key)
    return True


def _add(db: sa.Connection, filed: FoundEvent, turn: ReplayStep, act: Act) -> bool:
    """Add the delivery of one turn unless somebody else did since it was seen."""
    event, before = filed.event, turn.latest
    newest = _latest(db, event.id, turn.destination)
    if (newest and newest.id) != (before and before.id):
        return False
    if newest is None and db.execute(sa.select(_e.id).where(_e.id == event.id)).first() is None:
        return False
    name = new_id("dlv")
    # The first one has the key that it would have had when the event came.
    of = filed.key if before is None else name.encode()
    key = delivery_key(of, turn.destination)
    lane_id = lane_name(turn.destination, event.conversation)
    _insert(db, act, name, event.id, turn.destination, lane_id, key)
    return True


def _latest(db: sa.Connection, event_id: str, destination: str) -> Latest | None:
    return search.latest_of(db, [event_id]).get(event_id, {}).get(destination)


def _insert(
    db: sa.Connection,
    act: Act,
    name: str,
    event_id: str,
    destination: str,
    lane_id: str,
    key: str,
) -> None:
    """Insert a delivery that is late: it and the living do not hold each other up."""
    db.execute(
        sa.insert(_deliveries).values(
            id=name,
            event_id=event_id,
            destination=destination,
            lane_id=lane_id,
            key=key,
            **late_values(db, lane_id, now=act.at),
            trigger="manual",
            attempts=0,
            claims=0,
            repeat=False,
            created_at=act.at,
        )
    )


def _of_step(step: Change) -> dict[str, Any]:
    case = step.delivery
    return {
        "event_id": case.event_id,
        "delivery_id": case.id,
        "destination": case.destination,
        "detail": step.says,
    }


def _of_turn(filed: FoundEvent, turn: ReplayStep) -> dict[str, Any]:
    return {
        "event_id": filed.event.id,
        "destination": turn.destination,
        "detail": turn.says,
    }


def _note(db: sa.Connection, act: Act, what: str, rows: Sequence[dict[str, Any]]) -> None:
    """Keep what was done, by whom and why."""
    nothing = {"event_id": None, "delivery_id": None}
    if rows:
        same = {"at": act.at, "who": act.who, "what": what, "why": act.why}
        db.execute(sa.insert(schema.actions), [nothing | row | same for row in rows])
