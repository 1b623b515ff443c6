"""What one search box finds, and how much came and arrived, as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import TypedDict

from relay.shapes.events import EventJson, event_json
from relay.shapes.requests import RequestJson, request_json
from relay.shapes.times import iso
from relay.store.find import Customer, Found, Record
from relay.store.traffic import Bucket


class CustomerJson(TypedDict):
    """A customer whose number ends so; there are `more` events if not all were counted."""

    customer: str
    newest_at: str
    events: int
    more: bool


class RecordJson(TypedDict):
    """A delivery, and what it made at its destination."""

    delivery_id: str
    event_id: str
    destination: str
    state: str
    reference: str | None
    url: str | None
    customer: str | None
    received_at: str


class FoundJson(TypedDict):
    """What the search may mean, by kind; `more` names the kinds with further matches."""

    events: list[EventJson]
    deliveries: list[RecordJson]
    requests: list[RequestJson]
    customers: list[CustomerJson]
    records: list[RecordJson]
    texts: list[EventJson]
    more: list[str]
    notes: list[str]


class BucketJson(TypedDict):
    """A span of time: events that came, and attempts begun in it that delivered."""

    begins_at: str
    came: int
    arrived: int


def found_json(found: Found, *, notes: Sequence[str]) -> FoundJson:
    """Return what was found; *notes*: what a person should know of it."""
    return {
        "events": [event_json(each) for each in found.events],
        "deliveries": [_record_json(each) for each in found.deliveries],
        "requests": [request_json(each) for each in found.requests],
        "customers": [_customer_json(each) for each in found.customers],
        "records": [_record_json(each) for each in found.records],
        "texts": [event_json(each) for each in found.texts],
        "more": sorted(found.more),
        "notes": list(notes),
    }


def bucket_json(bucket: Bucket) -> BucketJson:
    return {
        "begins_at": iso(bucket.begins_at),
        "came": bucket.came,
        "arrived": bucket.arrived,
    }


def _customer_json(found: Customer) -> CustomerJson:
    return {
        "customer": found.customer,
        "newest_at": iso(found.newest_at),
        "events": found.events,
        "more": found.more,
    }


def _record_json(found: Record) -> RecordJson:
    return {
        "delivery_id": found.delivery_id,
        "event_id": found.event_id,
        "destination": found.destination,
        "state": found.state.value,
        "reference": found.reference,
        "url": found.url,
        "customer": found.customer,
        "received_at": iso(found.received_at),
    }
