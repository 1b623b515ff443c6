"""SQLite: one file, writers in turn, and no intake without room on the disk.

SQLite's own busy handler is unfair: a busy worker starves the receiver. So every write first
takes a file lock, for which processes queue, and then begins an immediate transaction.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from relay.clock import SteadyClock
from relay.store.database import Database, Listener, OutOfRoom, Prepared, StoreUnavailable
from relay.store.schema import UtcTime, microseconds
from relay.store.sqlite_file import Disk, Original, is_there, is_used, private, require_ours
from relay.store.wake_pipe import PipeListener, notify
from relay.store.write_lock import WriteLock

#: Milliseconds for which SQLite waits for others, and for readers before it truncates its log,
#: while writers have to wait.
BUSY, BUSY_READERS = 2000, 200
#: Bytes of pages that a connection keeps in memory. A larger cache makes claims and records no
#: faster: SQLite drops most of it whenever another connection has written.
CACHE = 4 << 20
#: The same where new events touch pages at random.
LARGE_CACHE = 16 << 20


class SqliteDatabase(Database):
    """A store in one file of this machine; intake leaves *reserve* bytes of its disk free."""

    driver_errors = (sqlite3.Error,)

    def __init__(self, url: str, file: Path, *, reserve: int = 0, cache: int = CACHE) -> None:
        self.file: Path = file
        lock_file = Path(f"{file}.lock")
        #: The lock file, if nobody has opened the store before.
        self._made = None if is_there(lock_file) else lock_file
        if self._made:
            require_ours(file)
        lock = private(lock_file)
        self._lock = WriteLock(lock)
        try:
            self._original = Original(file, note=lock)
        except StoreUnavailable:
            self._leave()
            raise
        engine = _engine(url, self._original, cache=cache)
        super().__init__(url, engine, clock=SteadyClock(), write_lock=self._lock)
        # Hidden from who copies relay.db*: to read a pipe waits for a writer.
        self._pipe = file.with_name(f".{file.name}.wake")
        self._disk = Disk(file.parent, reserve=reserve)

    def require_room(self, *, share: float = 1.0) -> None:
        self.require_present()
        if lack := self._disk.lack(share=share, free_pages=self._free_pages):
            raise OutOfRoom(lack)

    def require_present(self) -> None:
        self._original.require()

    def truncate_log(self, *, above: int = 0) -> str:
        log = Path(f"{self.file}-wal")
        if not log.exists() or log.stat().st_size <= above:
            return ""
        with self._translated(), closing(self.engine.raw_connection()) as connection:
            driver: Any = connection.driver_connection
            # Does most of the work, while others read and write.
            driver.execute("PRAGMA wal_checkpoint(PASSIVE)")
            with self._write_lock:
                driver.execute(f"PRAGMA busy_timeout = {BUSY_READERS}")
                try:
                    (is_busy, *_) = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                finally:
                    driver.execute(f"PRAGMA busy_timeout = {BUSY}")
        return f"a reader of {self.file.name} holds on to {log.name}" if is_busy else ""

    def size(self) -> int:
        parts = (self.file, Path(f"{self.file}-wal"))
        return sum(each.stat().st_size for each in parts if each.exists())

    def vacuum(self) -> None:
        """SQLite overwrites deleted content at once."""

    def rebuild_texts(self) -> Generator[None, None, bool]:
        """SQLite's own steps are enough: :meth:`relay.store.texts.Texts.merge`."""
        yield from ()
        return True

    def try_exclusive(self, db: sa.Connection, name: str) -> bool:
        return True  # the file has one writer at a time

    def hold_exclusive(self, db: sa.Connection, name: str) -> None:
        """The file has one writer at a time."""

    def notify(self) -> None:
        notify(self._pipe)

    def listen(self, wake: Callable[[], None]) -> Listener:
        return PipeListener(self._pipe, wake)

    def insert(self, table: sa.Table) -> Any:
        return insert(table)

    def insert_locking(self, table: sa.Table, *, key: str, same: str) -> Any:
        # The file has one writer at a time, so no row needs a lock.
        return insert(table).on_conflict_do_nothing()

    def prepare(self, insert: sa.Insert, *, columns: Sequence[str]) -> Prepared:
        table: sa.Table = insert.table  # type: ignore[assignment]  # ours are plain tables
        return _Compiled(insert, table, columns, self.engine.dialect)

    def prepare_update(
        self,
        table: sa.Table,
        update: Callable[[sa.FromClause], sa.Update],
        *,
        columns: Sequence[str],
    ) -> Prepared:
        return _Compiled(update(_rows_of(table, columns)), table, columns, self.engine.dialect)

    def prepare_select(
        self,
        table: sa.Table,
        select: Callable[[sa.FromClause], sa.Select[Any]],
        *,
        columns: Sequence[str],
    ) -> Prepared:
        return _Compiled(select(_rows_of(table, columns)), table, columns, self.engine.dialect)

    def refuses_row(self, cause: BaseException) -> bool:
        return isinstance(cause, (sqlite3.DataError, sqlite3.IntegrityError))

    def close(self) -> None:
        super().close()
        self._lock.close()

    def discard(self) -> None:
        self._leave()
        self.close()

    def _leave(self) -> None:
        """Close the lock file, and remove it if that was ours alone."""
        if self._made and not is_used(self.file):
            self._made.unlink(missing_ok=True)
        self._lock.close()

    def _free_pages(self) -> int:
        """Return the number of bytes in the file that can be written to."""
        with self.reading() as db:
            pages: int = db.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            size: int = db.exec_driver_sql("PRAGMA page_size").scalar_one()
        return pages * size


def _engine(url: str, original: Original, *, cache: int) -> sa.Engine:
    """Make an engine whose writers begin at once, and sync unless told otherwise."""
    made = sa.create_engine(
        url,
        creator=original.connect,
        pool_size=5,
        max_overflow=20,
        # Otherwise they take turns, and each fills a cache of pages of its own.
        pool_use_lifo=True,
        pool_pre_ping=False,
        # Errors are logged, and parameters are numbers and texts.
        hide_parameters=True,
    )
    sa.event.listen(made, "connect", partial(_prepare, cache=cache))
    sa.event.listen(made, "begin", _begin)
    return made


def _rows_of(table: sa.Table, columns: Sequence[str]) -> sa.FromClause:
    """Return one row of values for *columns* of *table*; the statement is repeated for more."""
    kinds = {name: table.c[name].type for name in columns}
    one = tuple(sa.bindparam(f"b_{name}", type_=kind) for name, kind in kinds.items())
    named = (sa.column(name, kind) for name, kind in kinds.items())
    return sa.values(*named, name="rows").data([one]).cte("rows")


class _Compiled:
    """A statement that is compiled once and goes to the driver as it is.

    Many rows make one statement. The driver releases the interpreter at every step, for which the
    receiver's threads wait: one step per row cost more than the rest of an accept.
    """

    def __init__(
        self,
        statement: sa.Insert | sa.Update | sa.Select[Any],
        table: sa.Table,
        columns: Sequence[str],
        dialect: sa.Dialect,
    ) -> None:
        """*statement* inserts *columns* of *table*, or takes them from :func:`_rows_of`."""
        keys = list(columns) if isinstance(statement, sa.Insert) else None
        compiled = statement.compile(dialect=dialect, column_keys=keys)
        self._sql = str(compiled)
        self._row = f"({', '.join('?' * len(columns))})"
        # The compiler writes columns in the order of the table; values must have the same order.
        order: Sequence[str] = getattr(compiled, "positiontup", None) or ()
        names = [name.removeprefix("b_") for name in order]
        # An itemgetter of one name gives no tuple.
        self._take: Callable[[Mapping[str, Any]], tuple[Any, ...]] = (
            itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)
        )
        binders = [(at, _binder(table, name, dialect)) for at, name in enumerate(names)]
        self._binders = [(at, bind) for at, bind in binders if bind]

    def many(self, connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> int:
        return sum(cursor.rowcount for cursor in self._executed(connection, rows))

    def scalars(
        self, connection: sa.Connection, rows: Iterable[Mapping[str, Any]]
    ) -> Sequence[Any]:
        return [row[0] for cursor in self._executed(connection, rows) for row in cursor.fetchall()]

    def _executed(
        self, connection: sa.Connection, rows: Iterable[Mapping[str, Any]]
    ) -> Iterator[sqlite3.Cursor]:
        # Past SQLAlchemy, which would take longer than SQLite; the driver's errors are translated.
        driver: Any = connection.connection.driver_connection
        values = [self._bound(row) for row in rows]
        start = 0
        for size in _powers_of_two(len(values)):
            flat = tuple(itertools.chain.from_iterable(values[start : start + size]))
            yield driver.execute(self._of_rows(size), flat)
            start += size

    def _bound(self, row: Mapping[str, Any]) -> Sequence[Any]:
        bound = list(self._take(row))
        for at, bind in self._binders:
            bound[at] = bind(bound[at])
        return bound

    def _of_rows(self, count: int) -> str:
        return self._sql.replace(self._row, ", ".join([self._row] * count), 1)


def _powers_of_two(count: int) -> Iterator[int]:
    """Split *count* into powers of two, so that the driver meets few different statements."""
    size = 64
    while count:
        while size > count:
            size //= 2
        yield size
        count -= size


def _binder(table: sa.Table, name: str, dialect: sa.Dialect) -> Callable[[Any], Any] | None:
    kind = table.c[name].type
    if isinstance(kind, sa.LargeBinary | sa.Boolean):
        return None  # The driver takes them as they are.
    if isinstance(kind, UtcTime):
        return microseconds
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _prepare(connection: Any, _: object, *, cache: int) -> None:
    # _begin begins transactions; the driver must not guess.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"busy_timeout = {BUSY}",
        # The library's default may differ; deleted texts must not stay in the file.
        "secure_delete = ON",
        "temp_store = MEMORY",
        f"cache_size = -{cache >> 10}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    driver: Any = connection.connection.dbapi_connection
    if options.get("gofax_write"):
        # Set at each begin, because a pooled connection may have served the other kind before.
        level = "NORMAL" if options.get("gofax_unsynced") else "FULL"
        driver.execute(f"PRAGMA synchronous = {level}")
    driver.execute("BEGIN IMMEDIATE" if options.get("gofax_write") else "BEGIN")
