"""PostgreSQL: how connections are made, what they promise, and what time the server says it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from relay.clock import wall

__all__ = ["Clock", "Error", "Unnested", "connect", "engine", "insert", "rows_of"]

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError:  # of the package, or of the libpq that it needs
    psycopg = None  # type: ignore[assignment]


class _NoError(Exception):
    """Stands for the driver's error where there is no driver."""


#: What the driver raises.
Error: type[Exception] = psycopg.Error if psycopg else _NoError

#: Connections that a process keeps, and how many more it opens when many threads ask at once.
KEPT, MORE = 5, 20
#: Seconds after which a thread that wants a connection gives up, less than a sender's patience.
PATIENCE = 2.0
#: Seconds after which a connection is made anew: hosts and their clocks change.
LONGEST_LIFE = 300

#: What the URL may say otherwise. A server that vanished is found out before a sender gives up.
DEFAULTS = {
    "application_name": "gofax-relay",
    "connect_timeout": "3",
    # Of several hosts the one that can be written to: after a fail-over that is another one.
    "target_session_attrs": "read-write",
    "tcp_user_timeout": "4000",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
}
#: For each connection; the locks of writers are held for milliseconds. Those of a node that
#: vanished are in nobody's way for longer than it takes the server to find that out.
SETTINGS = {
    "timezone": "UTC",
    # Whoever has waited for a lock sees what the other did.
    "default_transaction_isolation": "read committed",
    "lock_timeout": "2s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_user_timeout": "4000",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

#: Conditions in which the same transaction may succeed a moment later.
IN_THE_WAY = ("40001", "40P01")
#: The server took back that it can be written to.
READ_ONLY = "25006"

MISSING = 'postgresql needs the package psycopg: pip install "gofax-relay[postgres]"'
UNREADABLE = "this URL cannot be read: write : / @ % of a password as %3A %2F %40 %25"


class Clock:
    """The time by the server's clock, which all nodes share; ours, until it was heard once.

    Each new connection hears it again. In between our own clock may be set as it likes.
    """

    def __init__(self) -> None:
        #: What the server said, and at what moment of ours: replaced as one.
        self._heard: tuple[datetime, float] | None = None

    def __call__(self) -> datetime:
        if self._heard is None:
            return wall()
        told, at = self._heard
        return told + timedelta(seconds=time.monotonic() - at)

    def hear(self, told: datetime, *, asked: float) -> None:
        """Note what the server *told* in answer to a question *asked* at that moment."""
        now = time.monotonic()
        self._heard = told.astimezone(UTC), asked + (now - asked) / 2


def engine(url: str, clock: Clock) -> sa.Engine:
    """Make an engine for *url*, which is libpq's own kind of URL: several hosts, TLS and all.

    Raises LookupError if it cannot be read, or the driver is not installed.
    """
    made = sa.create_engine(
        "postgresql+psycopg://",
        creator=partial(psycopg.connect, **_options(url)),
        pool_size=KEPT,
        max_overflow=MORE,
        pool_timeout=PATIENCE,
        # A server that was restarted has cut every connection in the pool.
        pool_pre_ping=True,
        pool_recycle=LONGEST_LIFE,
    )
    sa.event.listen(made, "connect", lambda connection, _: _settle(connection, clock))
    sa.event.listen(made, "begin", _begin)
    return made


def connect(url: str, **options: Any) -> psycopg.Connection[Any]:
    """Connect to the first host of *url* that can be written to."""
    return psycopg.connect(**_options(url), **options)


def _options(url: str) -> dict[str, Any]:
    """Read *url*. Raises LookupError, in words that repeat nothing of it."""
    if psycopg is None:
        raise LookupError(MISSING)
    try:
        return {**DEFAULTS, **conninfo_to_dict(url)}
    except Error:
        raise LookupError(UNREADABLE) from None


def _settle(connection: psycopg.Connection[Any], clock: Clock) -> None:
    """Set what every connection needs, and hear the time, in one question."""
    calls = ", ".join(
        f"set_config('{name}', '{value}', false)" for name, value in SETTINGS.items()
    )
    asked = time.monotonic()
    row = connection.execute(
        # Who set it higher, for a standby to have it too, knows why; off would lose events.
        "SELECT clock_timestamp(), CASE current_setting('synchronous_commit') WHEN 'off'"
        f" THEN set_config('synchronous_commit', 'on', false) END, {calls}"
    ).fetchone()
    connection.commit()
    if row is not None:
        clock.hear(row[0], asked=asked)


def _begin(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("gofax_unsynced"):
        driver: Any = connection.connection.dbapi_connection
        try:
            driver.execute("SET LOCAL synchronous_commit = off")
        except Error as error:
            # The pool, which did not see it, would try a rollback.
            connection.invalidate(error)
            raise


def rows_of(table: sa.Table, columns: Sequence[str]) -> sa.FromClause:
    """Return as many rows of values for *columns* of *table* as a statement is given."""
    kinds = {name: table.c[name].type for name in columns}
    arrays = [sa.bindparam(f"b_{name}", type_=ARRAY(kind)) for name, kind in kinds.items()]
    named = [sa.column(name, kind) for name, kind in kinds.items()]
    return sa.func.unnest(*arrays).table_valued(*named).render_derived(name="rows")


class Unnested:
    """A statement for many rows at once, the same for any number of them.

    Its columns go as arrays, so that the server plans it once, and the driver has a parameter for
    each column instead of one for each value.
    """

    def __init__(self, statement: sa.Executable, columns: Sequence[str]) -> None:
        """*statement* takes its values from :func:`rows_of` *columns*."""
        self._statement = statement
        self._names = [f"b_{name}" for name in columns]

    def many(self, connection: sa.Connection, rows: Any) -> int:
        """Execute it for *rows*, each with its values in the order of the columns.

        Return how many were inserted or found.
        """
        values = [list(column) for column in zip(*rows, strict=True)]
        if not values:
            return 0
        bound = dict(zip(self._names, values, strict=True))
        return connection.execute(self._statement, bound).rowcount
