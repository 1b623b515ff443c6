"""An archive anywhere that fsspec reaches: object stores, without appending and without locks.

Each event is an object of its own, named by its key. Writing it again writes the same object: no
row comes twice, no line is cut off, and no writer waits for another.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from contextlib import contextmanager
from datetime import date
from typing import Any

import fsspec

from connectors.archive.folder import ROLLED, day_of
from connectors.base import Ambiguous, Transient, Unauthorized

#: Seconds that a check waits for a store.
CHECK = 25.0

_LINES = re.compile(r"(\d{4}/\d{2}/\d{2})/([^/]+\.jsonl)")


class Objects:
    """The objects below *url*, by fsspec with the options *storage*; shared by threads."""

    def __init__(self, url: str, *, storage: Mapping[str, Any], threads: int) -> None:
        # Cached listings miss what other machines write.
        self._fs, self._root = fsspec.core.url_to_fs(
            url, **{"use_listings_cache": False, **storage}
        )
        self.root = url
        # fsspec has no deadline, but waiting for a future has.
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="archive")

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
        """Write *row* as the object of *key*, unless it was rolled, and return its name.

        Raises :class:`DeliveryError`.
        """

        def write() -> str:
            if repeat and (rolled := self.rolled(day)) and is_rolled(rolled):
                return self._relative(day, ROLLED)
            path = self._path(day, f"{key}.jsonl")
            self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
            self._fs.pipe_file(path, row + b"\n")
            return self._relative(day, f"{key}.jsonl")

        with self.alone():
            return self._pool.submit(write).result(deadline)

    def check(self) -> str:
        """Say whether the store answers; raises :class:`DeliveryError`."""
        with self.alone():
            found = self._pool.submit(self._fs.exists, self._root).result(CHECK)
        return f"{self.root}: {'there' if found else 'answers; nothing is there yet'}"

    def close(self) -> None:
        """Stop without waiting for running calls."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def days(self) -> list[date]:
        """Return the days that have lines, the oldest first."""
        return sorted({day for day, _, _ in self._objects()})

    def lines(self, day: date) -> list[tuple[str, bytes]]:
        """Return the objects of a day by name."""
        names = sorted((name, path) for of, name, path in self._objects(day) if of == day)
        return [(name, self._fs.cat_file(path)) for name, path in names]

    def rolled(self, day: date) -> bytes | None:
        """Return the Parquet file of a day, if there is one."""
        try:
            content: bytes = self._fs.cat_file(self._path(day, ROLLED))
        except FileNotFoundError:
            return None
        return content

    def put_rolled(self, day: date, content: bytes) -> None:
        """Write the Parquet file of a day."""
        self._fs.pipe_file(self._path(day, ROLLED), content)

    def remove(self, day: date, names: list[str]) -> None:
        """Remove objects that were rolled."""
        for name in names:
            self._fs.rm_file(self._path(day, name))

    def _objects(self, day: date | None = None) -> list[tuple[date, str, str]]:
        below = f"{self._root}/{day:%Y/%m/%d}" if day else self._root
        found = []
        for path in self._fs.find(below):
            match = _LINES.fullmatch(posixpath.relpath(path, self._root))
            if match and (of := day_of(match[1])):
                found.append((of, match[2], path))
        return found

    def _path(self, day: date, name: str) -> str:
        return f"{self._root}/{self._relative(day, name)}"

    def _relative(self, day: date, name: str) -> str:
        return f"{day:%Y/%m/%d}/{name}"

    @contextmanager
    def alone(self, ends_at: float = 0.0) -> Iterator[None]:
        """Turn errors of stores into the contract's; other writers may go on.

        Writing again writes the same object, so a doubt does no harm.
        """
        try:
            yield
        except LateError as error:
            raise Ambiguous(f"{self.root}: no answer in time") from error
        except PermissionError as error:
            raise Unauthorized(f"{self.root}: not permitted") from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Unauthorized(f"{self.root}: not found: is its name right?") from error
        except OSError as error:
            raise Transient(f"{self.root}: {type(error).__name__}") from error
