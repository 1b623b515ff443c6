"""The one SQLite file that holds webhook profiles and the delivery log."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from sender.errors import SenderError

#: A store that lives as long as the command.
IN_MEMORY = Path(":memory:")
#: Seconds that a command waits for another one that writes.
PATIENCE = 10.0
#: What each version of the file added; ``user_version`` counts them.
STEPS = (
    """
    CREATE TABLE profiles (
        name TEXT PRIMARY KEY,
        url TEXT NOT NULL,
        events TEXT NOT NULL,
        include_message_body INTEGER NOT NULL,
        secret TEXT,
        basic TEXT,
        is_active INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL
    );
    CREATE TABLE log (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        profile TEXT,
        url TEXT NOT NULL,
        event_type TEXT,
        message_id TEXT,
        number INTEGER NOT NULL,
        resend_of INTEGER,
        kind TEXT NOT NULL,
        body BLOB NOT NULL,
        headers TEXT NOT NULL,
        status INTEGER,
        duration_ms REAL,
        answer TEXT,
        answer_headers TEXT,
        error TEXT
    );
    CREATE INDEX log_by_message_id ON log (message_id);
    """,
)


class StoreError(SenderError):
    """The file cannot be used."""


class Store:
    """An open store; only its owner may read the file."""

    def __init__(self, path: Path) -> None:
        """Open *path*, making it and its folder if need be.

        Raises :class:`StoreError`.
        """
        self.path = path
        try:
            if path != IN_MEMORY:
                _make_private(path)
            self._db = sqlite3.connect(path, timeout=PATIENCE)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        self._db.row_factory = sqlite3.Row
        try:
            self._bring_up_to_date()
        except (sqlite3.Error, StoreError) as error:
            self._db.close()
            raise (error if isinstance(error, StoreError) else self._unusable(error)) from error

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; what is written is kept if nothing is raised.

        Raises :class:`StoreError`.
        """
        try:
            with self._db:
                yield self._db
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _bring_up_to_date(self) -> None:
        # Two commands that start at once must not both make the tables.
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(STEPS):
                raise StoreError(f"{self.path}: a newer gofax-sender has used it: update this one")
            for step in STEPS[version:]:
                for statement in filter(str.strip, step.split(";")):
                    self._db.execute(statement)
            if version < len(STEPS):
                self._db.execute(f"PRAGMA user_version = {len(STEPS)}")

    def _unusable(self, error: Exception) -> StoreError:
        reason = getattr(error, "strerror", None) or error
        return StoreError(
            f"{self.path}: profiles and log cannot be used: {str(reason).lower()}: "
            "give another file with --store or $GOFAX_SENDER_STORE"
        )


def _make_private(path: Path) -> None:
    """Create *path* for its owner alone: it holds secrets and SMS."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
