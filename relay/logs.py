"""Log lines: JSON for machines, one fact each, to standard error."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

from relay import jsontext

#: Foreign loggers whose DEBUG and INFO lines hold bodies and addresses.
NOISY = ("urllib3", "hubspot", "zenpy", "alembic", "werkzeug")

#: Seconds for which lines are gathered before they are written.
GATHER = 0.05

Fields = MutableMapping[str, Any]

_sinks: list[_Sink] = []


def configure(*, level: int = logging.INFO) -> None:
    """Send our lines to standard error as JSON, and keep foreign loggers quiet."""
    sink = _Sink(sys.stderr)
    _sinks[:] = [sink]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _hand_over,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=True,
    )
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def flush() -> None:
    """Write what has gathered: before a process ends without ceremony."""
    for sink in _sinks:
        sink.flush()


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


class _Sink:
    """Renders and writes lines in a thread of its own, many at once.

    A line that is rendered and written by the thread that has something to say costs a request a
    fifth of its time: a write lets go of the interpreter, and dozens of threads queue up for it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: deque[tuple[float, Fields]] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        atexit.register(self.flush)
        # Threads do not survive a fork; the child starts its own at its first line.
        os.register_at_fork(after_in_child=self._forget)

    def msg(self, fields: Fields) -> None:
        """Have a line with *fields* written soon."""
        self._lines.append((time.time(), fields))
        if not self._wake.is_set():
            self._wake.set()
        if self._thread is None:
            self._start()

    debug = info = warning = error = exception = critical = msg

    def flush(self) -> None:
        """Write what has gathered."""
        lines = []
        # The thread and somebody who is in a hurry may both be at it.
        with suppress(IndexError):
            while True:
                lines.append(_rendered(*self._lines.popleft()))
        self._stream.write("".join(lines))
        self._stream.flush()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def _forget(self) -> None:
        self._thread = None
        self._lines.clear()
        self._wake = threading.Event()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(GATHER)
            self._wake.clear()
            self.flush()


def _hand_over(_: object, __: str, fields: Fields) -> tuple[tuple[Fields], dict[str, Any]]:
    return (fields,), {}


def _rendered(at: float, fields: Fields) -> str:
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return jsontext.dumps({"timestamp": moment, **fields}) + "\n"
