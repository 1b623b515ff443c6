"""The connections underneath :mod:`connectors.http`.

Addresses are checked at the moment of connecting, so no later look-up can change them; every wait
is bounded by the time left for the whole call; and the call records when its first byte leaves and
which status comes back.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import time
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager
from urllib3.util import connection as sockets

#: Bytes of a body that goes out with its head; a longer one would be copied for that.
SHORT = 1 << 16
#: Seconds by which a wait may miss the time left for a call.
EXACT = 0.05

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: Ranges that ``ipaddress`` calls global, though no public host is there: IPv4-compatible,
#: local NAT64, site-local, Teredo (which hides an IPv4 address of the sender's choice).
NOT_PUBLIC = tuple(
    ipaddress.IPv6Network(each) for each in ("::/96", "64:ff9b:1::/48", "fec0::/10", "2001::/32")
)


@dataclass(slots=True)
class Call:
    """The state that a connection shares with the call it serves."""

    #: Monotonic deadline of the whole call.
    ends_at: float
    #: True inside :meth:`Http.repeatable`.
    repeatable: bool = False
    #: True as soon as a byte of the current request may have left.
    sent: bool = False
    #: Path and query of the current request, exactly as they go out.
    target: str = "/"
    #: Status of the current answer, as soon as its line was read.
    status: int | None = None

    def remaining(self) -> float:
        seconds = self.ends_at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("deadline passed")
        return seconds


current: ContextVar[Call | None] = ContextVar("connectors.http.call", default=None)


class Blocked(urllib3.exceptions.HTTPError):
    """The address is private, or plain http to an address that is not allowed."""


class Addresses:
    """The addresses that may be reached: public ones over TLS, and those in *allow*."""

    def __init__(self, allow: Iterable[str] = ()) -> None:
        """*allow*: networks such as ``127.0.0.0/8``. Raises ValueError for anything else."""
        self.allow: tuple[Network, ...] = tuple(ipaddress.ip_network(each) for each in allow)

    def permits(self, address: Address, *, tls: bool) -> bool:
        """Say whether a connection to *address* is allowed."""
        address = _embedded(address)
        if any(address in network for network in self.allow):
            return True
        if address.is_multicast or any(address in network for network in NOT_PUBLIC):
            return False
        return tls and address.is_global


def _embedded(address: Address) -> Address:
    """Look through IPv6 forms that carry an IPv4 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def connect(
    host: str,
    port: int,
    *,
    addresses: Addresses,
    tls: bool,
    timeout: float,
    socket_options: Any = None,
) -> socket.socket:
    """Connect to the first permitted address of *host*; the name is looked up once, here.

    Each address gets *timeout* seconds, and no more than the time left for the whole call.
    Raises :class:`Blocked`, gaierror if there is no such host, and OSError.
    """
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(str(error)) from error
    resolved = [str(each[4][0]).partition("%")[0] for each in found]
    permitted = [
        each for each in resolved if addresses.permits(ipaddress.ip_address(each), tls=tls)
    ]
    if not permitted:
        rule = "is not in outbound.allow"
        kind = "a private address" if tls else "no TLS, or a private address,"
        raise Blocked(f"{host} ({resolved[0]}): {kind} that {rule}")
    failure: OSError | None = None
    for address in permitted:
        try:
            return sockets.create_connection(
                (address, port), _patience(timeout), socket_options=socket_options
            )
        except OSError as error:
            failure = error
    assert failure is not None
    raise failure


def _open(connection: HTTPConnection, addresses: Addresses, *, tls: bool) -> socket.socket:
    allowed = connection.timeout
    assert isinstance(allowed, (int, float))
    try:
        return connect(
            connection._dns_host.strip("[]"),
            connection.port,
            addresses=addresses,
            tls=tls,
            timeout=allowed,
            socket_options=connection.socket_options,
        )
    except socket.gaierror as error:
        raise urllib3.exceptions.NameResolutionError(connection.host, connection, error) from error


def _patience(allowed: float) -> float:
    """Return the seconds that connecting may take."""
    call = current.get()
    return min(allowed, call.remaining()) if call else allowed


def _bound(sock: socket.socket, call: Call) -> None:
    """Let *sock* wait no longer than for the time left, exactly enough.

    To set it is a call of the system, at which other threads take the interpreter.
    """
    remaining, now = call.remaining(), sock.gettimeout()
    if now is None or abs(now - remaining) > EXACT:
        sock.settimeout(remaining)


class DeadlineReader(io.RawIOBase):
    """Reads a socket; each wait is bounded by the time left for the whole call."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        call = current.get()
        if call is not None:
            _bound(self._sock, call)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Readable:
    """What an answer needs of its socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(DeadlineReader(self._sock))


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(_Readable(sock), *args, **kwargs)  # type: ignore[arg-type]

    def begin(self) -> None:
        super().begin()
        if self.status == http.client.SWITCHING_PROTOCOLS:
            # We asked for no other protocol: what comes next here is no answer to us.
            self.will_close = True

    def _read_status(self) -> tuple[str, int, str]:
        """Read the status line that counts; an interim answer (RFC 9110, 15.2) is none."""
        version, status, reason = super()._read_status()  # type: ignore[misc]  # not in typeshed
        while 100 <= status < 200 and status != http.client.SWITCHING_PROTOCOLS:
            http.client.parse_headers(self.fp)
            version, status, reason = super()._read_status()  # type: ignore[misc]
        if call := current.get():
            call.status = status
        return version, status, reason


class _GuardedConnection(HTTPConnection):
    """The common part of both connections: guard, deadline, and the note that bytes have left."""

    addresses: Addresses
    tls: ClassVar[bool] = False
    response_class = _DeadlineResponse
    #: The body, until the head is sent.
    _body = b""

    def _new_conn(self) -> socket.socket:
        return _open(self, self.addresses, tls=self.tls)

    def request(self, method: str, url: str, body: Any = None, *args: Any, **options: Any) -> None:
        """Send a short body with its head: each is a write for which other threads wait."""
        self._body = body if isinstance(body, bytes) and len(body) <= SHORT else b""
        super().request(method, url, None if self._body else body, *args, **options)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        call = current.get()
        if call is not None:
            _bound(self.sock, call)
            call.sent = True
        if self._body:
            data, self._body = data + self._body, b""
        super().send(data)

    def putheader(self, header: Any, *values: Any) -> None:
        # urllib3 compares each value with a mark that only its own callers pass.
        http.client.HTTPConnection.putheader(self, header, *values)

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        call = current.get()
        super().putrequest(method, call.target if call else url, *args, **kwargs)


class _GuardedTLSConnection(_GuardedConnection, HTTPSConnection):
    tls = True


class _GuardedPool(HTTPConnectionPool):
    ConnectionCls = _GuardedConnection
    addresses: Addresses

    def _new_conn(self) -> Any:
        connection = super()._new_conn()
        connection.addresses = self.addresses  # type: ignore[attr-defined]  # ConnectionCls is ours
        return connection


class _GuardedTLSPool(_GuardedPool, HTTPSConnectionPool):
    ConnectionCls = _GuardedTLSConnection


class _GuardedPoolManager(PoolManager):
    def __init__(self, addresses: Addresses, **options: Any) -> None:
        super().__init__(**options)
        self.addresses = addresses
        self.pool_classes_by_scheme = {"http": _GuardedPool, "https": _GuardedTLSPool}

    def _new_pool(self, *args: Any, **kwargs: Any) -> Any:
        pool = super()._new_pool(*args, **kwargs)
        pool.addresses = self.addresses  # type: ignore[attr-defined]  # the pool classes are ours
        return pool


class GuardedAdapter(HTTPAdapter):
    """Gives ``requests`` connections that reach only what *addresses* permits."""

    def __init__(self, addresses: Addresses, *, pool_size: int) -> None:
        self.addresses = addresses
        #: By scheme, host and how it is verified; the pool manager keeps them.
        self._pools: WeakValueDictionary[tuple[Any, ...], HTTPConnectionPool]
        self._pools = WeakValueDictionary()
        retry = urllib3.Retry(total=0, read=False)
        super().__init__(pool_maxsize=pool_size, max_retries=retry)

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: Any,
        proxies: Any = None,
        cert: Any = None,
    ) -> HTTPConnectionPool:
        """Return the pool of the request's host, without the pool manager's work for each."""
        key = (*(request.url or "").split("/", 3)[:3], verify, cert)
        pool = self._pools.get(key)
        if pool is None:
            found = super().get_connection_with_tls_context(request, verify, proxies, cert)
            assert isinstance(found, HTTPConnectionPool)
            pool = self._pools[key] = found
        return pool

    def build_response(
        self, req: requests.PreparedRequest, resp: urllib3.BaseHTTPResponse
    ) -> requests.Response:
        """Make the answer as ``requests`` does, without looking for cookies: none is kept."""
        response = requests.Response()
        response.status_code, response.reason = resp.status, resp.reason or ""
        response.headers = CaseInsensitiveDict(resp.headers)
        response.encoding = get_encoding_from_headers(response.headers)
        response.raw, response.url, response.request = resp, req.url or "", req
        response.connection = self
        return response

    def request_url(self, request: requests.PreparedRequest, proxies: object) -> str:
        # urllib3 writes this into its log and its errors, and normalises it; but the target may
        # be a secret or part of a signature, so the connection takes the real one from the call.
        return "/"

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **options: Any
    ) -> None:
        self.poolmanager = _GuardedPoolManager(
            self.addresses, num_pools=connections, maxsize=maxsize, block=block, **options
        )
