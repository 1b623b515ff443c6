"""Backups of a store: made while the relay uses it, verified, recorded, and removed when old."""

from __future__ import annotations

import os
import shlex
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from relay.store import dump, schema
from relay.store.database import Database, StoreUnavailable
from relay.store.ids import new_id
from relay.store.restored import BACKUP
from relay.store.sqlite_file import private, reading, tables

#: Who asked for a backup: a person, or a command that changes the store as a whole.
Reason = Literal["person", "migrate", "restore"]
#: What SQLite keeps beside a file.
BESIDE = ("-shm", "-wal", "-journal", ".lock", "")

_backups = schema.backups


class BackupRefused(Exception):
    """A backup cannot be made, or cannot be put back; says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup:
    """A backup that the relay made."""

    id: str
    at: datetime
    #: The machine that it was made on.
    host: str
    file: str
    reason: str

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname() and Path(self.file).exists()


def new_backup(file: Path, reason: Reason, at: datetime) -> Backup:
    """Describe a backup that is about to be made on this machine."""
    host = socket.gethostname()
    return Backup(id=new_id("bak"), at=at, host=host, file=str(file.absolute()), reason=reason)


def automatic_name(store: Path, reason: Reason, at: datetime) -> Path:
    """Name a backup that nobody asked for, beside *store*."""
    return store.with_name(f"{store.name}.{at:%Y%m%dT%H%M%SZ}.before-{reason}")


def make(database: Database, file: Path, *, reason: Reason) -> int:
    """Write what the store is at one moment to the new *file*; return its number of rows.

    Others go on using the store. The file is there only when it was verified, and readable for its
    owner only. Raises :class:`BackupRefused` and StoreUnavailable.
    """
    if file.exists():
        raise BackupRefused(f"{file} exists: name a new file")
    if not file.parent.is_dir():
        # A mistyped path would fill a disk that nobody looks at, and hide copies of the texts.
        raise BackupRefused(
            f"there is no folder {file.parent}: name one that exists, or make it first"
            f" (mkdir -p -m 700 {shlex.quote(str(file.parent))})"
        )
    backup = new_backup(file, reason, database.clock())
    part = file.with_name(f"{file.name}.part")
    # Before it is made, so that the backup knows of itself when it is put back.
    add(database, [backup])
    try:
        rows = _written(database, part)
        part.rename(file)
        sync(file.parent)
    except BaseException as error:
        _forget(database, backup.id)
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            # Name the file that was asked for, not the temporary one beside it.
            raise BackupRefused(f"{file}: {error.strerror}") from error
        raise
    return rows


def _written(database: Database, part: Path) -> int:
    with suppress(FileNotFoundError):
        part.unlink()
    os.close(private(part))
    if database.file is None:
        try:
            return dump.write(database, part)
        except dump.Failed as error:
            raise BackupRefused(str(error)) from error
    with refusing(), database.reading() as db, closing(sqlite3.connect(part)) as copy:
        # The first statement decides which moment the transaction sees, and the copy with it.
        rows = _rows(db)
        source: Any = db.connection.driver_connection
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        copy.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (BACKUP, b"1"))
        copy.commit()
        verify(copy, rows)
    sync(part)
    return sum(rows.values())


def verify(copy: sqlite3.Connection, rows: dict[str, int] | None = None) -> None:
    """Raise :class:`BackupRefused` if a file is damaged, or has other *rows* than it must have."""
    (found,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise BackupRefused(f"the file is damaged: {found}")
    for table, number in (rows or {}).items():
        (there,) = copy.execute(f"SELECT count(*) FROM {table}").fetchone()
        # The copy has its own mark.
        if there != number + (table == "marks"):
            raise BackupRefused(f"{table}: {there} rows in the backup, {number} in the store")


def _rows(db: sa.Connection) -> dict[str, int]:
    there = set(sa.inspect(db).get_table_names())
    names = [table.name for table in schema.metadata.sorted_tables if table.name in there]
    return {name: db.scalar(sa.text(f"SELECT count(*) FROM {name}")) or 0 for name in names}


@contextmanager
def refusing() -> Iterator[None]:
    """Turn errors of SQLite about a file that is not the store into :class:`BackupRefused`."""
    try:
        yield
    except (sqlite3.Error, StoreUnavailable) as error:
        raise BackupRefused(" ".join(str(error).split())) from error


def verify_file(file: Path) -> None:
    """Raise :class:`BackupRefused` unless *file* is a whole backup, or any copy of a store."""
    try:
        with refusing(), closing(reading(file)) as source:
            verify(source)
            if "alembic_version" not in tables(source):
                raise BackupRefused("no store is in it")
    except BackupRefused as error:
        raise BackupRefused(f"{file} is no whole backup of a SQLite store: {error}") from error


def recorded(database: Database, *, since: datetime | None = None) -> Sequence[Backup]:
    """Return the backups that were made since then, oldest first."""
    wanted = sa.select(_backups).order_by(_backups.c.at, _backups.c.id)
    if since is not None:
        wanted = wanted.where(_backups.c.at >= since)
    with database.reading() as db:
        return [Backup(**row) for row in db.execute(wanted).mappings()]


def add(database: Database, backups: Sequence[Backup]) -> None:
    """Record backups that are not yet recorded; a schema of before knows of none."""
    with database.writing() as db:
        if backups and sa.inspect(db).has_table(_backups.name):
            insert = database.insert(_backups).on_conflict_do_nothing()
            db.execute(insert, [asdict(each) for each in backups])


def expire(database: Database, *, before: datetime) -> Iterator[Path]:
    """Remove this machine's backups that nobody asked for and that are older; yield each."""
    here, old = _backups.c.host == socket.gethostname(), _backups.c.at < before
    wanted = sa.select(_backups).where(here, old, _backups.c.reason != "person")
    with database.reading() as db:
        found = [Backup(**row) for row in db.execute(wanted).mappings()]
    for each in found:
        remove(Path(each.file))
        _forget(database, each.id)
        yield Path(each.file)


def _forget(database: Database, backup_id: str) -> None:
    with suppress(StoreUnavailable, sa.exc.ProgrammingError), database.writing() as db:
        db.execute(sa.delete(_backups).where(_backups.c.id == backup_id))


def sync(path: Path) -> None:
    """Have the disk keep a file, or the names in a folder."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove(file: Path) -> None:
    """Remove *file*, if it is there, and what SQLite keeps beside it."""
    for end in BESIDE:
        Path(f"{file}{end}").unlink(missing_ok=True)


def copy_of(file: Path, to: Path) -> None:
    """Copy the backup *file*, or any copy of a store, to the new file *to*."""
    remove(to)
    os.close(private(to))
    with refusing(), closing(reading(file)) as source, closing(sqlite3.connect(to)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
    sync(to)


def exchange(store: Path, by: Path, *, aside: Path) -> None:
    """Let the file *by* be the store, and keep what it was as *aside*.

    A kill in between leaves no store, and the same command goes on.
    """
    with suppress(sqlite3.Error):
        if store.exists():
            with closing(sqlite3.connect(store)) as old:
                old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for end in BESIDE:
        found = Path(f"{store}{end}")
        if found.exists() and end != ".lock":
            found.rename(f"{aside}{end}")
    by.rename(store)
    sync(store.parent)
