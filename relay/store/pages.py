"""What is there, page by page, the newest first: each page tells where the next one begins.

The place is the number of a row (a *seq*), not a count of rows: what comes or goes meanwhile
neither repeats anything nor hides it. A page looks at a bounded number of rows: if few of them
match, it has less than was asked for, and the next one goes on from there.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from relay.rules import text
from relay.rules.recovery import FoundDelivery
from relay.store import candidates, schema, search, targets, views
from relay.store.candidates import LOOKED_AT, Place, Tell
from relay.store.database import Database
from relay.store.search import STOPPED, Filter
from relay.store.values import AttemptView, EventView, Request, load_request, request_of

T = TypeVar("T")
C = TypeVar("C")

#: Rows of requests that are read together.
STEP = 200
#: How many more than were asked for are read together: some may not match.
SPARE = 5
#: The text of the event that a request brought again, in a row of requests.
_SAID = "said"

_e, _d, _r, _a = schema.events.c, schema.deliveries.c, schema.requests.c, schema.attempts.c


@dataclass(frozen=True, kw_only=True, slots=True)
class Page(Generic[T, C]):
    """Some of what there is, and where the next page begins; None: there is no more."""

    items: Sequence[T]
    next: C | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestsPlace:
    """Where a page of requests ends: those that brought events have numbers of their own."""

    event: int | None = None
    request: int | None = None


class Pages:
    """Reads a page at a time."""

    def __init__(self, database: Database, *, tell: Tell = lambda said, time: None) -> None:
        """*tell*: is told what a person should know of what was found."""
        self._database = database
        self._tell = tell

    def events(
        self,
        wanted: Filter | None = None,
        *,
        limit: int,
        before: int | None = None,
        look_at: int = LOOKED_AT,
    ) -> Page[EventView, int]:
        """Return events that *wanted* matches, with their deliveries."""
        rows, place = self._matching(
            views.select_events(), wanted or Filter(), limit=limit, before=before, look_at=look_at
        )
        with self._database.reading() as db:
            return Page(items=views.views(db, rows), next=place)

    def conversation(
        self, customer: str, *, limit: int, before: int | None = None
    ) -> Page[EventView, int]:
        """Return the events of one customer, named as in events, with their deliveries."""
        mine = _e.customer_ending == text.ending(customer), _e.customer == customer
        chosen = views.select_events().where(*mine).order_by(_e.seq.desc())
        chosen = chosen if before is None else chosen.where(_e.seq < before)
        with self._database.reading() as db:
            rows = db.execute(chosen.limit(limit + 1)).mappings().all()
            found = views.views(db, rows[:limit])
        return Page(items=found, next=_next(rows, limit))

    def requests(
        self,
        wanted: Filter | None = None,
        *,
        limit: int,
        before: RequestsPlace | None = None,
        look_at: int = LOOKED_AT,
    ) -> Page[Request, RequestsPlace]:
        """Return requests that *wanted* matches, whether or not they brought an event."""
        wanted, before = wanted or Filter(), before or RequestsPlace()
        brought, events_next = self._matching(
            views.select_brought(), wanted, limit=limit, before=before.event, look_at=look_at
        )
        others, others_next = self._others(
            wanted, limit=limit, before=before.request, look_at=look_at
        )
        # Those of one kind stay in their order, whatever their clocks said.
        queues = {
            True: [(request_of(row), row["seq"]) for row in brought],
            False: [*others],
        }
        return _merged(queues, limit=limit, before=before, ends=(events_next, others_next))

    def stopped(
        self, wanted: Filter | None = None, *, limit: int, before: int | None = None
    ) -> Page[FoundDelivery, int]:
        """Return deliveries that are dead or held, and that *wanted* matches."""
        wanted = wanted or Filter()
        if not wanted.is_stopped:
            wanted = replace(wanted, states=STOPPED)
        with self._database.reading() as db:
            names = db.scalars(search.select_destinations(wanted)).all()
            found: list[FoundDelivery] = []
            # Their index has an order within each destination only.
            for name in names:
                chosen = targets.select_deliveries(replace(wanted, destinations=[name]))
                chosen = chosen if before is None else chosen.where(_d.seq < before)
                chosen = chosen.order_by(_d.seq.desc()).limit(limit + 1)
                found += targets.load_deliveries(db, chosen)
        newest = heapq.nlargest(limit + 1, found, key=lambda each: each.seq)
        more = len(newest) > limit
        return Page(items=newest[:limit], next=newest[limit - 1].seq if more else None)

    def attempts(
        self, delivery_id: str, *, limit: int, before: int | None = None
    ) -> Page[AttemptView, int]:
        """Return the attempts of one delivery."""
        chosen = sa.select(schema.attempts).where(_a.delivery_id == delivery_id)
        chosen = chosen if before is None else chosen.where(_a.seq < before)
        with self._database.reading() as db:
            rows = db.execute(chosen.order_by(_a.seq.desc()).limit(limit + 1)).mappings().all()
        return Page(items=[*map(views.load_attempt, rows[:limit])], next=_next(rows, limit))

    def _matching(
        self,
        chosen: sa.Select[Any],
        wanted: Filter,
        *,
        limit: int,
        before: int | None,
        look_at: int,
    ) -> tuple[Sequence[sa.RowMapping], int | None]:
        """Return rows of events that *wanted* matches, and where the next page begins."""
        chosen = chosen.where(*search.conditions(wanted))
        rows: list[sa.RowMapping] = []
        looked_at, last = 0, before
        for seqs in candidates.pages(
            self._database,
            wanted,
            newest_first=True,
            size=limit + SPARE,
            look_at=look_at,
            before=self._place(before),
            tell=self._tell,
        ):
            with self._database.reading() as db:
                these = db.execute(chosen.where(_e.seq.in_(seqs))).mappings()
                found = {row["seq"]: row for row in these}
            # In the order in which they were walked through, so that their place is that of all.
            for seq in seqs:
                if len(rows) == limit or looked_at == look_at:
                    return rows, last
                looked_at, last = looked_at + 1, seq
                if seq in found and search.says(found[seq]["body"], wanted):
                    rows.append(found[seq])
        return rows, last if looked_at == look_at else None

    def _place(self, before: int | None) -> Place | None:
        if before is None:
            return None
        with self._database.reading() as db:
            return candidates.place_of(db, before)

    def _others(
        self, wanted: Filter, *, limit: int, before: int | None, look_at: int
    ) -> tuple[Sequence[tuple[Request, int]], int | None]:
        """Return requests that brought no event, with their numbers, and where the next begin."""
        found: list[tuple[Request, int]] = []
        looked_at, last = 0, before
        for row in islice(self._walked(wanted, before), look_at + 1):
            if len(found) == limit or looked_at == look_at:
                return found, last
            looked_at, last = looked_at + 1, row["seq"]
            request = load_request(row, leave_out=(_SAID,))
            if request.event_id is None:
                matches = search.refused_says(request, wanted)
            else:
                matches = search.says(row[_SAID], wanted)
            if matches:
                found.append((request, row["seq"]))
        return found, None

    def _walked(self, wanted: Filter, before: int | None) -> Iterator[sa.RowMapping]:
        joined = schema.requests.outerjoin(schema.events, _e.id == _r.event_id)
        columns = schema.requests, _e.body.label(_SAID)
        chosen = sa.select(*columns).select_from(joined).where(*search.of_request(wanted))
        parts = [chosen]
        if set(wanted.standings) == {"refused"}:
            # Their index has an order within each kind only.
            refused = chosen.where(schema.REFUSED)
            parts = [refused.where(_r.signed.is_(signed)) for signed in (True, False)]
        walks = [self._walk(part, before) for part in parts]
        yield from heapq.merge(*walks, key=lambda row: row["seq"], reverse=True)

    def _walk(self, chosen: sa.Select[Any], before: int | None) -> Iterator[sa.RowMapping]:
        chosen = chosen.order_by(_r.seq.desc()).limit(STEP)
        while True:
            page = chosen if before is None else chosen.where(_r.seq < before)
            with self._database.reading() as db:
                rows = db.execute(page).mappings().all()
            yield from rows
            if len(rows) < STEP:
                return
            before = rows[-1]["seq"]


def _next(rows: Sequence[sa.RowMapping], limit: int) -> int | None:
    return rows[limit - 1]["seq"] if len(rows) > limit else None


def _merged(
    queues: dict[bool, list[tuple[Request, int]]],
    *,
    limit: int,
    before: RequestsPlace,
    ends: tuple[int | None, int | None],
) -> Page[Request, RequestsPlace]:
    """Merge requests that brought events (True) and others by their time."""
    items: list[Request] = []
    places = {True: before.event, False: before.request}
    while len(items) < limit and any(queues.values()):
        kind = max((k for k in queues if queues[k]), key=lambda k: queues[k][0][0].at)
        request, places[kind] = queues[kind].pop(0)
        items.append(request)
    for kind, end in ((True, ends[0]), (False, ends[1])):
        # What was looked at without a match need not be looked at again.
        if not queues[kind]:
            places[kind] = end if end is not None else places[kind] or 0
    more = any(queues.values()) or ends != (None, None)
    place = RequestsPlace(event=places[True], request=places[False])
    return Page(items=items, next=place if more else None)
