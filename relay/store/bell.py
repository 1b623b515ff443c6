"""A bell between nodes: whoever accepts rings it, and workers who wait look for work at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import sqlalchemy as sa

from relay.store import postgres

CHANNEL = "gofax_work"
#: Seconds between looks whether to stop, and before a connection that broke is made again.
LOOK, AGAIN = 1.0, 2.0


class Notifier:
    """Tells the workers of all nodes that something is due, after the commit that made it so.

    Not in it: a commit that notifies holds a lock of the whole server until it is on disk, and
    nodes would wait for each other. What is not heard is found by looking, a moment later.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._wanted = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()

    def ring(self) -> None:
        """Have it told, soon; several callers share one notification."""
        self._wanted.set()
        if self._thread is None:
            with self._guard:
                if self._thread is None and not self._closed:
                    self._thread = threading.Thread(target=self._run, daemon=True, name="ring")
                    self._thread.start()

    def close(self) -> None:
        with self._guard:
            self._closed = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while self._wanted.wait() and not self._closed:
            self._wanted.clear()
            try:
                self._notify()
            except (sa.exc.SQLAlchemyError, postgres.Error):
                # The workers look by themselves too.
                continue

    def _notify(self) -> None:
        with closing(self._engine.raw_connection()) as connection:
            driver: Any = connection.driver_connection
            driver.execute(f"SET LOCAL synchronous_commit = off; NOTIFY {CHANNEL}")
            driver.commit()


class Listener:
    """Calls *wake* whenever the bell rings at the server of *url*; without one it never does."""

    def __init__(self, url: str | None, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if url is not None:
            self._thread = threading.Thread(
                target=self._run, args=(url,), daemon=True, name="listen"
            )
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, url: str) -> None:
        while not self._stop.is_set():
            try:
                self._listen(url)
            except postgres.Error:
                # Meanwhile the worker looks by itself.
                self._stop.wait(AGAIN)

    def _listen(self, url: str) -> None:
        with postgres.connect(url, autocommit=True) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            # For what was rung while nobody listened.
            self._wake()
            while not self._stop.is_set():
                for _ in connection.notifies(timeout=LOOK, stop_after=1):
                    self._wake()
