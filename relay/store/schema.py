"""The tables, and the column type for aware times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    TEXT,
    TIMESTAMP,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: Deliveries in the line of their conversation; late ones are not. Written out as text, because
#: SQLite uses a partial index only for a query with the same words.
IN_LINE = text("state IN ('waiting', 'pending', 'in_flight') AND NOT late")
#: The delivery at the head of that line.
AT_HEAD = text("state IN ('pending', 'in_flight') AND NOT late")
#: Late deliveries have a line of their own.
LATE_IN_LINE = text("state IN ('waiting', 'pending', 'in_flight') AND late")
LATE_AT_HEAD = text("state IN ('pending', 'in_flight') AND late")
PENDING = text("state = 'pending'")
IN_FLIGHT = text("state = 'in_flight'")
#: Deliveries that may need a person.
STOPPED = text("state IN ('dead', 'held')")
#: Of the pending ones, those that need not wait once their destination answers again.
HURRIED = text("state = 'pending' AND hurry_from IS NOT NULL")
REFUSED = text("outcome = 'refused'")
#: Problems that are not resolved, and alerts that are still to be sent.
UNRESOLVED = text("resolved_at IS NULL")
UNSENT = text("due_at IS NOT NULL")
#: Destination and state of a delivery.
LISTED = text("(destination || '/' || state)")
#: What a destination made of a delivery, and the ticket or contact of a conversation, as far as an
#: index page holds them.
REFERENCE = text("substr(reference, 1, 60)")
REFERRED = text("reference IS NOT NULL")
THREAD = text("substr(thread, 1, 60)")
THREADED = text("thread IS NOT NULL")
#: Who acted, as far as an index page holds it.
WHO = text("substr(who, 1, 60)")
#: Events that are not delivered, which are few.
UNUSUAL = text("standing <> 'accepted'")


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time: ``timestamptz`` in PostgreSQL, integer microseconds in SQLite."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        since_epoch = microseconds(value)
        return value if dialect.name == "postgresql" else since_epoch

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        return _EPOCH + _MICROSECOND * int(value)


def microseconds(value: datetime | None) -> int | None:
    """Return the microseconds since 1970; None of None. Raises ValueError without a time zone."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError("a naive time was about to be stored")
    return (value - _EPOCH) // _MICROSECOND


# SQLite numbers rows only in a column of type INTEGER.
_SEQUENCE = BigInteger().with_variant(Integer(), "sqlite")
# In the order of its bytes, so that texts with one beginning stand together in an index.
_BYTEWISE = Text().with_variant(TEXT(collation="C"), "postgresql")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: Secrets and marks of the store.
marks = Table(
    "marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

#: What was accepted. Rows never change.
events = Table(
    "events",
    metadata,
    Column("seq", _SEQUENCE, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("standing", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("charset", Text),
    Column("key", LargeBinary, nullable=False),
    Column("message_id", Text),
    Column("type", Text, nullable=False),
    Column("direction", Text),
    Column("customer", Text),
    Column("ours", Text),
    Column("sender", Text),
    Column("recipient", Text),
    Column("body", Text),
    Column("keyword", Text),
    Column("sentiment", Text),
    #: Whether somebody tried the relay, as the patterns said when it came.
    Column("test", Boolean, nullable=False),
    Column("account_id", Text),
    Column("conversation", Text, nullable=False),
    Column("occurred_at", UtcTime),
    Column("received_at", UtcTime, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("query", Text, nullable=False),
    #: What each route said, as JSON.
    Column("routing", Text, nullable=False),
    #: The request that brought it; None in rows older than these columns, whose request has a
    #: row of its own.
    Column("request_id", Text),
    Column("remote", Text),
    Column("reason", Text),
    Column("headers", Text),
    #: The customer as :func:`relay.rules.text.ending` writes it, so that the last digits suffice.
    Column("customer_ending", Text),
    #: Standing, endpoint and type, as :func:`relay.store.values.kind_of` joins them.
    Column("kind", Text, nullable=False),
    sqlite_autoincrement=True,
)

#: Keys of all events, which outlive these, so that an old capture has no effect.
keys = Table(
    "keys",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("event_id", Text, nullable=False),
    #: Keyed digests of what a duplicate must have in common with the event.
    Column("meaning", LargeBinary, nullable=False),
    Column("text_digest", LargeBinary),
    Column("duplicates", Integer, nullable=False),
    Column("first_at", UtcTime, nullable=False),
    Column("last_at", UtcTime, nullable=False),
)

#: The calls to an endpoint that brought no event: duplicates and refused ones.
requests = Table(
    "requests",
    metadata,
    Column("seq", _SEQUENCE, primary_key=True),
    Column("id", Text, nullable=False, index=True),
    Column("at", UtcTime, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("remote", Text),
    Column("status", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("event_id", Text, index=True),
    Column("message_id", Text),
    #: Bytes of headers and body.
    Column("size", Integer, nullable=False),
    Column("headers", Text, nullable=False),
    #: Beginning of the body; of refused requests only.
    Column("body", LargeBinary),
    #: Of refused requests: whether they carry a signature, and whether the body is whole.
    Column("signed", Boolean, nullable=False),
    Column("whole", Boolean, nullable=False),
    Column("query", Text, nullable=False),
    sqlite_autoincrement=True,
)

#: One conversation at one destination, which has an order and a thread.
lanes = Table(
    "lanes",
    metadata,
    #: Digest of destination and conversation.
    Column("id", Text, primary_key=True),
    Column("destination", Text, nullable=False),
    Column("conversation", Text, nullable=False),
    #: The remote ticket or contact, as the last receipt named it.
    Column("thread", _BYTEWISE),
    #: The dead delivery that holds the conversation up until a person settles it.
    Column("parked_by", Text),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("seq", _SEQUENCE, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("event_id", Text, ForeignKey("events.id"), nullable=False, index=True),
    Column("destination", Text, nullable=False),
    Column("lane_id", Text, ForeignKey("lanes.id"), nullable=False),
    #: The key by which the destination may recognise the effect.
    Column("key", Text, nullable=False),
    Column("state", Text, nullable=False),
    #: Who asked for this series of attempts: the relay (``scheduled``) or a person (``manual``).
    Column("trigger", Text, nullable=False, server_default="scheduled"),
    #: The version of the config whose routes led here; NULL: of one with secrets missing.
    Column("config", Text),
    #: Sent again after it was dead, and so outside of the order of its conversation.
    Column("late", Boolean, nullable=False),
    Column("due_at", UtcTime),
    #: From when on it is due as soon as its destination answers again; None: its wait stays.
    Column("hurry_from", UtcTime),
    #: Attempts that count against the schedule.
    Column("attempts", Integer, nullable=False),
    #: How often it was claimed; fences the record of an attempt that lost its lease.
    Column("claims", Integer, nullable=False),
    Column("repeat", Boolean, nullable=False),
    Column("failing_since", UtcTime),
    Column("node", Text),
    Column("lease_until", UtcTime),
    #: Why the last attempt failed, or why it is dead or held.
    Column("reason", Text),
    Column("reference", _BYTEWISE),
    Column("url", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    sqlite_autoincrement=True,
)

#: Written when a delivery is claimed, completed when its attempt ends.
attempts = Table(
    "attempts",
    metadata,
    Column("seq", _SEQUENCE, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("delivery_id", Text, ForeignKey("deliveries.id"), nullable=False, index=True),
    Column("destination", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("repeat", Boolean, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("outcome", Text),
    Column("detail", Text),
    Column("status", Integer),
    sqlite_autoincrement=True,
)

#: What came in and what arrived, minute by minute, for charts: to count it anew would take long.
traffic = Table(
    "traffic",
    metadata,
    #: Minutes since 1970.
    Column("minute", Integer, primary_key=True, autoincrement=False),
    #: Events that were received in it.
    Column("came", Integer, nullable=False),
    #: Attempts that began in it and delivered.
    Column("arrived", Integer, nullable=False),
)

#: The health of a destination, shared by all workers. No row: nothing is wrong.
destinations = Table(
    "destinations",
    metadata,
    Column("name", Text, primary_key=True),
    #: Attempts that failed in a row.
    Column("failures", Integer, nullable=False, server_default="0"),
    #: Why it is not being served; None if it is.
    Column("cause", Text),
    Column("reason", Text),
    Column("since", UtcTime),
    #: When one delivery is tried; None if only a person ends the pause.
    Column("until", UtcTime),
    #: It came back then, and waits that began earlier are over; None: that is done.
    Column("back_at", UtcTime),
    #: While it is given more and more: how many deliveries may start, after how many answers.
    Column("room", Integer),
    Column("answers", Integer),
)

#: What people did: resend, replay, settle, pause, resume, undo. Only removing its event or erasing
#: a customer changes a row.
actions = Table(
    "actions",
    metadata,
    Column("seq", _SEQUENCE, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    #: Where that person acted from: the command line, or the address of a caller.
    Column("origin", Text),
    #: Why, in that person's words.
    Column("why", Text),
    Column("event_id", Text, index=True),
    Column("delivery_id", Text),
    Column("destination", Text),
    #: The result, for people.
    Column("detail", Text, nullable=False),
    #: What one command did has one name, by which it can be undone.
    Column("act", Text, index=True),
    #: The delivery before it, as JSON; None if there is nothing to undo.
    Column("before", Text),
    sqlite_autoincrement=True,
)

#: Backups that the relay made of this store, until it removes them itself.
backups = Table(
    "backups",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", UtcTime, nullable=False),
    #: The machine that it was made on, and its absolute path there.
    Column("host", Text, nullable=False),
    Column("file", Text, nullable=False),
    #: Why it was made; what a person asked for stays, other backups go after some days.
    Column("reason", Text, nullable=False),
)

#: Processes that use this store, until they stop or were silent for long.
nodes = Table(
    "nodes",
    metadata,
    #: The name under which a worker claims.
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("beat_at", UtcTime, nullable=False),
    #: Its loops that cannot go on, a line each.
    Column("faults", Text, nullable=False),
    #: The version of its config, what that says in the end without secrets, and its file.
    Column("config", Text, nullable=False),
    Column("effective", Text, nullable=False),
    Column("config_path", Text, nullable=False),
    Column("config_changed_at", UtcTime),
    #: When the file was changed, as the node last saw it.
    Column("file_changed_at", UtcTime),
)

#: What a person should know: suspected, opened, escalated, acknowledged, resolved.
problems = Table(
    "problems",
    metadata,
    Column("seq", _SEQUENCE, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    #: The destination, endpoint, node or channel; empty: the relay.
    Column("subject", Text, nullable=False),
    Column("level", Text, nullable=False),
    #: What is wrong, for people.
    Column("said", Text, nullable=False),
    #: How many it concerned when it was last told.
    Column("number", Integer, nullable=False),
    Column("since", UtcTime, nullable=False),
    #: None while it is only suspected.
    Column("opened_at", UtcTime),
    Column("gone_since", UtcTime),
    Column("escalated_at", UtcTime),
    Column("acknowledged_at", UtcTime),
    Column("acknowledged_by", Text),
    Column("resolved_at", UtcTime),
    sqlite_autoincrement=True,
)

#: One message about a change of a problem to one channel.
alerts = Table(
    "alerts",
    metadata,
    Column("seq", _SEQUENCE, primary_key=True),
    Column("problem_id", Text, ForeignKey("problems.id"), nullable=False, index=True),
    #: The name of the channel in the config.
    Column("channel", Text, nullable=False),
    Column("change", Text, nullable=False),
    #: What the problem was when it changed.
    Column("level", Text, nullable=False),
    Column("said", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("tries", Integer, nullable=False),
    #: Whether an earlier try may have arrived.
    Column("repeat", Boolean, nullable=False),
    #: When it is tried next; None: it was sent, or given up.
    Column("due_at", UtcTime),
    Column("sent_at", UtcTime),
    #: Why the last try failed.
    Column("error", Text),
    #: The node that sends it, and until when.
    Column("node", Text),
    Column("lease_until", UtcTime),
    sqlite_autoincrement=True,
)

#: Who may sign in to the console.
users = Table(
    "users",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    #: A hash by argon2; None: not chosen yet.
    Column("password", Text),
    #: Sessions and links of an earlier one are worth nothing.
    Column("epoch", Integer, nullable=False),
    #: Wrong passwords in a row.
    Column("failures", Integer, nullable=False),
    Column("locked_until", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    Column("signed_in_at", UtcTime),
)

#: What programs show to use the API.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    #: Joined by blanks.
    Column("scopes", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", UtcTime),
    #: The day on which it was last used.
    Column("used_at", UtcTime),
)
