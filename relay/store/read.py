"""Which events and requests are there, and what is known of one? For people and programs."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa

from relay.rules.health import Pause
from relay.store import candidates, schema, search, views
from relay.store.candidates import Tell
from relay.store.database import Database
from relay.store.ids import time_of
from relay.store.search import Filter
from relay.store.values import (
    EventView,
    Purged,
    Request,
    load_pauses,
    load_request,
    request_of,
)

T = TypeVar("T")

#: Events are read in pages, so that a listing does not hold a transaction open.
_PAGE = 200
#: The text of the event that a request brought again, in a row of requests.
_SAID = "said"
#: How many more events than were asked for are looked at together: some may not match.
_SPARE = 5

#: How far a request's own time and that of its id may be apart.
_ABOUT = timedelta(seconds=30)

#: Matches everything.
ALL = Filter()
#: How many of the newest requests that brought no event are searched for words.
SEARCHED = 5000
SOME_SEARCHED = (
    "requests that brought no event: only the newest {number:,} were searched for the words"
)


class Queries:
    """Reads events, deliveries, attempts and requests."""

    def __init__(self, database: Database, *, tell: Tell = lambda said, time: None) -> None:
        """*tell*: is told what a person should know of what was found."""
        self._database = database
        self._tell = tell

    def first_event_of(self, customer: str) -> datetime | None:
        """Return when the first event of *customer* that is here was received."""
        events = schema.events.c
        with self._database.reading() as db:
            first = sa.select(sa.func.min(events.received_at)).where(events.customer == customer)
            found: datetime | None = db.scalar(first)
            return found

    def events(self, wanted: Filter = ALL, *, limit: int | None = None) -> Iterator[EventView]:
        """Yield the newest *limit* events (all, if None) that *wanted* matches, oldest first."""
        if wanted != ALL:
            yield from self._found(wanted, limit=limit)
            return
        seq = schema.events.c.seq
        last = self._before_newest(seq, limit)
        chosen = views.select_events().order_by(seq).limit(_PAGE)
        while page := self._page(chosen.where(seq > last)):
            yield from (view for _, view in page)
            last = page[-1][0]

    def recent(self, wanted: Filter, *, among: int) -> Sequence[EventView]:
        """Return those of the newest *among* events that *wanted* matches, oldest first."""
        seq = schema.events.c.seq
        last = self._before_newest(seq, among)
        chosen = views.select_events().where(seq > last, *search.conditions(wanted)).order_by(seq)
        return self._views([row for row in self._rows(chosen) if search.says(row["body"], wanted)])

    def event(self, name: str) -> EventView | None:
        """Return the event with the id or messageId *name*, with everything that belongs to it.

        If several have this messageId, an accepted one is preferred, then the newest. The id of a
        delivery stands for its event, and the beginning of an id for the only id that begins so;
        raises :class:`~relay.store.search.Unknown` if several do.
        """
        if found := self._named(name):
            return found
        with self._database.reading() as db:
            whole = search.whole_id(db, name)
        return None if whole == name else self._named(whole)

    def short_ids(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Return for each id of an event (or each of a delivery) a short one that finds it."""
        found: dict[str, str] = {}
        for start in range(0, len(ids), _PAGE):
            with self._database.reading() as db:
                found |= search.short_ids(db, ids[start : start + _PAGE])
        return found

    def _named(self, name: str) -> EventView | None:
        table, deliveries = schema.events.c, schema.deliveries.c
        delivered = sa.select(deliveries.event_id).where(deliveries.id == name)
        names = table.id == name, table.message_id == name, table.id.in_(delivered)
        # Three queries, because PostgreSQL would read every event for one with OR.
        named = sa.union_all(*(sa.select(table.seq).where(each) for each in names))
        best = (table.standing == "accepted").desc(), table.seq.desc()
        wanted = views.select_events().where(table.seq.in_(named)).order_by(*best).limit(1)
        page = self._page(wanted, whole=True)
        return page[0][1] if page else None

    def purged(self, name: str, keys: Sequence[bytes]) -> Purged | None:
        """Return what is left of a removed event, found by its id or one of *keys*."""
        c = schema.keys.c
        known = sa.select(c.event_id, c.first_at, c.last_at, c.duplicates).limit(1)
        known = known.where(c.event_id == name if name.startswith("evt_") else c.key.in_(keys))
        with self._database.reading() as db:
            row = db.execute(known).mappings().first()
            if row is None:
                return None
            actions = views.actions(db, [row["event_id"]]).get(row["event_id"], ())
            return Purged(**row, actions=actions)

    def refused_with(self, text: str, *, limit: int = 5) -> Sequence[Request]:
        """Return the newest refused requests whose kept body contains *text*."""
        table = schema.requests
        wanted = sa.select(table).where(schema.REFUSED, table.c.body.is_not(None))
        found = []
        with self._database.reading() as db:
            for row in db.execute(wanted.order_by(table.c.seq.desc())).mappings():
                if text.encode() in row["body"]:
                    found.append(load_request(row))
                if len(found) == limit:
                    break
        return found

    def request(self, id_: str) -> Request | None:
        """Return the request *id_*, whether or not it brought an event."""
        with self._database.reading() as db:
            others = sa.select(schema.requests).where(schema.requests.c.id == id_).limit(1)
            row = db.execute(others).mappings().first()
            if row is not None:
                return load_request(row)
            made_at = time_of(id_)
            if made_at is None:
                return None
            # Ids of requests that brought events have no index, and need none: they say when.
            c = schema.events.c
            about = c.received_at.between(made_at - _ABOUT, made_at + _ABOUT)
            brought = views.select_brought().where(about, c.request_id == id_).limit(1)
            row = db.execute(brought).mappings().first()
            return None if row is None else request_of(row)

    def requests(self, wanted: Filter = ALL, *, limit: int | None = None) -> Iterator[Request]:
        """Yield the newest *limit* requests (all, if None) that *wanted* matches, oldest first.

        A condition on events or deliveries is one on the event that the request brought, or
        brought again; a refused request says it in its body.
        """
        if wanted != ALL:
            others = self._others(wanted, after=self._before_searched(wanted))
            brought = self._brought(wanted, limit=limit)
            matching = heapq.merge(brought, others, key=lambda request: request.at)
            yield from matching if limit is None else deque(matching, maxlen=limit)
            return
        if limit is None:
            yield from self._merged(after_event=0, after_request=0)
            return
        # No kind has more than *limit* of the newest.
        found = self._merged(
            after_event=self._before_newest(schema.events.c.seq, limit),
            after_request=self._before_newest(schema.requests.c.seq, limit),
        )
        yield from deque(found, maxlen=limit)

    def _found(self, wanted: Filter, *, limit: int | None) -> Iterator[EventView]:
        pages = self._matching(views.select_events(), wanted, limit=limit)
        found = (view for page in pages for view in self._views(page))
        yield from [*islice(found, limit)][::-1] if _newest_first(wanted, limit) else found

    def _brought(self, wanted: Filter, *, limit: int | None) -> Iterator[Request]:
        pages = self._matching(views.select_brought(), wanted, limit=limit)
        found = (request_of(row) for page in pages for row in page)
        yield from [*islice(found, limit)][::-1] if _newest_first(wanted, limit) else found

    def _others(self, wanted: Filter, *, after: int = 0) -> Iterator[Request]:
        """Yield the requests that brought no event and that *wanted* matches."""
        c = schema.requests.c
        joined = schema.requests.outerjoin(schema.events, schema.events.c.id == c.event_id)
        columns = schema.requests, schema.events.c.body.label(_SAID)
        chosen = sa.select(*columns).select_from(joined).where(*search.of_request(wanted))
        for row in self._all(chosen, c.seq, after, lambda row: row):
            request = load_request(row, leave_out=(_SAID,))
            if request.event_id is None:
                if search.refused_says(request, wanted):
                    yield request
            elif search.says(row[_SAID], wanted):
                yield request

    def _before_searched(self, wanted: Filter) -> int:
        """Return the number of the last request that is not searched; 0 if all are."""
        if wanted.wording is None:
            return 0
        last = self._before_newest(schema.requests.c.seq, SEARCHED)
        if last:
            self._tell(SOME_SEARCHED.format(number=SEARCHED), None)
        return last

    def _matching(
        self, chosen: sa.Select[Any], wanted: Filter, *, limit: int | None
    ) -> Iterator[Sequence[sa.RowMapping]]:
        """Yield the rows of events that *wanted* matches, page by page.

        The oldest come first, or the newest as :func:`_newest_first` says.
        """
        seq = schema.events.c.seq
        newest_first = _newest_first(wanted, limit)
        size = _PAGE if limit is None else min(_PAGE, limit + _SPARE)
        chosen = chosen.where(*search.conditions(wanted)).order_by(
            seq.desc() if newest_first else seq
        )
        for seqs in candidates.pages(
            self._database,
            wanted,
            newest_first=newest_first,
            size=size,
            look_at=max(candidates.LOOKED_AT, limit or 0),
            tell=self._tell,
        ):
            rows = self._rows(chosen.where(seq.in_(seqs)))
            yield [row for row in rows if search.says(row["body"], wanted)]

    def recent_requests(self, wanted: Filter, *, among: int) -> Sequence[Request]:
        """Return those of the newest *among* requests of each kind that *wanted* matches."""
        events, requests = schema.events.c.seq, schema.requests.c.seq
        first = self._before_newest(events, among)
        rows = self._rows(views.select_brought().where(events > first, *search.conditions(wanted)))
        brought = [request_of(row) for row in rows if search.says(row["body"], wanted)]
        others = self._others(wanted, after=self._before_newest(requests, among))
        return sorted([*brought, *others], key=lambda request: request.at)

    def _merged(self, *, after_event: int, after_request: int) -> Iterator[Request]:
        """Yield the requests that brought events and those that did not, by their time."""
        events, requests = schema.events.c, schema.requests.c
        brought = self._all(views.select_brought(), events.seq, after_event, request_of)
        others = self._all(sa.select(schema.requests), requests.seq, after_request, load_request)
        return heapq.merge(brought, others, key=lambda request: request.at)

    def _all(
        self,
        wanted: sa.Select[Any],
        seq: sa.Column[Any],
        last: int,
        load: Callable[[sa.RowMapping], T],
    ) -> Iterator[T]:
        """Yield rows page by page."""
        while rows := self._rows(wanted.where(seq > last).order_by(seq).limit(_PAGE)):
            yield from map(load, rows)
            last = rows[-1]["seq"]

    def pauses(self) -> Mapping[str, Pause]:
        """Return the destinations that are not being served now."""
        with self._database.reading() as db:
            return load_pauses(db)

    def pausers(self) -> Mapping[str, str]:
        """Return who paused each destination that a person paused."""
        table = schema.actions.c
        last = sa.select(table.who).where(table.event_id.is_(None), table.what == "pause")
        last = last.order_by(table.seq.desc()).limit(1)
        with self._database.reading() as db:
            paused = [name for name, each in load_pauses(db).items() if each.cause == "operator"]
            found = {name: db.scalar(last.where(table.destination == name)) for name in paused}
        return {name: who for name, who in found.items() if who is not None}

    def backlog(self) -> Mapping[str, Mapping[str, int]]:
        """Return how many deliveries each destination has in each state."""
        table = schema.deliveries.c
        counted = sa.select(table.destination, table.state, sa.func.count().label("number"))
        found: dict[str, dict[str, int]] = {}
        with self._database.reading() as db:
            for row in db.execute(counted.group_by(table.destination, table.state)):
                found.setdefault(row.destination, {})[row.state] = row.number
        return found

    def _before_newest(self, seq: sa.Column[Any], limit: int | None) -> int:
        """Return the number of the last row before the newest *limit*; 0 if there is none."""
        if limit is None:
            return 0
        last = sa.select(seq).order_by(seq.desc()).offset(limit).limit(1)
        with self._database.reading() as db:
            return db.execute(last).scalar_one_or_none() or 0

    def _rows(self, wanted: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        with self._database.reading() as db:
            return db.execute(wanted).mappings().all()

    def _page(self, wanted: sa.Select[Any], *, whole: bool = False) -> list[tuple[int, EventView]]:
        rows = self._rows(wanted)
        found = self._views(rows, whole=whole)
        return [(row["seq"], view) for row, view in zip(rows, found, strict=True)]

    def _views(self, rows: Sequence[sa.RowMapping], *, whole: bool = False) -> list[EventView]:
        with self._database.reading() as db:
            return views.views(db, rows, whole=whole)


def _newest_first(wanted: Filter, limit: int | None) -> bool:
    """Return whether the newest are looked for: of many with the same words no others are."""
    return limit is not None or wanted.wording is not None
