"""SQLite: one file, one writer at a time in turn, and nothing taken in without room for it.

SQLite's own busy handler is unfair: a busy worker starves the receiver. So every write first
takes a file lock, on which processes queue up, and then begins an immediate transaction.
"""

from __future__ import annotations

import fcntl
import glob
import itertools
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.sqlite import insert

from relay.clock import SteadyClock
from relay.store.database import Database, Listener, Prepared, StoreUnavailable

log = structlog.get_logger()

#: Seconds after which a writer gives up waiting for another one. With SQLite's own wait it is
#: less than the 5 s in which a sender wants its answer.
LONGEST_WAIT = 2.0
#: Seconds between the first tries at a lock that is not free.
_FIRST_TRIES = (0.0005, 0.001, 0.002)
#: Seconds for which a look at the disk is believed.
BELIEVED = 0.5


class SqliteDatabase(Database):
    """A store in one file of this machine, and *reserve* bytes of its disk that intake leaves."""

    driver_errors = (sqlite3.Error,)

    def __init__(self, url: str, file: Path, *, reserve: int = 0) -> None:
        lock = _private(Path(f"{file}.lock"))
        self._original = Original(file, note=lock)
        self._lock = WriteLock(lock)
        engine = _engine(url, self._original)
        super().__init__(url, engine, clock=SteadyClock(), write_lock=self._lock)
        self.file: Path = file
        self._disk = Disk(file.parent, reserve=reserve)

    def require_room(self, *, share: float = 1.0) -> None:
        self.require_present()
        if lack := self._disk.lack(share=share):
            raise StoreUnavailable(lack)

    def require_present(self) -> None:
        self._original.require()

    def try_exclusive(self, db: sa.Connection, name: str) -> bool:
        return True  # the file has one writer

    def hold_exclusive(self, db: sa.Connection, name: str) -> None:
        """The file has one writer."""

    def notify(self) -> None:
        """Workers of this machine look for work often enough."""

    def listen(self, wake: Callable[[], None]) -> Listener:
        return _Silence()

    def insert(self, table: sa.Table) -> Any:
        return insert(table)

    def insert_locking(self, table: sa.Table, *, key: str, same: str) -> Any:
        # The file has one writer: there is no row to lock.
        return insert(table).on_conflict_do_nothing()

    def prepare(self, insert: sa.Insert, *, columns: Sequence[str]) -> Prepared:
        return _Compiled(insert, self.engine.dialect, columns)

    def prepare_update(
        self,
        table: sa.Table,
        update: Callable[[sa.FromClause], sa.Update],
        *,
        columns: Sequence[str],
    ) -> Prepared:
        return _Compiled(update(_rows_of(table, columns)), self.engine.dialect, columns)

    def refuses_row(self, cause: BaseException) -> bool:
        return isinstance(cause, (sqlite3.DataError, sqlite3.IntegrityError))

    def close(self) -> None:
        super().close()
        self._lock.close()


class Original:
    """The file that was opened, whatever bears its name now.

    A file that is missing is made, unless a node still uses the one that was there. Its number is
    noted in *note*, the descriptor of the lock file, so that a process that is started beside a
    running relay knows the file that the others use.
    """

    def __init__(self, file: Path, *, note: int) -> None:
        self._file, self._note = file, note
        self._is_missed = False
        if _is_used(file):
            #: Device and inode; None: the file of the running nodes is gone.
            self._known = self._noted()
            return
        os.close(_private(file))
        self._known = _identity(file)
        if self._known:
            os.pwrite(note, f"{self._known[1]}\n".encode(), 0)

    def connect(self) -> sqlite3.Connection:
        """Open a connection to this file, and to no other. Raises StoreUnavailable."""
        self.require()
        # Without mode=rw a file that has just been removed would be made anew.
        uri = f"file:{quote(str(self._file))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        try:
            self.require()
        except StoreUnavailable:
            connection.close()
            raise
        return connection

    def require(self) -> None:
        """Raise :class:`StoreUnavailable`, and log it once, if the file is not there any more."""
        self._known = self._known or self._noted()
        if self._known and _identity(self._file) == self._known:
            self._is_missed = False
            return
        if not self._is_missed:
            log.error("store.gone", file=str(self._file))
            self._is_missed = True
        raise StoreUnavailable(
            f"{self._file.name} was removed or exchanged while the relay runs: put it back,"
            " or stop every process of the relay and start it again"
        )

    def _noted(self) -> tuple[int, int] | None:
        """Return what the file is, if it is the one that the running nodes opened."""
        found = _identity(self._file)
        noted = os.pread(self._note, 32, 0).decode().strip()
        return found if found and noted in ("", str(found[1])) else None


class _Silence:
    """Listens to nothing."""

    def close(self) -> None:
        """Nothing runs."""


class WriteLock:
    """Lets one thread of one process write at a time. *file*: the descriptor to lock.

    Raises :class:`StoreUnavailable` when another writer holds it for over *patience* seconds.
    """

    def __init__(self, file: int, *, patience: float = LONGEST_WAIT) -> None:
        self._threads = threading.Lock()
        self._patience = patience
        self._file: FileLock | None = FileLock(file)

    def __enter__(self) -> None:
        ends_at = time.monotonic() + self._patience
        if not self._threads.acquire(timeout=self._patience):
            raise StoreUnavailable("another thread writes for too long")
        if self._file is None:
            self._threads.release()
            raise StoreUnavailable("the store was closed")
        if not self._file.acquire(ends_at - time.monotonic()):
            self._threads.release()
            raise StoreUnavailable("another process writes for too long, or was stopped in it")

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.release()
        self._threads.release()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class FileLock:
    """``flock`` with a time limit, which the system call does not have.

    Processes queue up in the kernel, so that a busy one starves nobody. For one thread at a time.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._guard = threading.Lock()
        #: Stands in line in the kernel when the lock was not free.
        self._waiter: threading.Event | None = None
        self._wanted = False

    def acquire(self, seconds: float) -> bool:
        """Take the lock; False if that did not happen within *seconds*."""
        if self._waiter is None and self._at_once():
            return True
        with self._guard:
            self._wanted = True
            if self._waiter is None:
                self._waiter = threading.Event()
                threading.Thread(target=self._stand_in_line, daemon=True, name="lock").start()
            waiter = self._waiter
        if waiter.wait(max(seconds, 0.0)):
            self._waiter = None
            return True
        with self._guard:
            if waiter.is_set():
                self._waiter = None
                return True
            self._wanted = False
            return False

    def release(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._file)

    def _at_once(self) -> bool:
        """Try for a few milliseconds, in which most who hold the lock are done with it."""
        for pause in _FIRST_TRIES:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(pause)
            else:
                return True
        return False

    def _stand_in_line(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        with self._guard:
            if self._wanted:
                assert self._waiter is not None
                self._waiter.set()
                return
            # Whoever asked has given up.
            self._waiter = None
            fcntl.flock(self._file, fcntl.LOCK_UN)


class Disk:
    """The disk that *folder* is on, of which *reserve* bytes are not for everybody."""

    def __init__(self, folder: Path, *, reserve: int) -> None:
        self._folder = folder
        self._reserve = reserve
        self._free = 0
        self._looked_at = float("-inf")

    def lack(self, *, share: float) -> str:
        """Say what is missing if less than *share* of the reserve is free; else nothing."""
        if not self._reserve or (free := self.free()) >= self._reserve * share:
            return ""
        return (
            f"disk of {self._folder.name or self._folder}: {free >> 20} MiB free, "
            f"and disk_reserve is {self._reserve >> 20} MiB"
        )

    def free(self) -> int:
        """Return the bytes that are free, as of a moment ago."""
        now = time.monotonic()
        if now - self._looked_at >= BELIEVED:
            self._free = shutil.disk_usage(self._folder).free
            self._looked_at = now
        return self._free


def _engine(url: str, original: Original) -> sa.Engine:
    """Make an engine whose writers begin at once, synced unless they say otherwise."""
    made = sa.create_engine(
        url, creator=original.connect, pool_size=5, max_overflow=20, pool_pre_ping=False
    )
    sa.event.listen(made, "connect", _prepare)
    sa.event.listen(made, "begin", _begin)
    return made


def _rows_of(table: sa.Table, columns: Sequence[str]) -> sa.FromClause:
    """Return a row of values for *columns* of *table*, for a statement that takes many."""
    kinds = {name: table.c[name].type for name in columns}
    one = tuple(sa.bindparam(f"b_{name}", type_=kind) for name, kind in kinds.items())
    named = (sa.column(name, kind) for name, kind in kinds.items())
    return sa.values(*named, name="rows").data([one]).cte("rows")


class _Compiled:
    """A statement compiled once, which goes to the driver as it is.

    Many rows make one statement. The driver releases the interpreter at every step, and 32
    threads of the receiver are waiting to take it: a step for each row cost more than everything
    else in an accept.
    """

    def __init__(
        self, statement: sa.Insert | sa.Update, dialect: sa.Dialect, columns: Sequence[str]
    ) -> None:
        """*statement* inserts *columns*, or updates from :func:`_rows_of` them."""
        table: sa.Table = statement.table  # type: ignore[assignment]  # ours are plain tables
        keys = list(columns) if isinstance(statement, sa.Insert) else None
        compiled = statement.compile(dialect=dialect, column_keys=keys)
        self._sql = str(compiled)
        self._row = f"({', '.join('?' * len(columns))})"
        # The compiler writes columns in the order of the table: values have to follow it.
        order: Sequence[str] = getattr(compiled, "positiontup", None) or ()
        names = [name.removeprefix("b_") for name in order]
        self._take = itemgetter(*names)
        binders = [(at, _binder(table, name, dialect)) for at, name in enumerate(names)]
        self._binders = [(at, bind) for at, bind in binders if bind]

    def many(self, connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> int:
        values = [self._bound(row) for row in rows]
        start = done = 0
        for size in _powers_of_two(len(values)):
            flat = tuple(itertools.chain.from_iterable(values[start : start + size]))
            done += connection.exec_driver_sql(self._of_rows(size), flat).rowcount
            start += size
        return done

    def _bound(self, row: Mapping[str, Any]) -> Sequence[Any]:
        bound = list(self._take(row))
        for at, bind in self._binders:
            bound[at] = bind(bound[at])
        return bound

    def _of_rows(self, count: int) -> str:
        return self._sql.replace(self._row, ", ".join([self._row] * count), 1)


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


def _private(path: Path) -> int:
    """Make the file readable for its owner only, before SQLite makes it for everybody."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error


def _identity(file: Path) -> tuple[int, int] | None:
    """Return device and inode of *file*; None if there is no such file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_used(file: Path) -> bool:
    """Return whether a node holds its place beside the store *file*."""
    return any(_is_locked(path) for path in file.parent.glob(f"{glob.escape(file.name)}.*.lock"))


def _is_locked(path: Path) -> bool:
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _prepare(connection: Any, _: object) -> None:
    # Transactions are begun by _begin, not by the driver's guess.
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


def _begin(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    driver: Any = connection.connection.dbapi_connection
    if options.get("gofax_write"):
        # Set at each begin: a pooled connection may have served the other kind before.
        level = "NORMAL" if options.get("gofax_unsynced") else "FULL"
        driver.execute(f"PRAGMA synchronous = {level}")
    driver.execute("BEGIN IMMEDIATE" if options.get("gofax_write") else "BEGIN")
