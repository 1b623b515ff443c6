"""The guarded HTTP client that connectors go out through.

A session from here keeps one deadline over connect, headers and body together, reads no more than
a cap, follows no redirect, repeats nothing by itself, ignores proxies and ``.netrc``, and reaches
private addresses (and plain http) only where ``outbound.allow`` says so. What goes wrong comes out
as the contract's own errors; the rule is exact, because the connection notes when it starts to
send: before that nothing can have happened (Transient), after it nobody knows (Ambiguous).
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, ClassVar

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager
from urllib3.util import connection as sockets

from connectors.base import (
    Ambiguous,
    DeliveryError,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Methods that change nothing, so that a lost answer leaves no doubt (RFC 9110, 9.2.1).
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: Ranges that ``ipaddress`` calls global, though no public host is there: IPv4-compatible,
#: local NAT64, site-local, Teredo (which hides an IPv4 address of the sender's choice).
NOT_PUBLIC = tuple(
    ipaddress.IPv6Network(each) for each in ("::/96", "64:ff9b:1::/48", "fec0::/10", "2001::/32")
)
FOREIGN_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError)


@dataclass(slots=True)
class _Call:
    """What the connection underneath has to know of the call that it serves."""

    #: Monotonic time at which everything must be over.
    ends_at: float
    #: True inside :meth:`Http.repeatable`.
    repeatable: bool = False
    #: True as soon as a byte of the current request may have left.
    sent: bool = False
    #: Path and query of the current request, exactly as they go out.
    target: str = "/"

    def remaining(self) -> float:
        seconds = self.ends_at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("deadline passed")
        return seconds


_call: ContextVar[_Call | None] = ContextVar("connectors.http.call", default=None)


class _Blocked(urllib3.exceptions.HTTPError):
    """The address is private, or plain http to an address that is not allowed."""


class Http:
    """Hands out guarded sessions; one per destination, shared by its threads."""

    def __init__(
        self,
        *,
        allow: Iterable[str] = (),
        default_deadline: float = 25.0,
        connect_timeout: float = 5.0,
        max_answer: int = 1 << 20,
    ) -> None:
        """*allow*: networks like ``127.0.0.0/8`` that may be reached although they are private.

        Times are in seconds, *max_answer* in bytes. Raises ValueError for what is no network.
        """
        self.allow: tuple[Network, ...] = tuple(ipaddress.ip_network(each) for each in allow)
        self.default_deadline = default_deadline
        self.connect_timeout = connect_timeout
        self.max_answer = max_answer

    def session(self, *, pool_size: int = 64) -> Session:
        """Make a session that keeps up to *pool_size* connections to each host."""
        return Session(self, pool_size=pool_size)

    @contextmanager
    def within(self, deadline: float) -> Iterator[None]:
        """Let everything inside take *deadline* seconds together."""
        token = _call.set(_Call(ends_at=time.monotonic() + deadline))
        try:
            yield
        finally:
            _call.reset(token)

    @contextmanager
    def repeatable(self) -> Iterator[None]:
        """Mark the requests inside as harmless to repeat: a lost answer is then Transient."""
        outer = _call.get()
        ends_at = outer.ends_at if outer else time.monotonic() + self.default_deadline
        token = _call.set(_Call(ends_at=ends_at, repeatable=True))
        try:
            yield
        finally:
            _call.reset(token)

    def permits(self, address: Address, *, tls: bool) -> bool:
        """Say whether a connection to *address* is allowed."""
        address = _embedded(address)
        if any(address in network for network in self.allow):
            return True
        if address.is_multicast or any(address in network for network in NOT_PUBLIC):
            return False
        return tls and address.is_global


class Session(requests.Session):
    """A ``requests.Session`` under the guard of its :class:`Http`.

    Raises the contract's errors instead of ``requests``' own; answers of any status are returned.
    """

    def __init__(self, guard: Http, *, pool_size: int) -> None:
        super().__init__()
        self.guard = guard
        # No proxies, no .netrc: both would come from the environment, past the guard.
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _GuardedAdapter(guard, pool_size=pool_size)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        try:
            return super().prepare_request(request)
        except (*FOREIGN_ERRORS, ValueError) as error:
            kind = type(error).__name__
        raise Unauthorized(f"not a usable request: {kind}")  # the cause would quote the URL

    def get_redirect_target(self, response: requests.Response) -> None:
        # Even when it follows nothing, requests would read the redirect's body without a cap.
        return None

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        call = _call.get() or _Call(ends_at=time.monotonic() + self.guard.default_deadline)
        token = _call.set(call)
        call.sent, call.target = False, request.path_url
        safe = call.repeatable or request.method in SAFE_METHODS
        outer = sys.exception()
        try:
            remaining = call.remaining()
            options |= {
                "timeout": (min(self.guard.connect_timeout, remaining), remaining),
                "allow_redirects": False,
                "stream": True,
            }
            response = super().send(request, **options)
            _read_body(response, limit=self.guard.max_answer)
            return response
        except (*FOREIGN_ERRORS, OSError, ValueError) as error:
            # No local name may hold the cause: its frames would keep the socket open in a cycle.
            raise _outcome(
                _innermost(error, outer=outer), host=_host(request), sent=call.sent, safe=safe
            ) from _presentable(_innermost(error, outer=outer))
        finally:
            _call.reset(token)


def error_for(
    status: int, *, headers: Mapping[str, str], detail: str = "", safe: bool = False
) -> DeliveryError | None:
    """Translate an HTTP answer by the rules that hold for every system; None for a 2xx.

    *safe*: the request changed nothing or may be repeated, so a 5xx leaves no doubt.
    *detail* is the vendor's own word for what was wrong; it is shown to people.
    """
    if 200 <= status < 300:
        return None
    message = f"answered {status}" + (f": {detail}" if detail else "")
    if 300 <= status < 400:
        return Unauthorized(f"{message} (a redirect, which is not followed)", status=status)
    if status in (401, 403):
        return Unauthorized(message, status=status)
    if status in (408, 425):
        return Transient(message, status=status)
    if status == 429:
        return Throttled(message, retry_after=retry_after(headers), status=status)
    if status < 500:
        return Refused(message, status=status)
    return (Transient if safe else Ambiguous)(message, status=status)


def retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> timedelta | None:
    """Read ``Retry-After``, in seconds or as a date (RFC 9110, 10.2.3); None if there is none."""
    text = next((headers[name] for name in headers if name.lower() == "retry-after"), "").strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:12]), 10**9))
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(moment - (now or datetime.now(UTC)), timedelta())


def _innermost(error: BaseException, *, outer: BaseException | None) -> BaseException:
    """Find the cause that says most; *outer*, which the caller was handling, is none of ours."""
    while True:
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if inner is None or inner is outer:
            inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _is_bad_address(cause: BaseException) -> bool:
    # A certificate that does not verify is a ValueError too.
    kinds = (ValueError, http.client.InvalidURL)
    return isinstance(cause, kinds) and not isinstance(cause, ssl.SSLError)


def _presentable(cause: BaseException) -> BaseException | None:
    """Leave out a cause that quotes the address, which may be a secret."""
    return None if _is_bad_address(cause) else cause


def _outcome(cause: BaseException, *, host: str, sent: bool, safe: bool) -> DeliveryError:
    if isinstance(cause, _Blocked):
        return Unauthorized(str(cause))
    reason = _reason(cause)
    if not sent:
        if _is_bad_address(cause):
            return Unauthorized(f"{host}: not a usable address ({reason})")
        return Transient(f"{host}: not reached: {reason}")
    if safe:
        return Transient(f"{host}: no usable answer: {reason}")
    return Ambiguous(f"{host}: sent, but no usable answer: {reason}")


def _reason(cause: BaseException) -> str:
    if isinstance(cause, TimeoutError):
        return "time-out"
    said = cause.strerror if isinstance(cause, OSError) and cause.strerror else ""
    return f"{type(cause).__name__} {said}".strip()


def _host(request: requests.PreparedRequest) -> str:
    return urllib3.util.parse_url(request.url or "").host or "(no host)"


def _read_body(response: requests.Response, *, limit: int) -> None:
    """Read the body up to *limit*; the rest is thrown away with the connection."""
    body = bytearray()
    for chunk in response.iter_content(65536):
        body += chunk
        if len(body) > limit:
            del body[limit:]
            response.close()
            break
    response._content = bytes(body)


def _embedded(address: Address) -> Address:
    """Look through IPv6 forms that carry an IPv4 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _open(connection: HTTPConnection, guard: Http, *, tls: bool) -> socket.socket:
    """Connect to the first permitted address of the host; the name is looked up once, here."""
    host = connection._dns_host.strip("[]")
    try:
        found = socket.getaddrinfo(host, connection.port, 0, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise urllib3.exceptions.NameResolutionError(
            connection.host, connection, socket.gaierror(str(error))
        ) from error
    addresses = [str(each[4][0]).partition("%")[0] for each in found]
    permitted = [each for each in addresses if guard.permits(ipaddress.ip_address(each), tls=tls)]
    if not permitted:
        rule = "is not in outbound.allow"
        kind = "a private address" if tls else "plain http, or a private address,"
        raise _Blocked(f"{connection.host} ({addresses[0]}): {kind} that {rule}")
    failure: OSError | None = None
    for address in permitted:
        try:
            return sockets.create_connection(
                (address, connection.port),
                _patience(guard),
                socket_options=connection.socket_options,
            )
        except OSError as error:
            failure = error
    assert failure is not None
    raise failure


def _patience(guard: Http) -> float:
    call = _call.get()
    return min(guard.connect_timeout, call.remaining()) if call else guard.connect_timeout


class _DeadlineReader(io.RawIOBase):
    """Reads a socket; each wait is bounded by what is left of the whole call."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        call = _call.get()
        if call is not None:
            self._sock.settimeout(call.remaining())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_DeadlineReader(sock))


class _GuardedConnection(HTTPConnection):
    """What both kinds of connection add: the guard, the deadline, and the note that bytes left."""

    guard: Http
    tls: ClassVar[bool] = False
    response_class = _DeadlineResponse

    def _new_conn(self) -> socket.socket:
        return _open(self, self.guard, tls=self.tls)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        call = _call.get()
        if call is not None:
            self.sock.settimeout(call.remaining())
            call.sent = True
        super().send(data)

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        call = _call.get()
        super().putrequest(method, call.target if call else url, *args, **kwargs)


class _GuardedTLSConnection(_GuardedConnection, HTTPSConnection):
    tls = True


class _GuardedPool(HTTPConnectionPool):
    ConnectionCls = _GuardedConnection
    guard: Http

    def _new_conn(self) -> Any:
        connection = super()._new_conn()
        connection.guard = self.guard  # type: ignore[attr-defined]  # ConnectionCls is ours
        return connection


class _GuardedTLSPool(_GuardedPool, HTTPSConnectionPool):
    ConnectionCls = _GuardedTLSConnection


class _GuardedPoolManager(PoolManager):
    def __init__(self, guard: Http, **options: Any) -> None:
        super().__init__(**options)
        self.guard = guard
        self.pool_classes_by_scheme = {"http": _GuardedPool, "https": _GuardedTLSPool}

    def _new_pool(self, *args: Any, **kwargs: Any) -> Any:
        pool = super()._new_pool(*args, **kwargs)
        pool.guard = self.guard  # type: ignore[attr-defined]  # the pool classes are ours
        return pool


class _GuardedAdapter(HTTPAdapter):
    def __init__(self, guard: Http, *, pool_size: int) -> None:
        self.guard = guard
        retry = urllib3.Retry(total=0, read=False)
        super().__init__(pool_maxsize=pool_size, max_retries=retry)

    def request_url(self, request: requests.PreparedRequest, proxies: object) -> str:
        # urllib3 writes this into its log and its errors, and normalises it; but the target may
        # be a secret or part of a signature, so the connection takes the real one from the call.
        return "/"

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **options: Any
    ) -> None:
        self.poolmanager = _GuardedPoolManager(
            self.guard, num_pools=connections, maxsize=maxsize, block=block, **options
        )
