"""What both databases share: transactions, one rule for writing, and errors in our own words.

Each database has a class of its own behind this interface: :mod:`relay.store.sqlite` and
:mod:`relay.store.postgres`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa

P = ParamSpec("P")
R = TypeVar("R")

#: Connections that a process keeps to a server, and how many more it opens for many threads.
KEPT, MORE = 5, 20
#: Seconds that a transaction waits after a deadlock, so that the other one goes first.
STEP_ASIDE = 0.05
#: Characters of a database's error text that are repeated.
LONGEST_REASON = 300


class StoreUnavailable(Exception):
    """The database cannot be read or written now; nothing of the call was kept."""


class OutOfRoom(StoreUnavailable):
    """The disk is at its reserve."""


class InTheWay(StoreUnavailable):
    """Another transaction blocked this one, which may succeed a moment later."""


class RowRefused(Exception):
    """The database works and cannot hold one of the rows; nothing of the call was kept.

    The same call without that row succeeds.
    """


#: Errors of a statement, not of the database: bugs.
_FAULTS = (sa.exc.ProgrammingError, sa.exc.NotSupportedError)
#: A text that is no text, a number too large: what a driver raises before it sends anything.
_UNSENDABLE = (UnicodeError, OverflowError)


class Prepared(Protocol):
    """A statement for many rows."""

    def many(self, connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> int:
        """Execute it for *rows*, values by column name; return how many were inserted or found."""


class Listener(Protocol):
    """Wakes a worker until it is closed."""

    def close(self) -> None: ...


class Database(ABC):
    """An engine, its write lock, and what only one dialect knows how to say."""

    #: The file of a store on this machine; None: a server keeps it.
    file: Path | None = None
    #: Errors of the driver that SQLAlchemy does not wrap: event listeners get them.
    driver_errors: tuple[type[Exception], ...] = ()

    def __init__(
        self,
        url: str,
        engine: sa.Engine,
        *,
        clock: Callable[[], datetime],
        write_lock: AbstractContextManager[None] | None = None,
    ) -> None:
        self.url = url
        self.engine = engine
        self._away: tuple[type[Exception], ...] = (
            sa.exc.DBAPIError,
            sa.exc.TimeoutError,
            *self.driver_errors,
        )
        #: The time that all nodes share.
        self.clock = clock
        self._write_lock = write_lock or nullcontext()
        self._writer = engine.execution_options(gofax_write=True)
        self._unsynced = engine.execution_options(gofax_write=True, gofax_unsynced=True)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads. Raises :class:`StoreUnavailable`."""
        with self._translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a transaction that is synced when it ends.

        Raises :class:`StoreUnavailable`, and :class:`RowRefused` for a row that does not fit.
        """
        with self._translated(), self._write_lock, self._writer.begin() as connection:
            yield connection

    @contextmanager
    def writing_unsynced(self) -> Iterator[sa.Connection]:
        """Open a transaction whose loss in a power cut would not matter."""
        with self._translated(), self._write_lock, self._unsynced.begin() as connection:
            yield connection

    @abstractmethod
    def require_room(self, *, share: float = 1.0) -> None:
        """Raise :class:`OutOfRoom` if the disk is below *share* of its reserve.

        Raises :class:`StoreUnavailable` as :meth:`require_present` does.
        """

    @abstractmethod
    def require_present(self) -> None:
        """Raise :class:`StoreUnavailable` if the store is not where it was opened any more.

        What was committed to it then is nowhere where anybody will look for it.
        """

    @abstractmethod
    def truncate_log(self, *, above: int = 0) -> str:
        """Empty a write-ahead log of more than *above* bytes, which holds what was deleted, too.

        Return why that cannot be done now; nothing, if it was done or need not be.
        """

    @abstractmethod
    def vacuum(self) -> None:
        """Let the space of deleted rows be written over, which may take long."""

    @abstractmethod
    def try_exclusive(self, db: sa.Connection, name: str) -> bool:
        """Return whether *db* may do *name* alone until it commits; do not wait for that."""

    @abstractmethod
    def hold_exclusive(self, db: sa.Connection, name: str) -> None:
        """Wait until *db* may do *name* alone, and keep others from it until *db* commits.

        The transaction may then take any time. Raises :class:`StoreUnavailable`.
        """

    @abstractmethod
    def notify(self) -> None:
        """Wake workers on other machines: something has become due."""

    @abstractmethod
    def listen(self, wake: Callable[[], None]) -> Listener:
        """Have *wake* called at every :meth:`notify` of any node, until the listener is closed."""

    @abstractmethod
    def insert(self, table: sa.Table) -> Any:
        """Return this dialect's INSERT, which knows ON CONFLICT."""

    @abstractmethod
    def insert_locking(self, table: sa.Table, *, key: str, same: str) -> Any:
        """Return an INSERT of rows that may exist; it locks new and existing rows alike.

        *key*: column of the primary key; *same*: a column that never changes.
        """

    @abstractmethod
    def prepare(self, insert: sa.Insert, *, columns: Sequence[str]) -> Prepared:
        """Compile an INSERT of *columns* for many rows."""

    @abstractmethod
    def prepare_update(
        self,
        table: sa.Table,
        update: Callable[[sa.FromClause], sa.Update],
        *,
        columns: Sequence[str],
    ) -> Prepared:
        """Compile an UPDATE of *table* for many rows, made by *update* from rows of *columns*.

        Where two rows change the same thing, either's values may win.
        """

    def close(self) -> None:
        self.engine.dispose()

    def unavailable(self, cause: BaseException) -> StoreUnavailable:
        """Return the error to raise for what the driver raised."""
        return StoreUnavailable(" ".join(str(cause).split()))

    @abstractmethod
    def refuses_row(self, cause: BaseException) -> bool:
        """Return whether the driver's error *cause* is about a row, and not about the database."""

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _UNSENDABLE as error:
            raise RowRefused(_first_line(error)) from error
        except self._away as error:
            cause = getattr(error, "orig", None) or error
            if self.refuses_row(cause):
                raise RowRefused(_first_line(cause)) from error
            if isinstance(error, _FAULTS):
                raise
            raise self.unavailable(cause) from error


def _first_line(error: BaseException) -> str:
    """Return what *error* says, without the details that quote the row."""
    return (str(error).splitlines() or [type(error).__name__])[0][:LONGEST_REASON]


def once_more(act: Callable[P, R]) -> Callable[P, R]:
    """Return *act*, one transaction, done again if another one blocked it."""

    @wraps(act)
    def acted(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return act(*args, **kwargs)
        except InTheWay:
            # The transaction that waited for us goes first.
            time.sleep(STEP_ASIDE)
            return act(*args, **kwargs)

    return acted
