"""A bell between nodes: whoever accepts rings it, and workers who wait look for work at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from relay.every import Every
from relay.store import postgres

if TYPE_CHECKING:
    import psycopg

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
        self._loop = Every("notify", math.inf, self._notify)

    def ring(self) -> None:
        """Have it told, soon; several callers share one notification."""
        self._loop.wake()

    def close(self) -> None:
        self._loop.close()

    def _notify(self) -> None:
        # Workers look for work by themselves too.
        with (
            suppress(sa.exc.SQLAlchemyError, postgres.Error),
            closing(self._engine.raw_connection()) as connection,
        ):
            driver: Any = connection.driver_connection
            driver.execute(f"SET LOCAL synchronous_commit = off; NOTIFY {CHANNEL}")
            driver.commit()


class Listener:
    """Calls *wake* whenever the bell rings at the server of *url*; without one it never does."""

    def __init__(self, url: str | None, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._connection: psycopg.Connection[Any] | None = None
        self._loop = Every("listen", 0.0, lambda: self._listen(url or ""))
        if url is not None:
            self._loop.start()

    def close(self) -> None:
        self._loop.close()
        self._hang_up()

    def _listen(self, url: str) -> None:
        """Listen for a moment."""
        try:
            if self._connection is None:
                self._connection = postgres.connect(url, autocommit=True)
                self._connection.execute(f"LISTEN {CHANNEL}")
                # For what was rung while nobody listened.
                self._wake()
            for _ in self._connection.notifies(timeout=LOOK, stop_after=1):
                self._wake()
        except postgres.Error:
            # Meanwhile the worker looks by itself.
            self._hang_up()
            self._loop.pause(AGAIN)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
