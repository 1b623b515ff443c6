"""A POST as no well-behaved client sends it: in pieces, slowly, cut short."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from sender.deadline import Deadline
from sender.delivery import MAX_ANSWER, Answer, check_url, explain, shown
from sender.errors import SenderError
from sender.trust import Trust

#: What sending raises when the other side has closed.
_CLOSED = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class _Connection(Deadline, http.client.HTTPConnection):
    pass


class _TLSConnection(Deadline, http.client.HTTPSConnection):
    pass


class Wire:
    """One connection for one POST; errors of the other side are :class:`SenderError`."""

    def __init__(self, url: str, *, timeout: float, trust: Trust) -> None:
        check_url(url)
        self._url = url
        self._timeout = timeout
        parts = urlsplit(url)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host, port = parts.hostname or "", parts.port
        self._connection: Any = (
            _TLSConnection(host, port, timeout=timeout, context=trust.context())
            if parts.scheme == "https"
            else _Connection(host, port, timeout=timeout)
        )
        self._started = time.monotonic()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, headers: Mapping[str, str]) -> None:
        """Connect and send the request line and *headers*."""
        with self._explained():
            self._started = time.monotonic()
            self._connection.putrequest("POST", self._path, skip_accept_encoding=True)
            for name, value in headers.items():
                self._connection.putheader(name, value)
            self._connection.endheaders()

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send *pieces* as they come; a receiver that has answered already may close."""
        for piece in pieces:
            try:
                self._connection.send(piece)
            except _CLOSED:
                return
            except OSError as error:
                raise self._error(error) from error

    def answer(self) -> Answer:
        """Read what the receiver answers."""
        with self._explained():
            response = self._connection.getresponse()
            content: bytes = response.read(MAX_ANSWER)
        return Answer(
            status=response.status,
            duration=timedelta(seconds=time.monotonic() - self._started),
            text=content.decode("utf-8", "replace"),
            headers=dict(response.getheaders()),
        )

    def close(self) -> None:
        """Hang up, whatever is still to come."""
        self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> SenderError:
        return SenderError(f"{shown(self._url)}: {explain(error, timeout=self._timeout)}")


def chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Frame *pieces* as ``Transfer-Encoding: chunked``."""
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"
