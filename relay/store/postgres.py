"""PostgreSQL: how connections are made, what they promise, and how nodes wake each other.

PostgreSQL locks rows; a transaction that locks several takes them in the order of their keys.
"""

from __future__ import annotations

import difflib
import math
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
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
    Blocked,
    Database,
    Listener,
    Prepared,
    StoreUnavailable,
)

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.types.array import ListBinaryDumper
except ImportError:  # of the package, or of the libpq that it needs
    psycopg = None  # type: ignore[assignment]


class _NoError(Exception):
    """Stands in for the driver's error if there is no driver."""


#: What the driver raises.
Error: type[Exception] = psycopg.Error if psycopg else _NoError

#: The channel on which nodes wake each other.
CHANNEL = "gofax_work"
#: Seconds between checks whether to stop, and before a broken connection is made again.
LOOK, AGAIN = 1.0, 2.0
#: Seconds for which a node waits until it alone may do something.
LONGEST_EXCLUSIVE = 120
#: Seconds after which a thread stops waiting for a connection; less than a sender waits.
PATIENCE = 2.0
#: Seconds after which a connection is replaced, because hosts and their clocks change.
LONGEST_LIFE = 300

#: Defaults that the URL may override. A vanished server is noticed before a sender gives up.
DEFAULTS = {
    "application_name": "gofax-relay",
    "connect_timeout": "3",
    # The host that can be written to, which is another one after a fail-over.
    "target_session_attrs": "read-write",
    "tcp_user_timeout": "4000",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
}
#: Settings of each connection. Writers hold locks for milliseconds; the locks of a vanished node
#: are freed as soon as the server notices.
SETTINGS = {
    "timezone": "UTC",
    # A statement that waited for a lock sees what its holder committed.
    "default_transaction_isolation": "read committed",
    "lock_timeout": "2s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_user_timeout": "4000",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

#: Builds the full-text index again, which keeps each word that it ever had. One that was not
#: finished is left by whoever was stopped there.
_REBUILD = (
    "DROP INDEX CONCURRENTLY IF EXISTS ix_texts_words_ccnew",
    "REINDEX INDEX CONCURRENTLY ix_texts_words",
)

#: Conditions after which the same transaction may succeed a moment later.
BLOCKED = ("40001", "40P01")
#: Class of limits of the server, such as the size of an index row. The driver has errors for the
#: classes 22 (values) and 23 (constraints).
LIMIT_EXCEEDED = "54"
#: The server has become read-only.
READ_ONLY = "25006"
#: The user lacks a right.
FORBIDDEN = "42501"

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
        """The server itself reports a full disk."""

    def require_present(self) -> None:
        """The server itself reports a missing database."""

    def truncate_log(self, *, above: int = 0) -> str:
        return ""  # the server recycles its log by itself

    def size(self) -> int:
        with self.reading() as db:
            size = sa.select(sa.func.pg_database_size(sa.func.current_database()))
            return int(db.execute(size).scalar_one())

    def vacuum(self) -> None:
        """Have the server free the space of deleted rows.

        New rows overwrite it; the server's log and its backups are out of reach.
        """
        names = ", ".join([*(table.name for table in schema.metadata.sorted_tables), "texts"])
        with self._translated(), closing(_connect(_options(self.url), autocommit=True)) as db:
            db.execute(f"VACUUM {names}")
            for statement in _REBUILD:
                db.execute(statement)

    def rebuild_texts(self) -> Generator[None, None, bool]:
        with (
            self._translated(),
            closing(_connect(_options(self.url), autocommit=True)) as db,
            ThreadPoolExecutor(1) as server,
        ):
            mine = db.execute("SELECT pg_try_advisory_lock(hashtextextended('rebuild texts', 0))")
            if not (mine.fetchone() or [False])[0]:
                return False
            for statement in ("VACUUM texts", *_REBUILD):
                running = server.submit(db.execute, statement)
                try:
                    while not wait([running], timeout=LOOK).done:
                        yield
                finally:
                    if not running.done():
                        db.cancel()
                running.result()
        return True

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
        # An update locks the row, unlike DO NOTHING, also if it then leaves it as it is.
        made = insert(table)
        return made.on_conflict_do_update(
            index_elements=[table.c[key]], set_={same: made.excluded[same]}, where=sa.false()
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

    def prepare_select(
        self,
        table: sa.Table,
        select: Callable[[sa.FromClause], sa.Select[Any]],
        *,
        columns: Sequence[str],
    ) -> Prepared:
        return _Unnested(select(_rows_of(table, columns)), columns)

    def close(self) -> None:
        self._notifier.close()
        super().close()

    def unavailable(self, cause: BaseException) -> StoreUnavailable:
        if self.is_forbidden(cause):
            said = str(cause).partition("\n")[0]
            return StoreUnavailable(
                f"{said}: GRANT it to this user, or name a database of its own"
            )
        condition = getattr(cause, "sqlstate", None)
        if condition == READ_ONLY:
            self.engine.dispose()
        kind = Blocked if condition in BLOCKED else StoreUnavailable
        return kind(" ".join(str(cause).split()))

    def is_forbidden(self, cause: BaseException) -> bool:
        return getattr(cause, "sqlstate", None) == FORBIDDEN

    def refuses_row(self, cause: BaseException) -> bool:
        if isinstance(cause, (psycopg.DataError, psycopg.IntegrityError)):
            return True
        return (getattr(cause, "sqlstate", None) or "").startswith(LIMIT_EXCEEDED)

    def _notify(self) -> None:
        """Wake the workers of all nodes after the commit that made something due.

        Not within that commit: a commit that notifies locks the whole server until it is on
        disk, and nodes would wait for each other.
        """
        # Workers also look for work by themselves.
        with (
            suppress(sa.exc.SQLAlchemyError, Error),
            closing(self.engine.raw_connection()) as connection,
        ):
            driver: Any = connection.driver_connection
            driver.execute(f"SET LOCAL synchronous_commit = off; NOTIFY {CHANNEL}")
            driver.commit()


class _Listener:
    """Calls *wake* at each notification of the server at *url*."""

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
            # Meanwhile the worker looks for work by itself.
            self._hang_up()
            self._loop.pause(AGAIN)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Clock:
    """The time of the server's clock, which all nodes share; ours until the server was asked.

    Each new connection asks again. In between, our own clock may be set without effect.
    """

    def __init__(self) -> None:
        #: The server's time, and our monotonic time then; replaced together.
        self._heard: tuple[datetime, float] | None = None

    def __call__(self) -> datetime:
        if self._heard is None:
            return wall()
        told, at = self._heard
        return told + timedelta(seconds=time.monotonic() - at)

    def hear(self, told: datetime, *, asked: float) -> None:
        """Note the time that the server *told*; *asked*: our monotonic time before we asked."""
        now = time.monotonic()
        self._heard = told.astimezone(UTC), asked + (now - asked) / 2


def _engine(url: str, clock: Clock) -> sa.Engine:
    """Make an engine for *url*, with all that libpq offers: several hosts, TLS, options."""
    made = sa.create_engine(
        "postgresql+psycopg://",
        creator=partial(_connect, _options(url)),
        pool_size=KEPT,
        max_overflow=MORE,
        pool_timeout=PATIENCE,
        # A restarted server has cut every connection in the pool.
        pool_pre_ping=True,
        # Errors are logged, and parameters are numbers and texts.
        hide_parameters=True,
        pool_recycle=LONGEST_LIFE,
    )
    sa.event.listen(made, "connect", lambda connection, _: _settle(connection, clock))
    sa.event.listen(made, "begin", _begin)
    return made


def _connect(options: Mapping[str, Any], **more: Any) -> psycopg.Connection[Any]:
    """Connect to the first host that can be written to."""
    try:
        connection = psycopg.connect(**options, **more)
        # As text every value would be quoted by a regular expression: nine times the CPU time.
        connection.adapters.register_dumper(list, ListBinaryDumper)
        return connection
    except psycopg.ProgrammingError as error:  # an option with an impossible value
        raise StoreUnavailable(f"the URL has a bad option: {error}") from error


def _options(url: str) -> dict[str, Any]:
    """Parse *url*. Raises :class:`StoreUnavailable`, whose text quotes no part of the URL."""
    if psycopg is None:
        raise StoreUnavailable(MISSING)
    try:
        return {**DEFAULTS, **conninfo_to_dict(url)}
    except Error:
        raise StoreUnavailable(_unknown_option(url) or UNREADABLE) from None


def conninfo(url: str) -> tuple[str, str | None]:
    """Return what libpq's own programs connect by, and the password apart from it."""
    options = _options(url)
    password = options.pop("password", None)
    return make_conninfo(**options), password


def _unknown_option(url: str) -> str | None:
    """Say that an option is unknown, without quoting it: it may be a piece of a password."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name not in known and re.fullmatch(r"[a-z_]+", name):
            close = difflib.get_close_matches(name, sorted(known), n=1)
            mend = f"; did you mean {close[0]}?" if close else ""
            return f"this URL has an option that PostgreSQL does not know{mend}"
    return None


def _settle(connection: psycopg.Connection[Any], clock: Clock) -> None:
    """Apply the settings and ask for the time, in one round trip."""
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
            # The pool has not seen the error, and would try a rollback.
            connection.invalidate(error)
            raise


def _rows_of(table: sa.Table, columns: Sequence[str]) -> sa.FromClause:
    """Return a row source for *columns* of *table*, of as many rows as a statement is given."""
    kinds = {name: table.c[name].type for name in columns}
    arrays = [sa.bindparam(f"b_{name}", type_=ARRAY(kind)) for name, kind in kinds.items()]
    named = [sa.column(name, kind) for name, kind in kinds.items()]
    return sa.func.unnest(*arrays).table_valued(*named).render_derived(name="rows")


class _Unnested:
    """One statement for any number of rows.

    Columns are sent as arrays, so that the server plans the statement once and the driver binds
    one parameter per column instead of one per value.
    """

    def __init__(self, statement: sa.Executable, columns: Sequence[str]) -> None:
        """*statement* takes its values from :func:`_rows_of` *columns*."""
        # SQLAlchemy otherwise closes the cursor of an INSERT before it is asked for the number.
        self._statement = statement.execution_options(preserve_rowcount=True)
        self._columns = columns

    def many(self, connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> int:
        given = list(rows)
        return self._execute(connection, given).rowcount if given else 0

    def scalars(
        self, connection: sa.Connection, rows: Iterable[Mapping[str, Any]]
    ) -> Sequence[Any]:
        given = list(rows)
        return self._execute(connection, given).scalars().all() if given else ()

    def _execute(
        self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]
    ) -> sa.CursorResult[Any]:
        bound = {f"b_{name}": [row[name] for row in rows] for name in self._columns}
        return connection.execute(self._statement, bound)


def _lock_key(name: str) -> sa.ColumnElement[int]:
    return sa.func.hashtextextended(name, 0)
