"""Fills stores with any number of events by bulk SQL: accepting ten million takes too long.

One event is accepted, delivered and refused as usual; the others are copies of its rows. The
same statements serve SQLite and PostgreSQL, over a handful of functions for each.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

# The ways to end an attempt are those of the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "relay"))

from fakes import LEASE, finish

from relay import migrations
from relay.rules import payload, routing
from relay.rules.routing import Route, When
from relay.store import Database, Inbox, Queue, connect, schema
from relay.store.ids import new_id
from relay.store.lanes import lane_name
from relay.store.line_up import delivery_key
from relay.store.refused import ROWS_KEPT
from relay.store.texts import BLOCK, INDEXED, Extent, terms_of
from relay.store.values import Arrival, Request

DESTINATION, ENDPOINT, OURS = "crm", "/webhooks/gofax", "+61700000000"
#: As short as possible: ten million of them have to fit on a disk.
ROUTES = [Route(name="replies", when=When(), to=(DESTINATION,))]
#: What every text says; in front of two words that few and very few events share.
SAID = "Thanks for your message"
PARTS, PER_ORDER = 1000, 7
HEADERS = {"content-type": "application/json"}
#: Time over which the events are spread: the default retention.
KEPT = timedelta(days=90)
#: Events of one conversation, and events for each request that brought none.
PER_CONVERSATION, PER_DUPLICATE = 10, 100
#: Rows of one transaction; a power of two.
CHUNK = 1 << 17
#: Share of the events that are added to the indexes one by one, in no order: then each page of an
#: index was split about once.
LOOSE = 0.3
#: The customer of the event that is copied.
MODEL = 99_999_999


def arrival(message_id: str, customer: int) -> Arrival:
    """Return what the receiver makes of a reply from the *customer*-th customer."""
    raw = body(message_id, customer=customer)
    read, now = payload.read_json(raw), datetime.now(UTC)
    event = read.event(id=new_id("evt"), endpoint=ENDPOINT, received_at=now)
    return Arrival(
        event=event,
        request=_request(message_id, now, status=200, outcome=""),
        raw=raw,
        query="",
        format="json",
        key=payload.key(read, raw, endpoint=ENDPOINT, dedupe_by=("messageId",), query=""),
        meaning=payload.meaning(read),
        match=routing.match(event, ROUTES),
    )


def body(message_id: str, *, customer: int) -> bytes:
    """Write the body that GoFax would post."""
    return (
        f'{{"eventType":"SMS_REPLY","eventTimestamp":"2025-12-04T00:24:07.112733Z",'
        f'"messageId":"{message_id}","direction":"reply","from":"{phone(customer)}","to":"{OURS}",'
        f'"messageBody":"{SAID}","metadata":{{"accountId":"12345"}}}}'
    ).encode()


def phone(number: int) -> str:
    return f"+614{number:08d}"


def digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def message_name(number: int) -> str:
    """Return the messageId of the *number*-th event of a filled store."""
    return digest(number).hex()[:32]


def words(number: int) -> str:
    """Return what the *number*-th event of a filled store says beside what all say."""
    return f"about part{number % PARTS} and order{number // PER_ORDER}"


def event_name(number: int) -> str:
    """Return the id of the *number*-th event of a filled store."""
    return f"evt_{number:024d}"


def fill(url: str, *, events: int, delivered: bool = True) -> None:
    """Make the tables at *url* and put *events* into them, each with a delivery that is done.

    Not *delivered*: each delivery is pending, in a conversation of its own.
    """
    with closing(connect(url)) as database:
        migrations.upgrade(database)
        _accept_model(database, delivered=delivered)
    conversations = max(1, events // PER_CONVERSATION) if delivered else events
    # An index built in one go has full pages, each of which the next random key would split. Those
    # of a store that has grown have room: the last events come as events do.
    packed = events - round(events * LOOSE)
    with _driver(url) as driver:
        _make_numbers(driver)
        with driver.without_indexes():
            _copy_lanes(driver, conversations, delivered=delivered)
            _fill(driver, range(packed), events, conversations, delivered=delivered)
        with driver.transaction():
            _fill(driver, range(packed, events), events, conversations, delivered=delivered)
        if delivered:
            _copy_requests(driver)
            _count_traffic(driver)
        _index_texts(driver)
        driver.settle()


def _accept_model(database: Database, *, delivered: bool) -> None:
    inbox, queue = Inbox(database), Queue(database, node="filler")
    inbox.accept(arrival("model", customer=MODEL))
    if delivered:
        inbox.accept(arrival("model", customer=MODEL))
        now = datetime.now(UTC)
        inbox.refuse([_request("model", now, status=401, outcome="refused")])
        for claim in queue.claim(DESTINATION, limit=1, rate=None, lease=LEASE, clock=lambda: now):
            finish(queue, claim, now=now)
    inbox.close()
    queue.close()


def _request(message_id: str, at: datetime, *, status: int, outcome: str) -> Request:
    return Request(
        id=new_id("req"), at=at, endpoint=ENDPOINT, method="POST", remote="203.0.113.7",
        status=status, outcome=outcome, reason="signature good",
        headers=HEADERS, message_id=message_id,
        body=b"{" + b" " * 200 + b"}" if outcome == "refused" else None,
    )  # fmt: skip


class _Driver:
    """The driver's own connection, and what differs from one database to the other."""

    #: Selects the name and definition of each index that is not a constraint.
    indexes: str
    #: Inserts into the full-text index what it selects of each event.
    index_texts: str
    #: Maintenance that the server would do by itself, later.
    settling: tuple[str, ...]

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def run(self, sql: str) -> list[Any]:
        cursor = self._connection.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []

    @contextmanager
    def without_indexes(self) -> Iterator[None]:
        """Drop the indexes, and build them again at the end."""
        found = {name: made for name, made in self.run(self.indexes)}
        for name in found:
            self.run(f"DROP INDEX {name}")
        yield
        for made in found.values():
            self.run(made)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.run("BEGIN")
        yield
        self.run("COMMIT")

    def settle(self) -> None:
        for sql in self.settling:
            self.run(sql)


class _Sqlite(_Driver):
    indexes = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    index_texts = "INSERT INTO texts (rowid, words) SELECT seq, terms(seq, body)"
    settling = ("PRAGMA wal_checkpoint(TRUNCATE)",)


class _Postgres(_Driver):
    indexes = (
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
        " AND indexname NOT IN (SELECT conname FROM pg_constraint)"
    )
    # These texts need no folding beyond that.
    index_texts = f"""
        INSERT INTO texts SELECT seq, array_to_tsvector(ARRAY(
            SELECT DISTINCT lpad(to_hex(seq >> {BLOCK}), 6, '0') || word
            FROM unnest(string_to_array(lower(body), ' ')) AS word))"""
    settling = ("VACUUM (ANALYZE)", "CHECKPOINT")


@contextmanager
def _driver(url: str) -> Iterator[_Driver]:
    """Open the store for statements in bulk: no syncs, no checks of references."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as db:
            db.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000;")
            for name, function in _FUNCTIONS.items():
                db.create_function(name, 1, function, deterministic=True)
            db.create_function("terms", 2, terms_of, deterministic=True)
            yield _Sqlite(db)
        return
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("SET session_replication_role = replica; SET synchronous_commit = off")
        server.execute("SET maintenance_work_mem = '512MB'; SET work_mem = '256MB'")
        server.execute(_IN_POSTGRES)
        yield _Postgres(server)


_FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "serial": lambda number: f"{number:024d}",
    "phone": phone,
    "digest": digest,
    "backwards": lambda number: number[:0:-1],
    "hexed": bytes.hex,
    "effect": lambda key: delivery_key(key, DESTINATION),
    "lane": lambda conversation: lane_name(DESTINATION, conversation),
    "told": str.encode,
    "moment": lambda seconds: int(seconds * 1e6),
    "minute_of": lambda moment: moment // 60_000_000,
}
_IN_POSTGRES = f"""
CREATE FUNCTION serial(bigint) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT lpad($1::text, 24, '0') $$;
CREATE FUNCTION phone(bigint) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT '+614' || lpad($1::text, 8, '0') $$;
CREATE FUNCTION backwards(text) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT reverse(substr($1, 2)) $$;
CREATE FUNCTION digest(bigint) RETURNS bytea LANGUAGE sql IMMUTABLE
    AS $$ SELECT sha256($1::text::bytea) $$;
CREATE FUNCTION hexed(bytea) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT encode($1, 'hex') $$;
CREATE FUNCTION effect(bytea) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT substr(encode(sha256($1 || '{DESTINATION}'), 'hex'), 1, 40) $$;
CREATE FUNCTION told(text) RETURNS bytea LANGUAGE sql IMMUTABLE
    AS $$ SELECT $1::bytea $$;
CREATE FUNCTION lane(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT substr(encode(sha256(told('{len(DESTINATION)}:{DESTINATION}' || $1)), 'hex'), 1, 32) $$;
CREATE FUNCTION moment(double precision) RETURNS timestamptz LANGUAGE sql IMMUTABLE
    AS $$ SELECT to_timestamp($1) $$;
CREATE FUNCTION minute_of(timestamptz) RETURNS integer LANGUAGE sql IMMUTABLE
    AS $$ SELECT floor(extract(epoch FROM $1) / 60)::integer $$;
"""


def _copy_lanes(driver: _Driver, conversations: int, *, delivered: bool) -> None:
    """Copy the model's lane; rows with random keys go in key order, which is faster."""
    for first in range(0, conversations, CHUNK):
        said = f"phone({first} + n.i) || '~{OURS}'"
        thread = {"thread": f"CAST({first} + n.i AS text)"} if delivered else {}
        _copy(
            driver, "lanes", f"m.conversation LIKE '{phone(MODEL)}%'",
            source=f"numbers AS n WHERE n.i < {conversations - first}", order=f"lane({said})",
            id=f"lane({said})", conversation=said, **thread,
        )  # fmt: skip


def _fill(
    driver: _Driver, numbers: range, events: int, conversations: int, *, delivered: bool
) -> None:
    """Copy the model's event, delivery and attempt for each of *numbers*, and then its key."""
    begun = _newest(driver, "events")
    for first in numbers[::CHUNK]:
        print(f"{first:,} of {events:,} events", file=sys.stderr)
        newest = _newest(driver, "events"), _newest(driver, "deliveries")
        count = min(CHUNK, numbers.stop - first)
        _copy_events(driver, first, count, events=events, conversations=conversations)
        _copy_deliveries(driver, *newest, delivered=delivered)
    _copy(
        driver, "keys", "m.event_id = (SELECT id FROM events WHERE seq = 1)",
        source=f"events AS e WHERE e.seq > {begun}", order="e.key",
        key="e.key", event_id="e.id", duplicates="0",
        first_at="e.received_at", last_at="e.received_at",
    )  # fmt: skip


def _copy_events(
    driver: _Driver, first: int, count: int, *, events: int, conversations: int
) -> None:
    number = f"({first} + n.i)"
    customer = f"phone({number} % {conversations})"
    message = f"substr(hexed(digest({number})), 1, 32)"
    begun = datetime.now(UTC) - KEPT
    at = f"moment({begun.timestamp():.1f} + {number} * {KEPT.total_seconds() / events:.9f})"
    raw = body("MESSAGE", customer=MODEL).decode()
    text = (
        f"'{SAID} about part' || ({number} % {PARTS}) || ' and order' || ({number} / {PER_ORDER})"
    )
    changes = ("MESSAGE", message), (phone(MODEL), customer), (SAID, text)
    written = f"'{raw}'"
    for old, new in changes:
        written = f"replace({written}, '{old}', {new})"
    _copy(
        driver, "events", "m.seq = 1", source=f"numbers AS n WHERE n.i < {count}",
        id=f"'evt_' || serial({number})", key=f"digest({number})", message_id=message,
        customer=customer, customer_ending=f"backwards({customer})",
        sender=customer, conversation=f"{customer} || '~{OURS}'",
        raw=f"told({written})", body=text,
        occurred_at=at, received_at=at, request_id=f"'req_' || serial({number})",
    )  # fmt: skip


def _copy_deliveries(
    driver: _Driver, newest_event: int, newest_delivery: int, *, delivered: bool
) -> None:
    ticket = "CAST(CAST(substr(e.customer, 5) AS integer) AS text)"
    ended = {"due_at": "e.received_at"}
    if delivered:
        ended = {
            "ended_at": "e.received_at",
            "reference": f"'ticket ' || {ticket} || ' comment ' || e.seq",
            "url": f"'https://example.zendesk.com/agent/tickets/' || {ticket}",
        }
    _copy(
        driver, "deliveries", "m.seq = 1", source=f"events AS e WHERE e.seq > {newest_event}",
        id="'dlv_' || substr(e.id, 5)", event_id="e.id", lane_id="lane(e.conversation)",
        key="effect(e.key)", created_at="e.received_at", **ended,
    )  # fmt: skip
    if delivered:
        _copy(
            driver, "attempts", "m.seq = 1",
            source=f"deliveries AS d WHERE d.seq > {newest_delivery}",
            id="'att_' || substr(d.id, 5) || '_1'", delivery_id="d.id",
            started_at="d.created_at", ended_at="d.created_at",
        )  # fmt: skip


def _index_texts(driver: _Driver) -> None:
    """Make the full-text index as a worker would."""
    driver.run(f"{driver.index_texts} FROM events WHERE body IS NOT NULL")
    last = _newest(driver, "events")
    extent = json.dumps(asdict(Extent(first=1, last=last, settled=last)))
    driver.run(f"INSERT INTO marks (name, value) VALUES ('{INDEXED}', told('{extent}'))")


def _copy_requests(driver: _Driver) -> None:
    """Add requests that brought no event: refused ones, as many as are kept, and duplicates."""
    _copy(
        driver, "requests", "m.outcome = 'duplicate'",
        source=f"events AS e WHERE e.seq > 1 AND e.seq % {PER_DUPLICATE} = 0",
        id="'req_d' || substr(e.id, 6)", at="e.received_at", event_id="e.id",
        message_id="e.message_id",
    )  # fmt: skip
    _copy(
        driver, "requests", "m.outcome = 'refused'",
        source=f"numbers AS n WHERE n.i < {ROWS_KEPT - 1}", id="'req_r' || serial(n.i)",
    )  # fmt: skip


def _count_traffic(driver: _Driver) -> None:
    """Note what came and arrived, as a worker does."""
    driver.run(
        "INSERT INTO traffic SELECT minute_of(received_at), count(*), count(*) FROM events"
        " WHERE seq > 1 GROUP BY minute_of(received_at)"
    )


def _copy(
    driver: _Driver, table: str, model: str, *, source: str, order: str = "", **changes: str
) -> None:
    """Copy the row m of *table* that is the *model* for each row of *source*, with *changes*."""
    columns = [each.name for each in schema.metadata.tables[table].c if each.name != "seq"]
    values = ", ".join(changes.pop(name, f"m.{name}") for name in columns)
    assert not changes, changes
    tables, _, where = source.partition(" WHERE ")
    by = f" ORDER BY {order}" if order else ""
    driver.run(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values}"
        f" FROM {table} AS m CROSS JOIN {tables} WHERE {model} AND {where}{by}"
    )


def _newest(driver: _Driver, table: str) -> int:
    return int(driver.run(f"SELECT max(seq) FROM {table}")[0][0])


def _make_numbers(driver: _Driver) -> None:
    """Make a table of the numbers of a chunk."""
    driver.run("CREATE TEMP TABLE numbers (i bigint)")
    driver.run("INSERT INTO numbers VALUES (0)")
    size = 1
    while size < CHUNK:
        driver.run(f"INSERT INTO numbers SELECT i + {size} FROM numbers")
        size *= 2
