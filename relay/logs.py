"""Log lines: JSON for machines, one fact each, to standard error."""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from typing import TextIO

import structlog

#: Foreign loggers whose DEBUG and INFO lines hold bodies and addresses.
NOISY = ("urllib3", "hubspot", "zenpy", "alembic", "werkzeug")


#: Seconds for which lines are gathered.
GATHER = 0.05


class _Sink:
    """What structlog logs to: writes lines from a thread of its own, many at once.

    A write lets go of the interpreter, and under load every thread that does so queues up for it
    again: that cost more than everything else that a request does.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: deque[str] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        atexit.register(self.flush)
        # Threads do not survive a fork; the child starts its own at its first line.
        os.register_at_fork(after_in_child=self._forget)

    def msg(self, line: str) -> None:
        """Have *line* written soon."""
        self._lines.append(line + "\n")
        if self._thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()

    debug = info = warning = error = exception = critical = msg

    def flush(self) -> None:
        """Write what has gathered."""
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
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


def configure(*, level: int = logging.INFO) -> None:
    """Send our lines to standard error as JSON, and keep foreign loggers quiet."""
    sink = _Sink(sys.stderr)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_in_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=True,
    )
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


_ENCODER = json.JSONEncoder(default=str, ensure_ascii=False)


def _in_json(fields: dict[str, object], **_: object) -> str:
    return _ENCODER.encode(fields)


def mask(number: str | None) -> str | None:
    """Hide the middle of a phone number: ``+61400000000`` becomes ``+614…000``."""
    if number is None or len(number) < 8:
        return number and "…"
    return f"{number[:4]}…{number[-3:]}"
