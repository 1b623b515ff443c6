"""The file of a SQLite store, and the disk it is on: is it still there, and is there room?"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import structlog

from relay.store.database import StoreUnavailable
from relay.store.restored import BACKUP, IS_BACKUP

log = structlog.get_logger()

#: Statements that a connection keeps prepared. Each length of a list is another one, so that a
#: worker's connections filled Python's 128, with some 5 MiB more, and ran no faster for it.
PREPARED = 64
#: Seconds for which a look at the disk is believed.
BELIEVED = 0.5


class NotAStore(StoreUnavailable):
    """The file holds something else than a store, or is a backup."""


class Original:
    """The file that was opened, even if another file has its name now.

    A missing file is created, unless a node still uses the one that was there. Its inode is kept
    in *note*, the descriptor of the lock file, so that a process that starts beside a running
    relay recognises the file that the others use.
    """

    def __init__(self, file: Path, *, note: int) -> None:
        self._file, self._note = file, note
        self._is_missed = False
        if is_used(file):
            #: Device and inode; None if the file of the running nodes is gone.
            self._known = self._noted()
            return
        os.close(private(file))
        self._known = _identity(file)
        if self._known:
            os.pwrite(note, f"{self._known[1]}\n".encode(), 0)

    def connect(self) -> sqlite3.Connection:
        """Open a connection to this very file. Raises StoreUnavailable."""
        self.require()
        # Without mode=rw a file that was just removed would be created again.
        uri = f"file:{quote(str(self._file))}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, check_same_thread=False, cached_statements=PREPARED
        )
        try:
            self.require()
        except StoreUnavailable:
            connection.close()
            raise
        return connection

    def require(self) -> None:
        """Raise :class:`StoreUnavailable`, and log it once, if the file is gone."""
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
        """Return device and inode of the file if the running nodes use it."""
        found = _identity(self._file)
        noted = os.pread(self._note, 32, 0).decode().strip()
        return found if found and noted in ("", str(found[1])) else None


class Disk:
    """The disk of *folder*, of which *reserve* bytes are kept for what matters most."""

    def __init__(self, folder: Path, *, reserve: int) -> None:
        self._folder = folder
        self._reserve = reserve
        self._free = 0
        self._looked_at = float("-inf")

    def lack(self, *, share: float, free_pages: Callable[[], int] = lambda: 0) -> str:
        """Say what is missing if less than *share* of the reserve is free; else ``""``.

        *free_pages*: bytes of the store's file that can be written to. They count for at most
        one half, because the write-ahead log needs room on the disk itself.
        """
        if not self._reserve or (free := self.free()) >= (wanted := self._reserve * share):
            return ""
        if free >= wanted / 2 and free + free_pages() >= wanted:
            return ""
        return (
            f"disk of {self._folder.name or self._folder}: {free >> 20} MiB free, "
            f"and disk_reserve is {self._reserve >> 20} MiB"
        )

    def free(self) -> int:
        """Return the free bytes, as of a moment ago."""
        now = time.monotonic()
        if now - self._looked_at >= BELIEVED:
            self._free = shutil.disk_usage(self._folder).free
            self._looked_at = now
        return self._free


def reading(file: Path) -> sqlite3.Connection:
    """Open a file that nobody writes to, so that nothing is made beside it."""
    in_use = any(Path(f"{file}{end}").exists() for end in ("-wal", "-journal"))
    mode = "mode=ro" if in_use else "mode=ro&immutable=1"
    return sqlite3.connect(f"{file.absolute().as_uri()}?{mode}", uri=True)


def tables(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the tables."""
    return {
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if not name.startswith("sqlite_")
    }


def is_there(file: Path) -> bool:
    """Return whether *file* exists. Raises :class:`StoreUnavailable` if this user may not look."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _refused(file, error) from error
    return True


def require_ours(file: Path) -> None:
    """Raise :class:`NotAStore` if *file* is there and no store, or a backup; it is left as it is.

    Also raises :class:`StoreUnavailable`.
    """
    try:
        if file.is_dir():
            raise NotAStore("this is a folder: name a file")
        with file.open("r+b") as opened:
            if not opened.read(1):
                return
        with closing(reading(file)) as db:
            there = tables(db)
            if "marks" in there and db.execute(_MARKED, [BACKUP]).fetchone():
                raise NotAStore(IS_BACKUP)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _refused(file, error) from error
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise NotAStore(f"{error}: name another file") from error
        raise StoreUnavailable(str(error)) from error
    if there and "alembic_version" not in there:
        some = ", ".join(sorted(there)[:5])
        raise NotAStore(f"it has tables of another program: {some}: name another file")


_MARKED = "SELECT 1 FROM marks WHERE name = ?"


def private(path: Path) -> int:
    """Create the file readable for its owner only, before SQLite creates it for everybody."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _refused(path, error) from error


#: Why the system refuses a path, and how to mend it.
_REFUSALS = {
    errno.EACCES: "permission denied: let this user read and write here",
    errno.EROFS: "this disk can only be read: name a file on another",
    errno.EISDIR: "this is a folder: name a file",
    errno.EEXIST: "this is no folder: name another",
    errno.ENOTDIR: "this is in no folder: name another",
    errno.ENOENT: "this is a link into a folder that is missing: make it, or name another file",
}


def _refused(path: Path, error: OSError) -> StoreUnavailable:
    why = _REFUSALS.get(error.errno or 0, error.strerror)
    return StoreUnavailable(f"{error.filename or path}: {why}")


def _identity(file: Path) -> tuple[int, int] | None:
    """Return device and inode of *file*; None if there is no such file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_used(file: Path) -> bool:
    """Return whether a node uses the store *file*."""
    return any(_is_locked(path) for path in file.parent.glob(f"{glob.escape(file.name)}.*.lock"))


def _is_locked(path: Path) -> bool:
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
