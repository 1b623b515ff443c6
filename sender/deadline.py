"""A transport with one deadline for connecting, sending, headers and body together.

``requests`` bounds each wait by itself: a receiver that sends a byte a second could hold it for
ever. The transport also reads past interim answers (1xx), which ``http.client`` takes for final.
"""

from __future__ import annotations

import io
import socket
import time
from functools import partial
from http.client import SWITCHING_PROTOCOLS, HTTPResponse, parse_headers
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class DeadlineAdapter(HTTPAdapter):
    """Gives each connection its connect time-out as the time for everything."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


class _Reader(io.RawIOBase):
    """Reads a socket, and bounds each wait by what is left."""

    def __init__(self, sock: socket.socket, *, ends_at: float) -> None:
        self._sock = sock
        self._ends_at = ends_at
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_remaining(self._ends_at))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, ends_at: float, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Reader(sock, ends_at=ends_at))

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        while 100 <= status < 200 and status != SWITCHING_PROTOCOLS:
            parse_headers(self.fp)
            version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, status, reason


class Deadline:
    """A mix-in for a connection of ``http.client``: its time-out bounds everything together."""

    _ends_at: float

    # The class below in the order of resolution has these.
    timeout: Any
    sock: Any
    response_class: Any

    def connect(self) -> None:
        self._ends_at = time.monotonic() + (self.timeout or 0)
        # http.client only calls it, so a class is not needed.
        self.response_class = partial(_Response, ends_at=self._ends_at)
        super().connect()  # type: ignore[misc]

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(_remaining(self._ends_at))
        super().send(data)  # type: ignore[misc]


class _Connection(Deadline, HTTPConnection):
    pass


class _TLSConnection(Deadline, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection

    def _validate_conn(self, conn: Any) -> None:
        # urllib3 would also warn of each unverified connection, which the user asked for.
        if conn.is_closed:
            conn.connect()


def _remaining(ends_at: float) -> float:
    seconds = ends_at - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("deadline passed")
    return seconds
