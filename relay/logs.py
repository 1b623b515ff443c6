"""Log lines: one fact each, to standard error, JSON for machines, and never in anybody's way.

Lines go through a bounded queue (the standard library's ``QueueHandler``) to a thread that writes
them. A reader that stops, or a full disk, costs lines, which are counted, and no request's time.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import Any, TextIO

import structlog

from relay.rules import jsontext, text

#: Foreign loggers whose DEBUG and INFO lines hold bodies and addresses.
NOISY = ("urllib3", "hubspot", "zenpy", "alembic", "werkzeug")

#: Lines that wait for the writer; more are counted and dropped.
WAITING = 10_000
#: Seconds for which lines are gathered before they are written, and how many go at once.
GATHER, TOGETHER = 0.05, 256
#: Characters of the longest line, and of the longest value in one that had to be shortened.
LONGEST_LINE, LONGEST_VALUE = 8192, 512
#: Seconds that a process waits at its end for the writer.
LONGEST_FLUSH = 1.0

Fields = MutableMapping[str, Any]
#: Writes the line of a fact, and of the seconds since the epoch at which it was said.
Render = Callable[[float, Fields], str]

#: What a line for people says first, without the names.
LEADING = {
    "endpoint.served": ("url", "guard"),
    "request.received": ("endpoint", "status", "outcome", "reason", "event_id"),
    "delivery.attempted": ("destination", "outcome", "detail", "event_id"),
}
#: Fields that quote what senders, destinations and libraries said, who may name a number.
WORDED = frozenset({"detail", "reason", "error", "exception", "said"})
#: What only machines need.
_FOR_MACHINES = frozenset(
    {"event", "level", "exception", "request_id", "delivery_id", "attempt_id"}
)

_outputs: list[_Output] = []


def configure(
    *, level: int = logging.INFO, as_text: bool | None = None, is_final: bool = True
) -> None:
    """Send our lines to standard error, and keep foreign loggers quiet.

    *as_text*: for people instead of machines; without it, if standard error is a terminal.
    *is_final*: whether this holds for the life of the process, so that loggers may remember it.
    """
    is_text = sys.stderr.isatty() if as_text is None else as_text
    output = _Output(sys.stderr, in_words if is_text else in_json)
    _outputs[:] = [output]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _hand_over,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=is_final,
    )
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def flush() -> None:
    """Write what has gathered, for at most :data:`LONGEST_FLUSH`, before a process ends."""
    for output in _outputs:
        output.flush()


def adopt(*names: str, level: int) -> None:
    """Write what foreign loggers say from *level* on as lines of ours."""
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = [_Adopted()]
        logger.propagate = False
        logger.setLevel(level)


class _Adopted(logging.Handler):
    """Hands records of the standard library's logging over."""

    def emit(self, record: logging.LogRecord) -> None:
        say = structlog.get_logger().bind(logger=record.name, said=record.getMessage())
        if record.exc_info and record.levelno >= logging.ERROR:
            say = say.bind(exc_info=record.exc_info)
        say.log(record.levelno, "log")


class _Output:
    """structlog's way to a stream: a bounded queue, and a listener of its own after each fork."""

    def __init__(self, stream: TextIO, render: Render) -> None:
        self._stream, self._render = stream, render
        self._guard = threading.Lock()
        self._open()
        atexit.register(self.flush)
        # Threads do not survive a fork; the child starts its own at its first line.
        os.register_at_fork(after_in_child=self._open)

    def msg(self, fields: Fields) -> None:
        """Have a line with *fields* written soon."""
        if not self._started:
            self._start()
        self._handler.enqueue(_Line(time.time(), fields))

    debug = info = warning = error = exception = critical = msg

    def flush(self) -> None:
        """Wait until everything is written, a second at most: the reader may have stopped."""
        if self._started:
            done = threading.Event()
            self._handler.waiting.put_nowait(_Line(time.time(), done))
            done.wait(LONGEST_FLUSH)

    def _open(self) -> None:
        self._started = False
        self._handler = _Bounded()

    def _start(self) -> None:
        with self._guard:
            if not self._started:
                _Writer(self._handler, self._stream, self._render).start()
                self._started = True


class _Line(logging.LogRecord):
    """A record without all that logging finds out about process, thread and caller."""

    def __init__(self, at: float, said: Fields | threading.Event) -> None:
        self.created = at
        self.said = said


class _Bounded(QueueHandler):
    """Puts records into a queue that takes so many, and counts the others."""

    def __init__(self) -> None:
        self.waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        super().__init__(self.waiting)
        #: Lines that were dropped, and not yet reported.
        self.dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        if self.waiting.qsize() >= WAITING:
            self.dropped += 1
            return
        self.waiting.put_nowait(record)


class _Writer(QueueListener):
    """Lets lines gather, and writes them together.

    A write lets go of the interpreter, and dozens of threads queue up for it: line by line it cost
    a request a fifth of its time. A write that fails (a full disk, a reader that went away) loses
    its lines, and the next is tried all the same.
    """

    def __init__(self, source: _Bounded, stream: TextIO, render: Render) -> None:
        # No handler of logging's: at its end the interpreter waits for the lock of each.
        super().__init__(source.waiting)
        self._source = source
        self._stream, self._render = stream, render
        self._lines: list[str] = []
        #: Whether the last write ended inside a line.
        self._is_torn = False

    def dequeue(self, block: bool) -> logging.LogRecord:
        try:
            return self._source.waiting.get_nowait()
        except queue.Empty:
            self._flush()
        record = self._source.waiting.get(block)
        time.sleep(GATHER)
        return record

    def handle(self, record: logging.LogRecord) -> None:
        said = record.said  # type: ignore[attr-defined]  # only lines of ours are put in
        if isinstance(said, threading.Event):
            self._flush()
            said.set()
            return
        self._lines.append(self._render(record.created, said))
        if len(self._lines) >= TOGETHER:
            self._flush()

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            return
        dropped, self._source.dropped = self._source.dropped, 0
        if dropped:
            said = {"event": "log.dropped", "count": dropped, "level": "warning"}
            lines.append(self._render(time.time(), said))
        joined = "".join(lines).encode()
        written = self._write(joined)
        lost = len(lines) - joined[:written].count(b"\n")
        if lost > 0:
            # The last line is the report, if there is one.
            self._source.dropped += dropped + lost - bool(dropped)

    def _write(self, lines: bytes) -> int:
        """Return how many bytes of *lines* were written, on a line of their own."""
        if self._is_torn and _write(self._stream, b"\n") == 0:
            return 0
        written = _write(self._stream, lines)
        self._is_torn = written > 0 and lines[written - 1] != ord("\n")
        return written


def _write(stream: TextIO, lines: bytes) -> int:
    """Write past the stream's buffer, which keeps what could not be written for ever.

    Returns how many bytes were written before the first error.
    """
    try:
        file = stream.fileno()
    except io.UnsupportedOperation:
        stream.write(lines.decode())
        stream.flush()
        return len(lines)
    left = memoryview(lines)
    with suppress(OSError):
        while left:
            left = left[os.write(file, left) :]
    return len(lines) - len(left)


def _hand_over(_: object, __: str, fields: Fields) -> tuple[tuple[Fields], dict[str, Any]]:
    return (fields,), {}


def in_json(at: float, fields: Fields) -> str:
    """Write a line for machines."""
    fields = _masked(fields)
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    line = jsontext.printable({"timestamp": moment, **fields})
    if len(line) > LONGEST_LINE:
        short = {name: _shortened(value) for name, value in fields.items()}
        line = jsontext.printable({"timestamp": moment, **short})[:LONGEST_LINE]
    return line + "\n"


def in_words(at: float, fields: Fields) -> str:
    """Write a line for people: the time, what happened, and then what is named with its name.

    A stack trace follows on lines of its own.
    """
    fields = _masked(fields)
    now = datetime.fromtimestamp(at, UTC)
    name, level = str(fields.get("event")), fields.get("level", "info")
    words = [f"{now:%H:%M:%SZ}", *([] if level == "info" else [level.upper()]), name]
    leading = LEADING.get(name, ())
    words += [_said(fields[key], now) for key in leading if fields.get(key) not in (None, "")]
    words += [
        f"{key}={_said(value, now)}"
        for key, value in fields.items()
        if value not in (None, fields.get("outcome"))
        and key not in _FOR_MACHINES
        and key not in leading
    ]
    trace = [f"    {line}" for line in str(fields.get("exception", "")).splitlines()]
    return "".join(f"{jsontext.plain(line)}\n" for line in ["  ".join(words), *trace])


def _masked(fields: Fields) -> Fields:
    """Mask phone numbers in what others worded."""
    return {
        name: text.without_numbers(value) if name in WORDED and isinstance(value, str) else value
        for name, value in fields.items()
    }


def _said(value: Any, now: datetime) -> str:
    """Write a value; a time as short as it is clear on *now*'s day."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return str(_shortened(value))
    return moment.strftime("%H:%M:%SZ" if moment.date() == now.date() else "%m-%d %H:%M:%SZ")


def _shortened(value: Any) -> Any:
    written = value if isinstance(value, str) else jsontext.dumps(value)
    return value if len(written) <= LONGEST_VALUE else f"{written[:LONGEST_VALUE]}…"
