"""Which database does a URL name?"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import sqlalchemy as sa

from relay.store import sqlite
from relay.store.database import Database
from relay.store.sqlite_file import is_there


def connect(url: str, *, reserve: int = 0, cache: int = sqlite.CACHE) -> Database:
    """Open the store at *url*; a SQLite file that is missing is made, but not under running nodes.

    *reserve*: bytes of disk below which nothing new is taken in; half of it is kept for claims,
    the rest for recording finished attempts. *cache*: bytes of the file that each connection keeps
    in memory. PostgreSQL looks after its own disk and memory. Raises
    :class:`~relay.store.database.StoreUnavailable`.
    """
    file = file_of(url)
    if file is None:
        # The driver is an extra, and slow to import.
        server: Database = import_module("relay.store.postgres").PostgresDatabase(url)
        return server
    return sqlite.SqliteDatabase(url, file, reserve=reserve, cache=cache)


def is_missing(url: str) -> bool:
    """Return whether the store at *url* is a file that is not there, or in which nothing is.

    Raises :class:`~relay.store.database.StoreUnavailable` if this user may not look.
    """
    file = file_of(url)
    return file is not None and (not is_there(file) or not file.stat().st_size)


def file_of(url: str) -> Path | None:
    """Return the file of a SQLite store; None if a server keeps the store."""
    return Path(sa.make_url(url).database or "") if url.startswith("sqlite:") else None
