"""Connections to the database, and the one rule for writing: take the lock, then begin.

SQLite's own busy handler is unfair: a busy worker starves the receiver. So every write first
takes a file lock, on which processes queue up, and then begins an immediate transaction.
PostgreSQL locks rows; who locks several takes them in the order of their keys.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa

from relay.clock import SteadyClock
from relay.store import postgres, sqlite
from relay.store.bell import Listener, Notifier
from relay.store.disk import Disk
from relay.store.locks import Taken, WriteLock

P = ParamSpec("P")
R = TypeVar("R")


#: Seconds for which a node waits for its turn at what one does at a time.
LONGEST_TURN = 120
#: Seconds for which a transaction that was in a deadlock leaves the way to the other.
STEP_ASIDE = 0.05


class StoreUnavailable(Exception):
    """The database cannot be read or written now; nothing of the call was kept."""


class InTheWay(StoreUnavailable):
    """Another transaction was in the way of this one, which may succeed a moment later."""


#: What a statement is to blame for, not the database.
_FAULTS = (
    sa.exc.IntegrityError,
    sa.exc.DataError,
    sa.exc.ProgrammingError,
    sa.exc.NotSupportedError,
)


_OF_DRIVERS = (sqlite3.Error, postgres.Error)


class Prepared(Protocol):
    """A statement for many rows."""

    def many(self, connection: sa.Connection, rows: Iterable[Sequence[Any]]) -> int:
        """Execute it for *rows*, each with its values in the order of its columns.

        Return how many were inserted or found.
        """


class Database:
    """An engine with its write lock.

    *reserve*: bytes of disk below which nothing new is taken in; half of it is kept for claims,
    the rest for recording what was done. On PostgreSQL the disk is the server's, who says itself
    when it is full.
    """

    def __init__(self, url: str, *, reserve: int = 0) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite:")
        #: The file of a SQLite store; what lies beside it is named after it.
        self.path = file_of(url) or Path()
        #: The time that all nodes share: this machine's, or that of the server.
        self.clock: Callable[[], datetime]
        lock_file = None
        if self.is_sqlite:
            os.close(_private(self.path))
            lock_file = _private(Path(f"{self.path}.lock"))
            self.engine = sqlite.engine(url)
            self.clock = SteadyClock()
        else:
            clock = postgres.Clock()
            self.engine = _engine(url, clock)
            self.clock = SteadyClock(now=clock)
        self._lock = WriteLock(lock_file)
        self._ringer = None if self.is_sqlite else Notifier(self.engine)
        self._disk = Disk(self.path.parent, reserve=reserve) if self.is_sqlite else None
        self._writer = self.engine.execution_options(gofax_write=True)
        self._unsynced = self.engine.execution_options(gofax_write=True, gofax_unsynced=True)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads. Raises :class:`StoreUnavailable`."""
        with self._translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a transaction that is synced when it ends. Raises :class:`StoreUnavailable`."""
        with self._translated(), self._lock, self._writer.begin() as connection:
            yield connection

    @contextmanager
    def writing_unsynced(self) -> Iterator[sa.Connection]:
        """Open a transaction whose loss in a power cut would not matter."""
        with self._translated(), self._lock, self._unsynced.begin() as connection:
            yield connection

    @property
    def is_local(self) -> bool:
        """Return whether all who use it are on this machine."""
        return self.is_sqlite

    def require_room(self, *, share: float = 1.0) -> None:
        """Raise :class:`StoreUnavailable` if the disk is below *share* of its reserve."""
        if self._disk is not None and (lack := self._disk.lack(share=share)):
            raise StoreUnavailable(lack)

    def alone(self, db: sa.Connection, name: str) -> bool:
        """Return whether nobody else does *name* now, and nobody will until *db* has committed."""
        if self.is_sqlite:
            return True  # whoever writes is alone
        key = sa.func.hashtextextended(name, 0)
        return bool(db.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(key))))

    def take_turn(self, db: sa.Connection, name: str) -> None:
        """Wait until nobody else does *name*, and keep others from it until *db* has committed.

        What is done then may take as long as it does. Raises :class:`StoreUnavailable`.
        """
        if self.is_sqlite:
            return  # whoever writes is alone
        key = sa.func.hashtextextended(name, 0)
        db.execute(sa.text("SET LOCAL statement_timeout = 0"))
        db.execute(sa.text(f"SET LOCAL lock_timeout = '{LONGEST_TURN}s'"))
        db.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        # Whoever waits for a table is waited for by all who use it.
        db.execute(sa.text(f"SET LOCAL lock_timeout = '{postgres.SETTINGS['lock_timeout']}'"))

    def ring(self) -> None:
        """Wake workers on other machines: something is due that was not."""
        if self._ringer is not None:
            self._ringer.ring()

    def listen(self, wake: Callable[[], None]) -> Listener:
        """Have *wake* called when somebody rings, until the listener is closed."""
        return Listener(None if self.is_sqlite else self.url, wake)

    def insert(self, table: sa.Table) -> Any:
        """Return this dialect's INSERT, which knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgres.insert(table)

    def prepare(self, insert: sa.Insert, *, columns: Sequence[str]) -> Prepared:
        """Compile an INSERT of *columns* for many rows."""
        if self.is_sqlite:
            return sqlite.Prepared(insert, self.engine.dialect, columns)
        table: sa.Table = insert.table  # type: ignore[assignment]  # ours are plain tables
        rows = postgres.rows_of(table, columns)
        return postgres.Unnested(insert.from_select(columns, sa.select(*rows.c)), columns)

    def prepare_update(
        self,
        table: sa.Table,
        update: Callable[[sa.FromClause], sa.Update],
        *,
        columns: Sequence[str],
    ) -> Prepared:
        """Compile an UPDATE of *table* for many rows, made by *update* from rows of *columns*.

        What two of the rows change at once gets the values of either.
        """
        if self.is_sqlite:
            rows = sqlite.rows_of(table, columns)
            return sqlite.Prepared(update(rows), self.engine.dialect, columns)
        return postgres.Unnested(update(postgres.rows_of(table, columns)), columns)

    def close(self) -> None:
        if self._ringer is not None:
            self._ringer.close()
        self.engine.dispose()
        self._lock.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _FAULTS:
            raise
        # SQLAlchemy does not wrap what the listeners below get from the driver.
        except (
            sa.exc.DBAPIError,
            sa.exc.TimeoutError,
            sqlite3.Error,
            postgres.Error,
            Taken,
        ) as error:
            cause = getattr(error, "orig", None) or error
            condition = getattr(cause, "sqlstate", None)
            if condition == postgres.READ_ONLY:
                self.engine.dispose()
            kind = InTheWay if condition in postgres.IN_THE_WAY else StoreUnavailable
            raise kind(" ".join(str(cause).split())) from error


def file_of(url: str) -> Path | None:
    """Return the file of a SQLite store; None: a server keeps it."""
    return Path(sa.make_url(url).database or "") if url.startswith("sqlite:") else None


def once_more(act: Callable[P, R]) -> Callable[P, R]:
    """Return *act*, one transaction, done again if another one was in its way."""

    @wraps(act)
    def acted(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return act(*args, **kwargs)
        except InTheWay:
            # Who waited for us goes first.
            time.sleep(STEP_ASIDE)
            return act(*args, **kwargs)

    return acted


def _engine(url: str, clock: postgres.Clock) -> sa.Engine:
    try:
        return postgres.engine(url, clock)
    except LookupError as error:
        raise StoreUnavailable(str(error)) from error


def _private(path: Path) -> int:
    try:
        return sqlite.open_private(path)
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error
