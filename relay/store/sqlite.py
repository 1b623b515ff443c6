"""SQLite: how connections to the file are made, and how many rows go into it at once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

__all__ = ["Prepared", "engine", "insert", "open_private", "rows_of"]


def engine(url: str) -> sa.Engine:
    """Make an engine whose writers begin at once, synced unless they say otherwise."""
    made = sa.create_engine(url, pool_size=5, max_overflow=20, pool_pre_ping=False)
    sa.event.listen(made, "connect", _prepare)
    sa.event.listen(made, "begin", _begin)
    return made


def rows_of(table: sa.Table, columns: Sequence[str]) -> sa.FromClause:
    """Return a row of values for *columns* of *table*, for a statement that takes many."""
    kinds = {name: table.c[name].type for name in columns}
    one = tuple(sa.bindparam(f"b_{name}", type_=kind) for name, kind in kinds.items())
    named = (sa.column(name, kind) for name, kind in kinds.items())
    return sa.values(*named, name="rows").data([one]).cte("rows")


class Prepared:
    """A statement compiled once: what each accept and record executes goes to the driver as it is.

    Many rows make one statement. Its driver lets go of the interpreter at every step,
    and 32 threads of the receiver are waiting to take it: a step for each row cost more than
    everything else in an accept.
    """

    def __init__(
        self, statement: sa.Insert | sa.Update, dialect: sa.Dialect, columns: Sequence[str]
    ) -> None:
        """*statement* inserts *columns*, or updates from :func:`rows_of` them."""
        table: sa.Table = statement.table  # type: ignore[assignment]  # ours are plain tables
        keys = list(columns) if isinstance(statement, sa.Insert) else None
        compiled = statement.compile(dialect=dialect, column_keys=keys)
        self._sql = str(compiled)
        self._columns = columns
        # The compiler writes columns in the order of the table: that of the values has to follow.
        order: Sequence[str] = getattr(compiled, "positiontup", None) or ()
        self._take = itemgetter(*(columns.index(name.removeprefix("b_")) for name in order))
        binders = {at: _binder(table, name, dialect) for at, name in enumerate(columns)}
        self._binders = [(at, bind) for at, bind in binders.items() if bind]

    def many(self, connection: sa.Connection, rows: Iterable[Sequence[Any]]) -> int:
        """Execute it for *rows*, each with its values in the order of *columns*.

        Return how many were inserted or found.
        """
        values = [self._bound(row) for row in rows]
        start = done = 0
        for size in _powers_of_two(len(values)):
            chunk = map(self._take, values[start : start + size])
            flat = tuple(itertools.chain.from_iterable(chunk))
            done += connection.exec_driver_sql(self._of_rows(size), flat).rowcount
            start += size
        return done

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


def open_private(path: Path) -> int:
    """Make the file readable for its owner only, before SQLite makes it for everybody."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


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
