"""The one SQLite file that holds webhook profiles and the delivery log."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
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


#: Tables that every store has.
OURS = frozenset({"profiles", "log"})


class StoreError(SenderError):
    """The file cannot be used."""


class NoStore(StoreError):
    """The file is not a store of ours, and was left as it is."""


class Store:
    """An open store; only its owner may read the file, which is made for the first write."""

    def __init__(self, path: Path) -> None:
        """Open *path*, which may be missing.

        Raises :class:`StoreError`; :class:`NoStore` if it holds something else.
        """
        self.path = path
        self._is_made = path == IN_MEMORY or self._is_there()
        self._db = self._opened(path if self._is_made else IN_MEMORY)

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
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for queries. Raises :class:`StoreError`."""
        try:
            yield self._db
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; what is written is kept if nothing is raised.

        The file and its folder are made if need be. Raises :class:`StoreError`.
        """
        if not self._is_made:
            self._make()
        try:
            with self._db:
                yield self._db
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _is_there(self) -> bool:
        try:
            return self.path.stat().st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._unusable(error) from error

    def _make(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise self._unusable(error) from error
        made = self._opened(self.path)
        self._db.close()
        self._db, self._is_made = made, True

    def _opened(self, path: Path) -> sqlite3.Connection:
        with ExitStack() as unless_good:
            try:
                db = unless_good.enter_context(closing(sqlite3.connect(path, timeout=PATIENCE)))
                db.row_factory = sqlite3.Row
                self._require_ours(db)
                if path != IN_MEMORY:
                    _keep_private(path)
                self._bring_up_to_date(db)
            except sqlite3.OperationalError as error:
                raise self._unusable(error) from error
            except sqlite3.DatabaseError as error:
                raise self._unusable(error, NoStore) from error
            except OSError as error:
                raise self._unusable(error) from error
            unless_good.pop_all()
        return db

    def _require_ours(self, db: sqlite3.Connection) -> None:
        tables = {name for (name,) in db.execute(_TABLES)}
        if "alembic_version" in tables:
            raise self._unusable("it is the store of a gofax-relay", NoStore)
        if tables and not tables >= OURS:
            some = ", ".join(sorted(tables)[:5])
            raise self._unusable(f"it has tables of another program: {some}", NoStore)

    def _bring_up_to_date(self, db: sqlite3.Connection) -> None:
        # Two commands that start at once must not both make the tables.
        db.execute("BEGIN IMMEDIATE")
        with db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(STEPS):
                raise StoreError(f"{self.path}: a newer gofax-sender has used it: update this one")
            for step in STEPS[version:]:
                for statement in filter(str.strip, step.split(";")):
                    db.execute(statement)
            if version < len(STEPS):
                db.execute(f"PRAGMA user_version = {len(STEPS)}")

    def _unusable(self, error: Exception | str, kind: type[StoreError] = StoreError) -> StoreError:
        reason = str(getattr(error, "strerror", None) or error)
        return kind(
            f"{self.path}: profiles and log cannot be used: {reason[0].lower() + reason[1:]}: "
            "give another file with --store or $GOFAX_SENDER_STORE"
        )


_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"


def _keep_private(path: Path) -> None:
    """Let only the owner read *path*: it holds secrets and SMS."""
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
