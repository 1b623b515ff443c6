"""The relay on a SQLite that syncs less than it is told to: what a check of syncs has to find."""

from __future__ import annotations

import re
import sqlite3
import sqlite3.dbapi2
from functools import partial
from typing import Any

from relay.cli import cli


def _careless(sql: str) -> str:
    return re.sub(r"(synchronous\s*=\s*)FULL", r"\1NORMAL", sql, flags=re.IGNORECASE)


class Cursor(sqlite3.Cursor):
    """Syncs when the log is copied back, not when a transaction ends."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return super().execute(_careless(sql), *parameters)


class Connection(sqlite3.Connection):
    """A connection of such cursors."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return self.cursor().execute(sql, *parameters)

    def cursor(self, factory: type[sqlite3.Cursor] = Cursor) -> sqlite3.Cursor:
        return super().cursor(factory)


if __name__ == "__main__":
    sqlite3.connect = sqlite3.dbapi2.connect = partial(sqlite3.connect, factory=Connection)
    cli()
