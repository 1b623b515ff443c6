"""Connections to the database, and the one rule for writing: take the lock, then begin.

SQLite's own busy handler is unfair: a busy worker starves the receiver. So every write first
takes a file lock, on which processes queue up, and then begins an immediate transaction.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from relay.store.disk import Disk
from relay.store.locks import Taken, WriteLock


class StoreUnavailable(Exception):
    """The database cannot be read or written now; nothing of the call was kept."""


class Database:
    """An engine with its write lock.

    *reserve*: bytes of disk below which nothing new is taken in; half of it is kept for claims,
    the rest for recording what was done.
    """

    def __init__(self, url: str, *, reserve: int = 0) -> None:
        self.url = sa.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        #: The file of a SQLite store; what lies beside it is named after it.
        self.path = Path(self.url.database or "")
        if self.is_sqlite:
            os.close(_open_private(self.path))
        self.engine = sa.create_engine(url, pool_size=5, max_overflow=20, pool_pre_ping=False)
        lock_file = _open_private(Path(f"{self.path}.lock")) if self.is_sqlite else None
        self._lock = WriteLock(lock_file)
        self._disk = Disk(self.path.parent, reserve=reserve) if self.is_sqlite else None
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
        self._writer = self.engine.execution_options(gofax_write=True)
        self._unsynced = self.engine.execution_options(gofax_write=True, gofax_unsynced=True)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads. Raises :class:`StoreUnavailable`."""
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a transaction that is synced when it ends. Raises :class:`StoreUnavailable`."""
        with _translated(), self._lock, self._writer.begin() as connection:
            yield connection

    @contextmanager
    def writing_unsynced(self) -> Iterator[sa.Connection]:
        """Open a transaction whose loss in a power cut would not matter."""
        with _translated(), self._lock, self._unsynced.begin() as connection:
            yield connection

    def require_room(self, *, share: float = 1.0) -> None:
        """Raise :class:`StoreUnavailable` if the disk is below *share* of its reserve."""
        if self._disk is not None and (lack := self._disk.lack(share=share)):
            raise StoreUnavailable(lack)

    def insert(self, table: sa.Table) -> Any:
        """Return this dialect's INSERT, which knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def prepare(self, insert: sa.Insert, *, columns: Sequence[str]) -> Prepared:
        """Compile an INSERT of *columns* for many rows."""
        return Prepared(insert, self.engine.dialect, columns)

    def close(self) -> None:
        self.engine.dispose()
        self._lock.close()


class Prepared:
    """An INSERT compiled once: what every accept executes goes to the driver as it is.

    In SQLite many rows make one statement. Its driver lets go of the interpreter at every step,
    and 32 threads of the receiver are waiting to take it: a step for each row cost more than
    everything else in an accept.
    """

    def __init__(self, insert: sa.Insert, dialect: sa.Dialect, columns: Sequence[str]) -> None:
        table: sa.Table = insert.table  # type: ignore[assignment]  # ours are plain tables
        compiled = insert.compile(dialect=dialect, column_keys=list(columns))
        self._sql = str(compiled)
        self._columns = columns
        # The compiler writes columns in the order of the table: that of the values has to follow.
        order: Sequence[str] | None = getattr(compiled, "positiontup", None)
        self._take = None if order is None else itemgetter(*map(columns.index, order))
        binders = {at: _binder(table, name, dialect) for at, name in enumerate(columns)}
        self._binders = [(at, bind) for at, bind in binders.items() if bind]

    def many(self, connection: sa.Connection, rows: Iterable[Sequence[Any]]) -> int:
        """Insert *rows*, each with its values in the order of *columns*; return how many."""
        values = [self._bound(row) for row in rows]
        if self._take is None:
            named = [dict(zip(self._columns, each, strict=True)) for each in values]
            return connection.exec_driver_sql(self._sql, named).rowcount
        start = inserted = 0
        for size in _powers_of_two(len(values)):
            chunk = map(self._take, values[start : start + size])
            flat = tuple(itertools.chain.from_iterable(chunk))
            inserted += connection.exec_driver_sql(self._of_rows(size), flat).rowcount
            start += size
        return inserted

    def _bound(self, row: Sequence[Any]) -> Sequence[Any]:
        bound = list(row)
        for at, bind in self._binders:
            bound[at] = bind(bound[at])
        return bound

    def _of_rows(self, count: int) -> str:
        one = f"({', '.join('?' * len(self._columns))})"
        return self._sql.replace(one, ", ".join([one] * count), 1)


def _powers_of_two(count: int) -> Iterator[int]:
    """Split *count* into few sizes of which there are few, so that the driver knows them again."""
    size = 64
    while count:
        while size > count:
            size //= 2
        yield size
        count -= size


def _binder(table: sa.Table, name: str, dialect: sa.Dialect) -> Callable[[Any], Any] | None:
    return table.c[name].type.dialect_impl(dialect).bind_processor(dialect)


def _open_private(path: Path) -> int:
    """Make the file readable for its owner only, before SQLite makes it for everybody."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error


def _prepare_sqlite(connection: Any, _: object) -> None:
    # Transactions are begun by _begin_sqlite, not by the driver's guess.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "busy_timeout = 2000",
        "temp_store = MEMORY",
        # 16 MiB instead of 2: the pages that random keys touch are found in memory for longer.
        "cache_size = -16384",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    driver: Any = connection.connection.dbapi_connection
    if options.get("gofax_write"):
        # Set at each begin: a pooled connection may have served the other kind before.
        level = "NORMAL" if options.get("gofax_unsynced") else "FULL"
        driver.execute(f"PRAGMA synchronous = {level}")
    driver.execute("BEGIN IMMEDIATE" if options.get("gofax_write") else "BEGIN")


#: What a statement is to blame for, not the database.
_FAULTS = (
    sa.exc.IntegrityError,
    sa.exc.DataError,
    sa.exc.ProgrammingError,
    sa.exc.NotSupportedError,
)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _FAULTS:
        raise
    # SQLAlchemy does not wrap what the listeners above get from the driver.
    except (sa.exc.DBAPIError, sa.exc.TimeoutError, sqlite3.Error, Taken) as error:
        cause = getattr(error, "orig", None) or error
        raise StoreUnavailable(str(cause)) from error
