"""Does the address that GoFax posts to lead here? Looked at step by step, from this machine.

Name, connection, certificate, answer: each step can fail for reasons of its own, and says what to
do about them. GoFax trusts what the public trusts: the system's certificate authorities stand for
that. Addresses may be private, because a network may know itself by those.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

from requests import certs

from relay.config.certificates import Certificate, certificate_of, trusting_only

#: Seconds that each step may take.
PATIENCE = 8.0
#: Bytes of an answer that are read.
LONGEST_ANSWER = 4096

#: What OpenSSL calls what is wrong with a certificate.
_EXPIRED, _NOT_YET, _WRONG_NAME, _OWN_ISSUER = 10, 9, (62, 64), (18, 19)

Step = Literal["dns", "tcp", "tls", "certificate", "http"]


class Obstacle(Exception):
    """The way ends here; the words say why, and what to do about it."""

    def __init__(self, step: Step, said: str) -> None:
        super().__init__(said)
        self.step = step


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a URL leads."""

    host: str
    port: int
    is_encrypted: bool
    #: What stands before the path of each endpoint.
    prefix: str

    @classmethod
    def of(cls, url: str) -> Place:
        parts = urlsplit(url)
        is_encrypted = parts.scheme == "https"
        return cls(
            host=parts.hostname or "",
            port=parts.port or (443 if is_encrypted else 80),
            is_encrypted=is_encrypted,
            prefix=parts.path.rstrip("/"),
        )

    @property
    def name(self) -> str:
        """Return the host as a request names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.is_encrypted else 80
        return host if self.port == usual else f"{host}:{self.port}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back for a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


def look_up(place: Place) -> Sequence[str]:
    """Return the addresses of the host. Raises :class:`Obstacle`."""
    found: list[str] = []
    reasons = [f"no answer within {PATIENCE:.0f} s"]

    def look() -> None:
        try:
            each = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reasons.append(_reason(error))
        else:
            found.extend(dict.fromkeys(str(address[0]) for *_, address in each))

    # Nothing ends a look-up that hangs.
    thread = threading.Thread(target=look, daemon=True, name="look-up")
    thread.start()
    thread.join(PATIENCE)
    if not found:
        raise Obstacle(
            "dns",
            f"{place.host} has no address here ({reasons[-1]}): is the name spelt as in GoFax, "
            "and is there an A or AAAA record for it?",
        )
    return found


def connect(place: Place, addresses: Sequence[str]) -> socket.socket:
    """Connect to the first address that answers. Raises :class:`Obstacle`."""
    failures: dict[str, OSError] = {}
    for address in addresses:
        try:
            connection = socket.create_connection((address, place.port), PATIENCE / len(addresses))
        except OSError as error:
            failures[address] = error
        else:
            connection.settimeout(PATIENCE)
            return connection
    reasons = "; ".join(f"{address}: {_reason(each)}" for address, each in failures.items())
    refused = any(isinstance(each, ConnectionRefusedError) for each in failures.values())
    mend = (
        f"nothing listens at port {place.port}: does the proxy run, and does it listen there?"
        if refused
        else "a firewall may drop this, or this network does not reach its own public address: "
        "then try from outside"
    )
    raise Obstacle("tcp", f"no connection to port {place.port} ({reasons}): {mend}")


def encrypt(place: Place, connection: socket.socket) -> ssl.SSLSocket:
    """Begin TLS, as strictly as GoFax does. Raises :class:`Obstacle`."""
    address = connection.getpeername()[0]
    encrypted = trusting().wrap_socket(
        connection, server_hostname=place.host, do_handshake_on_connect=False
    )
    try:
        with _limited(encrypted):
            encrypted.do_handshake()
    except ssl.SSLCertVerificationError as error:
        encrypted.close()
        raise Obstacle(
            "certificate", _distrusted(place, error, shown_by(place, address))
        ) from error
    except OSError as error:
        encrypted.close()
        raise Obstacle(
            "tls",
            f"no TLS at port {place.port} ({_reason(error)}): does the proxy serve https there, "
            "with TLS 1.2 or later?",
        ) from error
    return encrypted


def certificate_at(url: str) -> tuple[datetime | None, str]:
    """Return when the certificate at *url* ends, or why it is not trusted.

    Neither is known if nothing answers: this network may not reach its own public address.
    """
    place = Place.of(url)
    try:
        with encrypt(place, connect(place, look_up(place))) as encrypted:
            return certificate_of(encrypted).ends_at, ""
    except Obstacle as obstacle:
        return None, str(obstacle) if obstacle.step == "certificate" else ""


def trusting() -> ssl.SSLContext:
    """Return a context that trusts what the system trusts."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:
        # A small container has none.
        context.load_verify_locations(certs.where())
    return context


def shown_by(place: Place, address: str) -> Certificate | None:
    """Return the certificate at an *address*, whether or not it can be trusted."""
    anything = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anything.check_hostname = False
    anything.verify_mode = ssl.CERT_NONE
    try:
        with _encrypted(place, address, anything) as first:
            shown = first.getpeercert(binary_form=True) or b""
        with _encrypted(place, address, trusting_only(shown)) as second:
            return certificate_of(second)
    except (OSError, ValueError):
        return None


def post(
    place: Place,
    connection: socket.socket,
    path: str,
    *,
    headers: Mapping[str, str],
    body: bytes,
) -> Answer:
    """Post *body*, and close the connection. Raises :class:`Obstacle`."""
    begun = time.monotonic()
    client = http.client.HTTPConnection(place.host)
    client.sock = connection
    try:
        with _limited(connection):
            client.request("POST", place.prefix + path, body, {**headers, "Host": place.name})
            answer = client.getresponse()
            return Answer(
                status=answer.status,
                headers={name.lower(): value for name, value in answer.getheaders()},
                body=answer.read(LONGEST_ANSWER),
                seconds=time.monotonic() - begun,
            )
    except (OSError, http.client.HTTPException) as error:
        raise Obstacle(
            "http",
            f"no answer to a POST ({_reason(error)}): what does the log of the proxy say?",
        ) from error
    finally:
        client.close()


@contextmanager
def _encrypted(place: Place, address: str, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    connection = socket.create_connection((address, place.port), PATIENCE)
    with context.wrap_socket(
        connection, server_hostname=place.host, do_handshake_on_connect=False
    ) as encrypted:
        with _limited(encrypted):
            encrypted.do_handshake()
        yield encrypted


@contextmanager
def _limited(connection: socket.socket) -> Iterator[None]:
    """End what goes on at a connection after a while, also if it dribbles on."""
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        # Not that of TLS, which would wait for the other side; and it may be closed already.
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(PATIENCE, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if is_late.is_set():
            raise TimeoutError(f"not done within {PATIENCE:.0f} s") from error
        raise
    finally:
        timer.cancel()


def _distrusted(
    place: Place, error: ssl.SSLCertVerificationError, shown: Certificate | None
) -> str:
    """Say why a certificate is not trusted, and what to do."""
    code = error.verify_code
    if code == _EXPIRED:
        on = f" on {shown.ends_at:%Y-%m-%d %H:%M:%SZ}" if shown else ""
        return (
            f"the certificate of {place.host}, or one of its chain, has expired{on}: renew it, "
            "and let the proxy read it again"
        )
    if code == _NOT_YET:
        on = f" before {shown.begins_at:%Y-%m-%d %H:%M:%SZ}" if shown else " yet"
        return f"the certificate of {place.host} does not hold{on}: is a clock wrong?"
    if code in _WRONG_NAME:
        names = f"is for {', '.join(shown.names[:5])}, and" if shown and shown.names else "is"
        return (
            f"the certificate {names} not for {place.host}: get one for this name, or correct "
            "public_url, and the URL in GoFax"
        )
    issuer = f" ({shown.issuer})" if shown else ""
    if code in _OWN_ISSUER:
        return (
            f"the certificate of {place.host} comes from an issuer of its own{issuer}: GoFax "
            "trusts public ones only, such as Let's Encrypt"
        )
    return (
        f"the certificate of {place.host} comes from an issuer{issuer} that is not trusted here "
        f"({error.verify_message}): take a public one, and let the proxy send the whole chain "
        "(fullchain.pem)"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, TimeoutError):
        return str(error) or "no answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
