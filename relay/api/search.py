"""What a person types, and how much came in: ``/search``, ``/traffic``."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Annotated

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field, StringConstraints

from relay.api import blueprint as parts
from relay.api import masking
from relay.api.answers import answers
from relay.api.identity import needs
from relay.api.paging import Answer, answer, pages
from relay.api.problem import Fault
from relay.api.reading import Asked, Length, Span
from relay.api.services import services
from relay.rules.access import Scope
from relay.rules.typed import LONGEST
from relay.shapes.found import BucketJson, FoundJson, bucket_json, found_json
from relay.shapes.times import full_time
from relay.store.find import Finder
from relay.store.traffic import KEPT, MINUTE, Traffic

#: Spans of time that one answer has, at the most.
MOST_BUCKETS = 1000
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


class SearchQuery(Asked):
    q: Annotated[str, StringConstraints(max_length=LONGEST)] = Field(
        description="A number in any form or its last digits, words, a messageId, an id, a ticket"
    )


class TrafficQuery(Span):
    each: Length = Field(HOUR, description="How long a span is, in whole minutes: 1h")


def blueprint() -> APIBlueprint:
    made = parts.blueprint("search", about="What a person looks for")

    @made.get(
        "/search",
        summary="Find what a text may mean: customers, events, requests, tickets, words",
        responses=answers(FoundJson),
    )
    @needs(Scope.READ)
    def search(query: SearchQuery) -> FoundJson:
        notes: list[str] = []
        show_time = partial(full_time, zone=services().config.zone)

        def tell(said: str, time: datetime | None) -> None:
            notes.append(said.format(time=time and show_time(time)))

        found = Finder(services().database, tell=tell).find(query.q.strip())
        return masking.shown(found_json(found, notes=notes))

    @made.get(
        "/traffic",
        summary="Count what came in and what arrived over time",
        description="The last day, hour by hour, unless asked otherwise; 31 days are kept.",
        responses=pages(BucketJson),
    )
    @needs(Scope.READ)
    def get_traffic(query: TrafficQuery) -> Answer:
        size = query.each
        if size % MINUTE:
            raise Fault(422, "each: whole minutes")
        now = services().now()
        until = max(query.until or now + size, now - KEPT)
        since = max(query.since or until - DAY, now - KEPT)
        if (until - since) / size > MOST_BUCKETS:
            raise Fault(422, f"more than {MOST_BUCKETS} spans: let each be longer")
        since = since.replace(second=0, microsecond=0)
        buckets = Traffic(services().database).series(since=since, until=until, size=size)
        return answer([bucket_json(each) for each in buckets])

    return made
