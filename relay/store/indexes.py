"""The indexes of the tables. Migrations make them; who reads and writes rows need not know them.

They stand apart from the tables because SQLAlchemy loads PostgreSQL's dialect for their options,
which took every command 20 ms, and every process of a relay with SQLite 2 MiB.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import DDL, Index, Table, TextClause, event

from relay.store import schema


def _add(
    table: Table,
    name: str,
    *columns: str | TextClause,
    where: TextClause | None = None,
    **options: Any,
) -> None:
    """Add an index; *where*: of these rows only."""
    if where is not None:
        options |= {"sqlite_where": where, "postgresql_where": where}
    table.append_constraint(Index(name, *columns, **options))


# Of digests in PostgreSQL, whose index pages cannot hold an id of 3,000 characters.
_add(schema.events, "ix_events_message_id", "message_id", postgresql_using="hash")
_add(schema.events, "ix_events_customer_ending", "customer_ending", "seq")
_add(schema.events, "ix_events_kind", "kind", "seq")
_add(schema.events, "ix_events_received_at", "received_at", "seq")
# Tells how many events are what, without a look at all of them.
_add(schema.events, "ix_events_unusual", "standing", where=schema.UNUSUAL)
# With the size, so that the table need not be read to add it up.
_add(schema.requests, "ix_requests_refused", "signed", "seq", "size", where=schema.REFUSED)
_add(schema.lanes, "ix_lanes_thread", schema.THREAD, where=schema.THREADED)
# For removing lanes, and the check of references to them. The event makes this index wider
# than the partial ones, so that SQLite prefers those.
_add(schema.deliveries, "ix_deliveries_lane", "lane_id", "event_id")
# For listing events, whose ids sort by time. One expression instead of two columns, because
# a planner would take the index for claims, whose own are better.
_add(schema.deliveries, "ix_deliveries_listed", schema.LISTED, "event_id")
_add(schema.deliveries, "ix_deliveries_line", "lane_id", "seq", where=schema.IN_LINE)
_add(schema.deliveries, "ix_deliveries_late", "lane_id", "seq", where=schema.LATE_IN_LINE)
_add(schema.deliveries, "ix_deliveries_late_head", "lane_id", where=schema.LATE_AT_HEAD)
_add(schema.deliveries, "uq_deliveries_head", "lane_id", unique=True, where=schema.AT_HEAD)
_add(schema.deliveries, "ix_deliveries_due", "destination", "due_at", "seq", where=schema.PENDING)
# By which a person finds the messages of a ticket.
_add(schema.deliveries, "ix_deliveries_reference", schema.REFERENCE, where=schema.REFERRED)
# For the newest deliveries, which get a share of each claim.
_add(schema.deliveries, "ix_deliveries_newest", "destination", "seq", where=schema.PENDING)
_add(schema.deliveries, "ix_deliveries_hurry", "destination", "hurry_from", where=schema.HURRIED)
_add(schema.deliveries, "ix_deliveries_stopped", "destination", "seq", where=schema.STOPPED)
_add(schema.deliveries, "ix_deliveries_lease", "lease_until", where=schema.IN_FLIGHT)
_add(schema.attempts, "ix_attempts_started", "destination", "started_at")
_add(schema.actions, "ix_actions_at", "at")
_add(schema.actions, "ix_actions_who", schema.WHO, "seq")
_add(schema.actions, "ix_actions_what", "what", "seq")
_add(
    schema.problems,
    "uq_problems_unresolved",
    "kind",
    "subject",
    unique=True,
    where=schema.UNRESOLVED,
)
_add(schema.alerts, "ix_alerts_unsent", "channel", "seq", where=schema.UNSENT)

#: The tables, with their indexes.
complete = schema.metadata


def _add_texts(dialect: str, *statements: str) -> None:
    """Have the full-text index made with the tables; its words come as they are looked for."""
    for statement in statements:
        made = DDL(statement)  # type: ignore[no-untyped-call]
        event.listen(complete, "after_create", made.execute_if(dialect=dialect))


_add_texts(
    "sqlite",
    "CREATE VIRTUAL TABLE texts USING fts5"
    " (words, tokenize = 'ascii', detail = 'none', columnsize = 0)",
)
_add_texts(
    "postgresql",
    "CREATE TABLE texts (seq bigint NOT NULL, words tsvector NOT NULL,"
    " CONSTRAINT pk_texts PRIMARY KEY (seq))",
    # What is not sorted into the index yet is read by each search.
    "CREATE INDEX ix_texts_words ON texts USING gin (words) WITH (gin_pending_list_limit = 1024)",
)
