"""Hints: messages which say that something may be due at a destination."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from celery import Celery
from kombu import Connection, Producer

from relay.cluster.settings import DELIVER, STALE_AFTER, declared, queue_of
from relay.every import Every

log = structlog.get_logger()

#: Seconds in which hints gather, so that several become one message.
GATHER = 0.005
#: Seconds that a broker may keep us waiting, and that it is left alone afterwards.
PATIENCE, AGAIN = 2.0, 1.0


class BrokerConnection:
    """A connection to the broker, for callers that must not wait for it long.

    It is opened when needed and closed when anything goes wrong. For one thread only.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Connection | None = None
        self._is_away = False

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    @contextmanager
    def producer(self) -> Iterator[Producer]:
        """Open a channel and yield its producer. Raises whatever the transport raises."""
        try:
            if self._connection is None:
                self._connection = _connected(self._app)
            with self._connection.channel() as channel:
                yield Producer(channel, auto_declare=False)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.release()

    def note(self, error: Exception | None) -> None:
        """Log once that the broker is away (*error*), or back (None)."""
        if error is not None and not self._is_away:
            log.warning("broker.unavailable", error=f"{type(error).__name__}: {error}")
        if error is None and self._is_away:
            log.info("broker.available")
        self._is_away = error is not None


class Hints:
    """Sends hints from a thread of its own, within milliseconds.

    *concurrency*: how many deliveries each destination takes at one time; no more hints than that
    wait for it. Hints are dropped while the broker is away; a sweep gives them again.
    """

    def __init__(self, app: Celery, concurrency: Mapping[str, int]) -> None:
        self._app = app
        self._concurrency = concurrency
        self._broker = BrokerConnection(app)
        self._counts: Counter[str] = Counter()
        self._guard = threading.Lock()
        # It starts with the first hint: a thread that is made before a fork is not there after it.
        self._loop = Every("hints", math.inf, self._give)

    def give(self, counts: Mapping[str, int]) -> None:
        """Tell workers soon that so many deliveries may be due at each destination."""
        with self._guard:
            self._counts.update(counts)
        self._loop.wake()

    def close(self) -> None:
        """Send what has gathered, unless the broker keeps us waiting."""
        ends_at = time.monotonic() + PATIENCE
        while self._counts and time.monotonic() < ends_at:
            time.sleep(GATHER)
        if self._loop.close(max(ends_at - time.monotonic(), 0.0)):
            self._broker.close()

    def _give(self) -> None:
        self._loop.pause(GATHER)
        with self._guard:
            counts, self._counts = self._counts, Counter()
        if counts:
            self._send(counts)

    def _send(self, counts: Mapping[str, int]) -> None:
        was_open = self._broker.is_open
        try:
            try:
                self._publish(counts)
            except Exception:
                if not was_open:
                    raise
                # An idle connection may have been closed by the other end: open a new one, once.
                self._publish(counts)
        except Exception as error:  # each transport has errors of its own
            self._broker.note(error)
            self._loop.pause(AGAIN)
        else:
            self._broker.note(None)

    def _publish(self, counts: Mapping[str, int]) -> None:
        with self._broker.producer() as producer:
            for name, count in counts.items():
                queue = queue_of(name)
                room = self._concurrency[name] - waiting(producer.channel, queue)
                for _ in range(min(count, room)):
                    self._app.send_task(
                        DELIVER,
                        (name,),
                        producer=producer,
                        queue=queue,
                        expires=STALE_AFTER,
                        retry=False,
                        ignore_result=True,
                    )


def waiting(channel: Any, queue: str) -> int:
    """Return how many messages wait in *queue*; declare it if it does not exist."""
    found: int = declared(queue)(channel).queue_declare().message_count
    return found


def _connected(app: Celery) -> Connection:
    """Connect to the broker, with a time limit on everything done over that connection."""
    connection = app.connection_for_write(connect_timeout=PATIENCE, heartbeat=0)
    limits = ("socket_timeout", "socket_connect_timeout")
    if connection.transport.driver_type == "amqp":
        limits = ("read_timeout", "write_timeout")
    connection.transport_options = {
        **connection.transport_options,
        **dict.fromkeys(limits, PATIENCE),
    }
    connection.connect()
    return connection
