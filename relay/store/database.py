"""What both databases share: transactions, the rule for writing, and our own errors.

Each database has a class of its own behind this interface: :mod:`relay.store.sqlite` and
:mod:`relay.store.postgres`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
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
#: Seconds that a transaction waits after a deadlock, to let the other one finish.
STEP_ASIDE = 0.05
#: Longest part of a database's error text that is passed on.
LONGEST_REASON = 300


class StoreUnavailable(Exception):
    """The database cannot be used now; the call has changed nothing."""


class OutOfRoom(StoreUnavailable):
    """The disk is at its reserve."""


class Blocked(StoreUnavailable):
    """Another transaction blocked this one; it may succeed a moment later."""


class RowRefused(Exception):
    """The database works, but cannot hold one of the rows; the call has changed nothing.

    The same call without that row succeeds.
    """


#: Errors in a statement: bugs, not failures of the database.
_FAULTS = (sa.exc.ProgrammingError, sa.exc.NotSupportedError)
#: What a driver raises before it sends anything: text that cannot be encoded, a huge number.
_UNSENDABLE = (UnicodeError, OverflowError)


class Prepared(Protocol):
    """A statement for many rows."""

    def many(self, connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> int:
        """Execute it for *rows* (values by column name); return the number of rows affected."""

    def scalars(
        self, connection: sa.Connection, rows: Iterable[Mapping[str, Any]]
    ) -> Sequence[Any]:
        """Execute it for *rows*; return the first column of what it finds."""


class Listener(Protocol):
    """Wakes a worker until it is closed."""

    def close(self) -> None: ...


class Database(ABC):
    """An engine, its write lock, and everything that depends on the dialect."""

    #: The file of a store on this machine; None if a server keeps the store.
    file: Path | None = None
    #: Errors of the driver that event listeners raise and SQLAlchemy does not wrap.
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
        #: The clock that all nodes share.
        self.clock = clock
        self._write_lock = write_lock or nullcontext()
        self._writer = engine.execution_options(gofax_write=True)
        self._unsynced = engine.execution_options(gofax_write=True, gofax_unsynced=True)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a transaction for reading. Raises :class:`StoreUnavailable`."""
        with self._translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a transaction that is synced to disk when it ends.

        Raises :class:`StoreUnavailable`, and :class:`RowRefused` for a row that does not fit.
        """
        with self._translated(), self._write_lock, self._writer.begin() as connection:
            yield connection

    @contextmanager
    def writing_unsynced(self) -> Iterator[sa.Connection]:
        """Open a transaction that a power cut may lose without harm."""
        with self._translated(), self._write_lock, self._unsynced.begin() as connection:
            yield connection

    @abstractmethod
    def require_room(self, *, share: float = 1.0) -> None:
        """Raise :class:`OutOfRoom` if the disk is below *share* of its reserve.

        Raises :class:`StoreUnavailable` as :meth:`require_present` does.
        """

    @abstractmethod
    def require_present(self) -> None:
        """Raise :class:`StoreUnavailable` if the store is no longer where it was opened.

        Nobody would find again what is committed to it then.
        """

    @abstractmethod
    def truncate_log(self, *, above: int = 0) -> str:
        """Empty a write-ahead log of more than *above* bytes, which holds what was deleted, too.

        Return why that cannot be done now; nothing, if it was done or need not be.
        """

    @abstractmethod
    def size(self) -> int:
        """Return how many bytes the store takes."""

    @abstractmethod
    def vacuum(self) -> None:
        """Let the space of deleted rows be written over, which may take long."""

    @abstractmethod
    def rebuild_texts(self) -> Generator[None, None, bool]:
        """Build a server's full-text index again beside its work, yielding meanwhile.

        Returns whether that was done: not if another node is at it. Closed early, it stops.
        """

    @abstractmethod
    def try_exclusive(self, db: sa.Connection, name: str) -> bool:
        """Return at once whether *db* alone may do *name* until it commits."""

    @abstractmethod
    def hold_exclusive(self, db: sa.Connection, name: str) -> None:
        """Wait until *db* alone may do *name*, and keep others from it until *db* commits.

        The transaction may then take any time. Raises :class:`StoreUnavailable`.
        """

    @abstractmethod
    def notify(self) -> None:
        """Wake workers of other processes, because something has become due."""

    @abstractmethod
    def listen(self, wake: Callable[[], None]) -> Listener:
        """Call *wake* at each :meth:`notify` of any node until the listener is closed."""

    @abstractmethod
    def insert(self, table: sa.Table) -> Any:
        """Return this dialect's INSERT, which has ON CONFLICT."""

    @abstractmethod
    def insert_locking(self, table: sa.Table, *, key: str, same: str) -> Any:
        """Return an INSERT for rows that may exist, which locks new and existing rows.

        *key*: the column of the primary key; *same*: a column that never changes.
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

        If two rows change the same thing, the values of either may win.
        """

    @abstractmethod
    def prepare_select(
        self,
        table: sa.Table,
        select: Callable[[sa.FromClause], sa.Select[Any]],
        *,
        columns: Sequence[str],
    ) -> Prepared:
        """Compile a question about many rows of *columns* of *table*, made by *select*."""

    def close(self) -> None:
        self.engine.dispose()

    def discard(self) -> None:
        """Close a store that is not to be used, and leave no file that opening it has made."""
        self.close()

    def unavailable(self, cause: BaseException) -> StoreUnavailable:
        """Return our error for what the driver raised."""
        return StoreUnavailable(" ".join(str(cause).split()))

    @abstractmethod
    def refuses_row(self, cause: BaseException) -> bool:
        """Return whether the driver's error *cause* concerns a row and not the database."""

    def is_forbidden(self, cause: BaseException) -> bool:
        """Return whether the user of the store lacks a right, which is no fault of ours."""
        return False

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
            if isinstance(error, _FAULTS) and not self.is_forbidden(cause):
                raise
            raise self.unavailable(cause) from error


def _first_line(error: BaseException) -> str:
    """Return the first line of *error*; later ones quote the row."""
    return (str(error).splitlines() or [type(error).__name__])[0][:LONGEST_REASON]


def once_more(act: Callable[P, R]) -> Callable[P, R]:
    """Make *act*, one transaction, run again if another transaction blocked it."""

    @wraps(act)
    def acted(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return act(*args, **kwargs)
        except Blocked:
            # Let the other transaction finish.
            time.sleep(STEP_ASIDE)
            return act(*args, **kwargs)

    return acted
