"""An archive in a local folder: rows are appended under a lock and synced before they count.

Several processes of one machine may write to it. A line cut off by a crash was never acknowledged:
the next writer removes it, and the relay sends its event again.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path

from connectors.base import Ambiguous, DeliveryError, Transient, Unauthorized

#: Bytes after which the next part of a day begins.
FULL = 64 * 1024 * 1024
ROLLED = "events.parquet"

#: Faults that last until a person mends them.
_LASTING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
#: Seconds between two attempts to take a lock.
_POLL = 0.01


class Folder:
    """The folder *root* with ``2026/11/24/part-0001.jsonl`` below it; shared by threads."""

    def __init__(self, root: Path, *, full: int = FULL) -> None:
        self.root = root
        self._full = full
        self._mutex = threading.Lock()
        #: The part whose name this process has synced already.
        self._lasting: Path | None = None

    def add(
        self,
        day: date,
        key: str,
        row: bytes,
        *,
        repeat: bool,
        is_rolled: Callable[[bytes], bool],
        deadline: float,
    ) -> str:
        """Append *row* and return its place; with *repeat*, keep an existing row of *key*.

        *is_rolled* says whether a Parquet file has the row. Raises :class:`DeliveryError`.
        """
        folder = self._folder(day)
        ends_at = time.monotonic() + deadline
        with _told(self.root):
            _make(folder)
        with self.alone(ends_at):
            parts = self._parts(folder)
            if parts:
                _repair(parts[-1])
            part = repeat and self._find(folder, parts, key, is_rolled)
            if part:
                _sync(part)  # its writer may have died before that
            else:
                part = self._open_part(folder, parts)
                _append(part, row)
            self._make_last(part)
            return part.relative_to(self.root).as_posix()

    @contextmanager
    def alone(self, ends_at: float) -> Iterator[None]:
        """Keep every other writer of this machine out.

        Raises :class:`Transient` if *ends_at* comes first; errors of the system inside become
        :class:`DeliveryError`.
        """
        with _told(self.root), self._locked(ends_at):
            yield

    @contextmanager
    def _locked(self, ends_at: float) -> Iterator[None]:
        late = Transient(f"{self.root}: another writer has held the lock for too long")
        if not self._mutex.acquire(timeout=max(0.0, ends_at - time.monotonic())):
            raise late
        try:
            lock = os.open(self.root / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                while not _try_lock(lock):
                    if time.monotonic() > ends_at:
                        raise late
                    time.sleep(_POLL)
                yield
            finally:
                os.close(lock)
        finally:
            self._mutex.release()

    def check(self) -> str:
        """Say whether we may write; raises :class:`DeliveryError`."""
        with _told(self.root):
            existing = next(each for each in (self.root, *self.root.parents) if each.exists())
            space = os.statvfs(existing)
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise Unauthorized(f"{existing}: no folder that we may write to")
        free = space.f_bavail * space.f_frsize // 2**20
        return f"{self.root}: may be written to, {free:,} MiB free"

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def days(self) -> list[date]:
        """Return the days that have lines, the oldest first."""
        found = self.root.glob("*/*/*/part-*.jsonl")
        days = {day_of(part.parent.relative_to(self.root).as_posix()) for part in found}
        return sorted(day for day in days if day)

    def lines(self, day: date) -> list[tuple[str, bytes]]:
        """Return the parts of a day by name, without a line that was cut off."""
        parts = self._parts(self._folder(day))
        if parts:
            _repair(parts[-1])
        return [(part.name, part.read_bytes()) for part in parts]

    def rolled(self, day: date) -> bytes | None:
        """Return the Parquet file of a day, if there is one."""
        path = self._folder(day) / ROLLED
        return path.read_bytes() if path.exists() else None

    def put_rolled(self, day: date, content: bytes) -> None:
        """Write the Parquet file of a day: whole, or not at all."""
        path = self._folder(day) / ROLLED
        aside = path.with_suffix(".tmp")
        with _opened(aside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC) as file:
            _write(file, content)
            os.fsync(file)
        aside.replace(path)
        _sync(path.parent)

    def remove(self, day: date, names: list[str]) -> None:
        """Remove parts that were rolled."""
        folder = self._folder(day)
        for name in names:
            (folder / name).unlink()
        _sync(folder)

    def _folder(self, day: date) -> Path:
        return self.root / f"{day:%Y/%m/%d}"

    def _parts(self, folder: Path) -> list[Path]:
        return sorted(folder.glob("part-*.jsonl"))

    def _open_part(self, folder: Path, parts: list[Path]) -> Path:
        if parts and parts[-1].stat().st_size < self._full:
            return parts[-1]
        last = int(parts[-1].stem.removeprefix("part-")) if parts else 0
        return folder / f"part-{last + 1:04}.jsonl"

    def _find(
        self, folder: Path, parts: list[Path], key: str, is_rolled: Callable[[bytes], bool]
    ) -> Path | None:
        rolled = folder / ROLLED
        if rolled.exists() and is_rolled(rolled.read_bytes()):
            return rolled
        return next((part for part in reversed(parts) if _has(part, key)), None)

    def _make_last(self, part: Path) -> None:
        """Sync the names on the way to *part* too, once."""
        if part == self._lasting:
            return
        for folder in part.parents:
            _sync(folder)
            if folder == self.root.parent:
                break
        self._lasting = part


def row_start(key: str) -> bytes:
    """Return how the line of *key* begins; no text inside a line can look like it."""
    return b'{"key":"' + key.encode() + b'"'


def _has(part: Path, key: str) -> bool:
    start = row_start(key)
    with part.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content[: len(start)] == start or content.find(b"\n" + start) >= 0


def _repair(part: Path) -> None:
    """Cut off a last line without an end: a crash left it, and it was never acknowledged."""
    with _opened(part, os.O_RDWR) as file:
        end = os.fstat(file).st_size
        if not end or os.pread(file, 1, end - 1) == b"\n":
            return
        with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as content:
            kept = content.rfind(b"\n") + 1
        os.ftruncate(file, kept)
        os.fsync(file)


def _append(part: Path, row: bytes) -> None:
    with _opened(part, os.O_CREAT | os.O_WRONLY | os.O_APPEND) as file:
        before = os.fstat(file).st_size
        try:
            _write(file, row + b"\n")
        except OSError:
            # The next writer would do the same; this fails if the disk is worse than full.
            with suppress(OSError):
                os.ftruncate(file, before)
            raise
        try:
            os.fsync(file)
        except OSError as error:
            raise Ambiguous(f"{part.name}: written, but perhaps not on disk: {error}") from error


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _sync(path: Path) -> None:
    """Sync the content of a file, or the names in a folder."""
    with _opened(path, os.O_RDONLY) as file:
        os.fsync(file)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make(folder: Path) -> None:
    # With parents=True, mode would apply to the last folder only.
    for each in reversed((folder, *folder.parents)):
        if not each.exists():
            each.mkdir(mode=0o700, exist_ok=True)


def day_of(path: str) -> date | None:
    """Read ``2026/11/24``; None if it is no day."""
    try:
        return datetime.strptime(path, "%Y/%m/%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


@contextmanager
def _told(root: Path) -> Iterator[None]:
    """Turn errors of the system into the contract's."""
    try:
        yield
    except OSError as error:
        words = f"{root}: {error.strerror or type(error).__name__}"
        kind: type[DeliveryError] = Unauthorized if error.errno in _LASTING else Transient
        raise kind(words) from error
