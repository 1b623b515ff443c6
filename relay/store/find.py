"""The one search box: which events, deliveries, requests, customers and tickets may be meant?"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from relay.rules import typed
from relay.rules.delivery import State
from relay.rules.typed import LONGEST_REFERENCE, Typed
from relay.store import schema, search, views
from relay.store.candidates import Tell
from relay.store.database import Database
from relay.store.pages import Pages
from relay.store.search import Filter
from relay.store.values import EventView, Request, load_request

#: Of each kind, how many are found.
LIMIT = 10
#: Up to what number a customer's events are counted.
COUNTED = 1000
#: Deliveries with one reference that are looked at, and newest ones of a conversation.
LOOKED_AT, NEWEST = 1000, 3

Kind = Literal["events", "deliveries", "requests", "customers", "records", "texts"]

_e, _d, _r, _lanes = schema.events.c, schema.deliveries.c, schema.requests.c, schema.lanes.c
# In the words of their indexes.
_REFERENCE: sa.ColumnElement[str] = sa.literal_column(schema.REFERENCE.text, sa.Text())
_THREAD: sa.ColumnElement[str] = sa.literal_column(schema.THREAD.text, sa.Text())


@dataclass(frozen=True, kw_only=True, slots=True)
class Customer:
    """A customer of whom there are events."""

    #: The number, or the name, as in the newest event.
    customer: str
    newest_at: datetime
    #: How many events there are, up to :data:`COUNTED`; more: whether there are more than that.
    events: int
    more: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A delivery, with the ticket or record that a destination made of it."""

    delivery_id: str
    event_id: str
    destination: str
    state: State
    reference: str | None
    url: str | None
    #: The ticket or contact that the conversation lives in now.
    thread: str | None
    customer: str | None
    received_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a text may mean, by kind; texts only if it means nothing else."""

    #: Those with this id, beginning of an id, or messageId.
    events: Sequence[EventView] = ()
    deliveries: Sequence[Record] = ()
    requests: Sequence[Request] = ()
    customers: Sequence[Customer] = ()
    records: Sequence[Record] = ()
    #: Events with these words, the newest first.
    texts: Sequence[EventView] = ()
    #: Kinds of which there are more.
    more: frozenset[Kind] = field(default_factory=frozenset)

    @property
    def kinds(self) -> Sequence[Kind]:
        """Return the kinds of which anything was found."""
        kinds: Sequence[Kind] = (
            "events", "deliveries", "requests", "customers", "records", "texts"
        )  # fmt: skip
        return [kind for kind in kinds if getattr(self, kind)]


class Finder:
    """Finds what a person may mean."""

    def __init__(self, database: Database, *, tell: Tell = lambda said, time: None) -> None:
        """*tell*: is told what a person should know of a search for words."""
        self._database = database
        self._tell = tell

    def find(self, text: str, *, limit: int = LIMIT) -> Found:
        """Return what *text* may mean: up to *limit* of each kind."""
        meant = typed.read(text)
        if meant is None:
            return Found()
        with self._database.reading() as db:
            found = {
                "events": _events(db, meant, limit + 1),
                "deliveries": _deliveries(db, meant, limit + 1),
                "requests": _requests(db, meant, limit + 1),
                "customers": _customers(db, meant, limit + 1),
                "records": _records(db, meant, limit + 1),
            }
        if meant.wording is not None and not any(found.values()):
            pages = Pages(self._database, tell=self._tell)
            page = pages.events(Filter(wording=meant.wording), limit=limit + 1)
            found["texts"] = page.items
        more: Any = frozenset(kind for kind, items in found.items() if len(items) > limit)
        some: Any = {kind: items[:limit] for kind, items in found.items()}
        return Found(**some, more=more)


def _events(db: sa.Connection, meant: Typed, limit: int) -> Sequence[EventView]:
    named = sa.select(_e.seq).where(_e.message_id == meant.name).limit(limit)
    seqs = set(db.scalars(named))
    if meant.id is not None and meant.id.startswith("evt_"):
        seqs.update(db.scalars(sa.select(_e.seq).where(*_begins(_e.id, meant.id)).limit(limit)))
    if not seqs:
        return ()
    chosen = views.select_events().where(_e.seq.in_(seqs)).order_by(_e.seq.desc()).limit(limit)
    return views.views(db, db.execute(chosen).mappings().all())


def _deliveries(db: sa.Connection, meant: Typed, limit: int) -> Sequence[Record]:
    if meant.id is None or not meant.id.startswith("dlv_"):
        return ()
    begins = sa.select(_d.seq).where(*_begins(_d.id, meant.id)).limit(limit)
    return _loaded(db, db.scalars(begins).all(), limit)


def _requests(db: sa.Connection, meant: Typed, limit: int) -> Sequence[Request]:
    """Return requests that brought no event; an event tells of its own."""
    if meant.id is None or not meant.id.startswith("req_"):
        return ()
    chosen = sa.select(schema.requests).where(*_begins(_r.id, meant.id)).limit(limit)
    return [load_request(row) for row in db.execute(chosen).mappings()]


def _begins(column: sa.Column[str], name: str) -> Sequence[sa.ColumnElement[bool]]:
    # Ids are hexadecimal: all that begin with *name* lie before its "g", in any collation.
    return column >= name, column < f"{name}g"


def _customers(db: sa.Connection, meant: Typed, limit: int) -> Sequence[Customer]:
    found = {}
    for ending in meant.endings:
        for whole in _endings(db, ending, limit):
            found[whole] = _customer(db, whole)
    return sorted(found.values(), key=lambda each: each.newest_at, reverse=True)[:limit]


def _endings(db: sa.Connection, ending: str, limit: int) -> Iterator[str]:
    """Yield the different customers whose number ends so, one look at the index for each."""
    least = sa.select(sa.func.min(_e.customer_ending)).where(search.ends_with(ending))
    whole = db.scalar(least)
    for _ in range(limit):
        if whole is None:
            return
        yield whole
        whole = db.scalar(least.where(_e.customer_ending > whole))


def _customer(db: sa.Connection, whole: str) -> Customer:
    mine = _e.customer_ending == whole
    some = sa.select(_e.seq).where(mine).limit(COUNTED + 1).subquery()
    counted = sa.select(sa.func.count()).select_from(some).scalar_subquery()
    newest = sa.select(_e.customer, _e.received_at, counted).where(mine)
    customer, newest_at, number = db.execute(newest.order_by(_e.seq.desc()).limit(1)).one()
    return Customer(
        customer=customer,
        newest_at=newest_at,
        events=min(number, COUNTED),
        more=number > COUNTED,
    )


def _records(db: sa.Connection, meant: Typed, limit: int) -> Sequence[Record]:
    seqs: set[int] = set()
    for reference in meant.references:
        for same in (_called(reference), _goes_on(reference)):
            # Very many may be called the same: the newest of some are good enough.
            some = sa.select(_d.seq).where(same, schema.REFERRED).limit(LOOKED_AT)
            seqs.update(heapq.nlargest(limit, db.scalars(some)))
        seqs.update(_of_thread(db, reference, limit))
    return _loaded(db, seqs, limit)


def _called(reference: str) -> sa.ColumnElement[bool]:
    return sa.literal(reference[:LONGEST_REFERENCE]) == _REFERENCE


def _goes_on(reference: str) -> sa.ColumnElement[bool]:
    """Return the condition that a reference says more after a blank."""
    return sa.and_(f"{reference} " <= _REFERENCE, f"{reference}!" > _REFERENCE)


def _of_thread(db: sa.Connection, thread: str, limit: int) -> Iterator[int]:
    """Yield the newest deliveries of the conversations that live in a ticket or contact."""
    these = sa.select(_lanes.id).where(sa.literal(thread) == _THREAD, schema.THREADED).limit(limit)
    for lane_id in db.scalars(these).all():
        newest = sa.select(_d.seq).where(_d.lane_id == lane_id)
        yield from db.scalars(newest.order_by(_d.event_id.desc()).limit(NEWEST))


def _loaded(db: sa.Connection, seqs: Collection[int], limit: int) -> Sequence[Record]:
    if not seqs:
        return ()
    columns = (
        _d.id.label("delivery_id"), _d.event_id, _d.destination, _d.state, _d.reference, _d.url,
        _lanes.thread, _e.customer, _e.received_at,
    )  # fmt: skip
    joined = schema.deliveries.join(schema.events, _e.id == _d.event_id)
    joined = joined.join(schema.lanes, _lanes.id == _d.lane_id)
    newest = heapq.nlargest(limit, seqs)
    chosen = sa.select(*columns).select_from(joined).where(_d.seq.in_(newest))
    rows = db.execute(chosen.order_by(_d.seq.desc())).mappings()
    return [Record(**{**row, "state": State(row["state"])}) for row in rows]
