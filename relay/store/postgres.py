"""PostgreSQL: how connections are made, what they promise, and how nodes wake each other.

PostgreSQL locks rows; a transaction that locks several takes them in the order of their keys.
"""

from __future__ import annotations

import difflib
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from relay.clock import SteadyClock, wall
from relay.every import Every
from relay.store import schema
from relay.store.database import (
    KEPT,
    MORE,
    Database,
    InTheWay,
    Listener,
    Prepared,
    StoreUnavailable,
)

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError:  # of the package, or of the libpq that it needs
    psycopg = None  # type: ignore[assignment]


class _NoError(Exception):
    """Stands for the driver's error where there is no driver."""


#: What the driver raises.
Error: type[Exception] = psycopg.Error if psycopg else _NoError

#: The channel on which nodes wake each other.
CHANNEL = "gofax_work"
#: Seconds between looks whether to stop, and before a broken connection is made again.
LOOK, AGAIN = 1.0, 2.0
#: Seconds for which a node waits to be the only one at something.
LONGEST_EXCLUSIVE = 120
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
    # After waiting for a lock, a statement sees what its holder committed.
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
#: A limit of the server, such as the size of an index row. Classes 22 and 23, of values and
#: constraints, have errors of their own in the driver.
LIMIT_EXCEEDED = "54"
#: The server took back that it can be written to.
READ_ONLY = "25006"

MISSING = 'postgresql needs the package psycopg: pip install "gofax-relay[postgres]"'
UNREADABLE = "this URL cannot be read: write : / @ % of a password as %3A %2F %40 %25"


class PostgresDatabase(Database):
    """A store on a server, shared by any number of nodes."""

    driver_errors = (Error,)

    def __init__(self, url: str) -> None:
        clock = Clock()
        super().__init__(url, _engine(url, clock), clock=SteadyClock(now=clock))
        self._notifier = Every("notify", math.inf, self._notify)

    def require_room(self, *, share: float = 1.0) -> None:
        """The server says itself when its disk is full."""

    def require_present(self) -> None:
        """The server says itself when it has no such database."""

    def truncate_log(self, *, above: int = 0) -> str:
        return ""  # the server recycles its log by itself

    def vacuum(self) -> None:
        """Have the server free the space of deleted rows.

        It is written over by the next rows; copies in its log and its backups are its own.
        """
        names = ", ".join(table.name for table in schema.metadata.sorted_tables)
        with self._translated(), closing(_connect(_options(self.url), autocommit=True)) as db:
            db.execute(f"VACUUM {names}")

    def try_exclusive(self, db: sa.Connection, name: str) -> bool:
        return bool(db.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_lock_key(name)))))

    def hold_exclusive(self, db: sa.Connection, name: str) -> None:
        db.execute(sa.text("SET LOCAL statement_timeout = 0"))
        db.execute(sa.text(f"SET LOCAL lock_timeout = '{LONGEST_EXCLUSIVE}s'"))
        db.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock_key(name))))
        # A queued table lock blocks every later user of the table, so bound it.
        db.execute(sa.text(f"SET LOCAL lock_timeout = '{SETTINGS['lock_timeout']}'"))

    def notify(self) -> None:
        self._notifier.wake()

    def listen(self, wake: Callable[[], None]) -> Listener:
        return _Listener(self.url, wake)

    def insert(self, table: sa.Table) -> Any:
        return insert(table)

    def insert_locking(self, table: sa.Table, *, key: str, same: str) -> Any:
        # An update that changes nothing: unlike DO NOTHING it locks the row.
        made = insert(table)
        return made.on_conflict_do_update(
            index_elements=[table.c[key]], set_={same: made.excluded[same]}
        )

    def prepare(self, insert: sa.Insert, *, columns: Sequence[str]) -> Prepared:
        table: sa.Table = insert.table  # type: ignore[assignment]  # ours are plain tables
        rows = _rows_of(table, columns)
        return _Unnested(insert.from_select(columns, sa.select(*rows.c)), columns)

    def prepare_update(
        self,
        table: sa.Table,
        update: Callable[[sa.FromClause], sa.Update],
        *,
        columns: Sequence[str],
    ) -> Prepared:
        return _Unnested(update(_rows_of(table, columns)), columns)

    def close(self) -> None:
        self._notifier.close()
        super().close()

    def unavailable(self, cause: BaseException) -> StoreUnavailable:
        condition = getattr(cause, "sqlstate", None)
        if condition == READ_ONLY:
            self.engine.dispose()
        kind = InTheWay if condition in IN_THE_WAY else StoreUnavailable
        return kind(" ".join(str(cause).split()))

    def refuses_row(self, cause: BaseException) -> bool:
        if isinstance(cause, (psycopg.DataError, psycopg.IntegrityError)):
            return True
        return (getattr(cause, "sqlstate", None) or "").startswith(LIMIT_EXCEEDED)

    def _notify(self) -> None:
        """Wake the workers of all nodes, after the commit that made something due.

        Not within it: a commit that notifies holds a lock of the whole server until it is on
        disk, and nodes would wait for each other.
        """
        # Workers look for work by themselves too.
        with (
            suppress(sa.exc.SQLAlchemyError, Error),
            closing(self.engine.raw_connection()) as connection,
        ):
            driver: Any = connection.driver_connection
            driver.execute(f"SET LOCAL synchronous_commit = off; NOTIFY {CHANNEL}")
            driver.commit()


class _Listener:
    """Calls *wake* at every notification at the server of *url*."""

    def __init__(self, url: str, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._connection: psycopg.Connection[Any] | None = None
        self._loop = Every("listen", 0.0, partial(self._listen, url))
        self._loop.start()

    def close(self) -> None:
        self._loop.close()
        self._hang_up()

    def _listen(self, url: str) -> None:
        """Listen for a moment."""
        try:
            if self._connection is None:
                self._connection = _connect(_options(url), autocommit=True)
                self._connection.execute(f"LISTEN {CHANNEL}")
                # A notification may have come while nobody listened.
                self._wake()
            for _ in self._connection.notifies(timeout=LOOK, stop_after=1):
                self._wake()
        except Error:
            # The worker looks by itself in the meantime.
            self._hang_up()
            self._loop.pause(AGAIN)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


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


def _engine(url: str, clock: Clock) -> sa.Engine:
    """Make an engine for *url*, which libpq reads: several hosts, TLS and all its options."""
    made = sa.create_engine(
        "postgresql+psycopg://",
        creator=partial(_connect, _options(url)),
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


def _connect(options: Mapping[str, Any], **more: Any) -> psycopg.Connection[Any]:
    """Connect to the first host that can be written to."""
    try:
        return psycopg.connect(**options, **more)
    except psycopg.ProgrammingError as error:  # an option whose value is none
        raise StoreUnavailable(f"the URL has a bad option: {error}") from error


def _options(url: str) -> dict[str, Any]:
    """Read *url*. Raises :class:`StoreUnavailable`, whose text repeats nothing of it."""
    if psycopg is None:
        raise StoreUnavailable(MISSING)
    try:
        return {**DEFAULTS, **conninfo_to_dict(url)}
    except Error:
        raise StoreUnavailable(_unknown_option(url) or UNREADABLE) from None


def _unknown_option(url: str) -> str | None:
    """Say what to write instead of an unknown option, which may be a piece of a password."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name not in known and re.fullmatch(r"[a-z_]+", name):
            close = difflib.get_close_matches(name, sorted(known), n=1)
            mend = f"; did you mean {close[0]}?" if close else ""
            return f"this URL has an option that PostgreSQL does not know{mend}"
    return None


def _settle(connection: psycopg.Connection[Any], clock: Clock) -> None:
    """Set what every connection needs, and hear the time, in one question."""
    calls = ", ".join(
        f"set_config('{name}', '{value}', false)" for name, value in SETTINGS.items()
    )
    asked = time.monotonic()
    row = connection.execute(
        # Keep a stricter setting (a synchronous standby); only off would lose events.
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


def _rows_of(table: sa.Table, columns: Sequence[str]) -> sa.FromClause:
    """Return as many rows of values for *columns* of *table* as a statement is given."""
    kinds = {name: table.c[name].type for name in columns}
    arrays = [sa.bindparam(f"b_{name}", type_=ARRAY(kind)) for name, kind in kinds.items()]
    named = [sa.column(name, kind) for name, kind in kinds.items()]
    return sa.func.unnest(*arrays).table_valued(*named).render_derived(name="rows")


class _Unnested:
    """A statement for many rows at once, the same for any number of them.

    Its columns go as arrays, so that the server plans it once, and the driver has a parameter for
    each column instead of one for each value.
    """

    def __init__(self, statement: sa.Executable, columns: Sequence[str]) -> None:
        """*statement* takes its values from :func:`_rows_of` *columns*."""
        self._statement = statement
        self._columns = columns

    def many(self, connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> int:
        given = list(rows)
        if not given:
            return 0
        bound = {f"b_{name}": [row[name] for row in given] for name in self._columns}
        return connection.execute(self._statement, bound).rowcount


def _lock_key(name: str) -> sa.ColumnElement[int]:
    return sa.func.hashtextextended(name, 0)
