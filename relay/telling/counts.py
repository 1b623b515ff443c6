"""Numbers that the processes of one command count, in memory that outlives each of them.

prometheus-client has files for this, one for each process that ever ran. A full disk then kills
whoever writes to them (SIGBUS), and a full disk must not end the receiver. So this is memory.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

log = structlog.get_logger()

#: How many processes may count at the same time, and bytes that each of them has for it. Memory
#: that nobody writes to takes no room.
PAGES, PAGE = 16, 1 << 20
_NUMBER = 8
_PAGE_NUMBERS = PAGE // _NUMBER
#: Numbers at the beginning of a page: the process that counts there, and the end of what is used.
_OWNER, _END, _HEAD = 0, 1, 2
#: Numbers before each series: bytes of its name, numbers of it, whether it dies with its process.
_ENTRY = 3

#: A name, and the values of its labels.
Name = tuple[str, ...]


class Counts:
    """Memory that a parent makes and its children share: one page for each that counts.

    Whoever dies leaves its page, and the next process goes on with it, so that no number falls.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        """*descriptor*: of the memory that this process had before it executed itself anew."""
        self.descriptor = _memory_file() if descriptor is None else descriptor
        os.set_inheritable(self.descriptor, False)
        memory = mmap.mmap(self.descriptor, PAGES * PAGE)
        self._integers = memoryview(memory).cast("q")
        self._bytes = memoryview(memory)
        self._floats = memoryview(memory).cast("d")
        self._page: Page | None = None

    def page(self) -> Page:
        """Return the page of this process, the same each time."""
        if self._page is None or self._page.owner != os.getpid():
            self._page = self._free_page()
        return self._page

    def total(self) -> Mapping[Name, Sequence[float]]:
        """Return the sums over all pages."""
        total: dict[Name, list[float]] = {}
        for number in range(PAGES):
            page = self._at(number)
            for series in page.series() if page.owner else ():
                if series.is_own and not _is_alive(page.owner):
                    continue
                sums = total.setdefault(series.name, [0.0] * series.size)
                for position, value in enumerate(series.values()):
                    sums[position] += value
        return total

    def _free_page(self) -> Page:
        for number in range(PAGES):
            # Ends with this process, however it dies, and is not inherited.
            with suppress(BlockingIOError):
                fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
                page = self._at(number)
                page.take()
                return page
        log.warning("metrics.not_counted", reason=f"more than {PAGES} processes count")
        return alone()

    def _at(self, number: int) -> Page:
        part = slice(number * _PAGE_NUMBERS, (number + 1) * _PAGE_NUMBERS)
        return Page(
            self._bytes[number * PAGE : (number + 1) * PAGE],
            self._integers[part],
            self._floats[part],
        )


def alone() -> Page:
    """Return a page that no other process knows."""
    memory = memoryview(bytearray(PAGE))
    page = Page(memory, memory.cast("q"), memory.cast("d"))
    page.take()
    return page


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("gofax-relay counts")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, PAGES * PAGE)
    return descriptor


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        # Nobody's, or another user's by now.
        return False
    return True


class Page:
    """The series of one process."""

    def __init__(
        self, text: memoryview, integers: memoryview[int], floats: memoryview[float]
    ) -> None:
        self._text, self._integers, self._floats = text, integers, floats
        self._lock = threading.Lock()
        self._known: dict[Name, Series] = {}

    @property
    def owner(self) -> int:
        """The process that counts here, or did so last; 0: none ever did."""
        return self._integers[_OWNER]

    def take(self) -> None:
        """Let this process count here, on from what the one before it left."""
        self._integers[_OWNER] = os.getpid()
        self._integers[_END] = self._integers[_END] or _HEAD
        self._known = {series.name: series for series in self.series()}
        for series in self._known.values():
            if series.is_own:
                series.clear()

    def find(self, name: Name, *, size: int = 1, is_own: bool = False) -> Series:
        """Return the *size* numbers with this *name*; they are 0 before anybody counts.

        *is_own*: they say what goes on in this process, and end with it.
        """
        with self._lock:
            found = self._known.get(name)
            if found is None or found.size != size:
                found = self._known[name] = self._added(name, size=size, is_own=is_own)
        return found

    def series(self) -> Iterator[Series]:
        """Yield what is there."""
        at = _HEAD
        while at < self._integers[_END]:
            length, size, is_own = self._integers[at : at + _ENTRY].tolist()
            start = (at + _ENTRY) * _NUMBER
            name = json.loads(bytes(self._text[start : start + length]))
            at += _ENTRY + _numbers(length)
            numbers = self._floats[at : at + size]
            yield Series(tuple(name), numbers, is_own=bool(is_own), lock=self._lock)
            at += size

    def _added(self, name: Name, *, size: int, is_own: bool) -> Series:
        text = json.dumps(name).encode()
        at = self._integers[_END]
        first = at + _ENTRY + _numbers(len(text))
        if first + size > _PAGE_NUMBERS:
            log.warning("metrics.not_counted", name=name, reason="no room for more series")
            lost = memoryview(bytearray(size * _NUMBER)).cast("d")
            return Series(name, lost, is_own=is_own, lock=self._lock)
        for position, value in enumerate((len(text), size, int(is_own))):
            self._integers[at + position] = value
        start = (at + _ENTRY) * _NUMBER
        self._text[start : start + len(text)] = text
        # Last, because others read meanwhile, and we may be killed.
        self._integers[_END] = first + size
        return Series(name, self._floats[first : first + size], is_own=is_own, lock=self._lock)


def _numbers(length: int) -> int:
    """Return how many numbers take as much room as so many bytes."""
    return -(-length // _NUMBER)


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers that are counted under one name."""

    name: Name
    numbers: memoryview[float]
    is_own: bool
    lock: threading.Lock

    @property
    def size(self) -> int:
        return len(self.numbers)

    def add(self, amount: float = 1.0) -> None:
        with self.lock:
            self.numbers[0] += amount

    def observe(self, bucket: int, value: float) -> None:
        """Count *value* in its *bucket*; the last number is the sum of all values."""
        with self.lock:
            self.numbers[bucket] += 1
            self.numbers[-1] += value

    def values(self) -> Sequence[float]:
        return self.numbers.tolist()

    def clear(self) -> None:
        with self.lock:
            for position in range(self.size):
                self.numbers[position] = 0.0
