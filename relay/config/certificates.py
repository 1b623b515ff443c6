"""Certificates: what one says, and the one that the relay shows by itself, with its key."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from relay.config.model import Tls

#: OpenSSL's flag for checking everything but the time, which Python has no name for.
ANY_TIME = 0x200000
#: Bytes that a file may have: a chain has some ten thousand.
LARGEST = 1 << 20

#: What OpenSSL says of a key that is another certificate's.
_OTHER_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_FIRST = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

#: Identifies one version of a file; None: the file is missing.
Mark = tuple[int, int, int] | None


class Unfit(Exception):
    """The files cannot be served; *key*: of which of the two the words are."""

    def __init__(self, key: Literal["cert", "key"], said: str) -> None:
        super().__init__(said)
        self.key = key


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """What a server shows of itself."""

    names: Sequence[str]
    issuer: str
    begins_at: datetime
    ends_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A certificate with its key as they were read, whatever becomes of their files."""

    file: Path
    shown: Certificate
    #: Where this process and its children read them.
    cert: str
    key: str
    descriptors: Sequence[int] = ()

    def close(self) -> None:
        """Forget them in this process."""
        _close(self.descriptors)


def marks(tls: Tls) -> tuple[Mark, Mark]:
    """Return what changes when the files are renewed."""
    return _mark(tls.cert), _mark(tls.key)


def read(tls: Tls, *, now: datetime) -> Identity:
    """Read the files, and make sure that a receiver can serve them. Raises :class:`Unfit`."""
    if not hasattr(os, "memfd_create"):
        raise Unfit("cert", "https is served on Linux only: put a proxy in front")
    contents = [_content("cert", tls.cert), _content("key", tls.key)]
    held = [_held(each) for each in contents]
    cert, key = (f"/dev/fd/{each}" for each in held)
    try:
        shown = _shown(tls, cert, key)
        if shown.ends_at <= now:
            said = f"{tls.cert} expired at {shown.ends_at:%Y-%m-%d %H:%M} UTC: renew it"
            raise Unfit("cert", said)
    except Unfit:
        _close(held)
        raise
    return Identity(file=tls.cert, shown=shown, cert=cert, key=key, descriptors=held)


def certificate_of(connection: ssl.SSLSocket | ssl.SSLObject) -> Certificate:
    """Return the certificate of a connection that was verified."""
    found: Any = connection.getpeercert() or {}
    issuer = {name: value for each in found.get("issuer", ()) for name, value in each}
    return Certificate(
        names=tuple(name for _, name in found.get("subjectAltName", ())),
        issuer=issuer.get("organizationName") or issuer.get("commonName") or "an unnamed issuer",
        begins_at=time_of(found.get("notBefore")),
        ends_at=time_of(found.get("notAfter")),
    )


def trusting_only(certificate: bytes) -> ssl.SSLContext:
    """Return a context that trusts *certificate* (DER) for itself, for any name and time.

    Python only reads what was verified.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=certificate)
    context.verify_flags |= ssl.VerifyFlags(ANY_TIME) | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def time_of(written: str | None) -> datetime:
    """Read a time as OpenSSL writes it."""
    seconds = ssl.cert_time_to_seconds(written) if written else 0
    return datetime.fromtimestamp(seconds, UTC)


def _shown(tls: Tls, cert: str, key: str) -> Certificate:
    """Return what a client sees, by a handshake in memory."""
    first = _FIRST.search(Path(cert).read_text("latin-1"))
    if first is None:
        raise Unfit("cert", f"{tls.cert} has no certificate in PEM form")
    try:
        client = trusting_only(ssl.PEM_cert_to_DER_cert(first[0]))
    except (ValueError, ssl.SSLError) as error:
        raise Unfit("cert", f"{tls.cert} has a damaged certificate") from error
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Nobody is there to be asked for a passphrase.
        server.load_cert_chain(cert, key, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason in _OTHER_KEY:
            said = f"{tls.key} does not fit the first certificate of {tls.cert}"
        else:
            said = f"{tls.key} has no private key in PEM form that can be read without passphrase"
        raise Unfit("key", said) from error
    try:
        return _met(server, client)
    except ssl.SSLError as error:
        said = f"{tls.cert} cannot be served ({error.reason or error})"
        raise Unfit("cert", said) from error


def _met(server: ssl.SSLContext, client: ssl.SSLContext) -> Certificate:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server)
    sides = (caller, server.wrap_bio(to_server, to_client, server_side=True))
    for side in sides * 2:
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return certificate_of(caller)


def _content(key: Literal["cert", "key"], file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(LARGEST)
    except OSError as error:
        raise Unfit(key, f"{file}: {error.strerror}") from error


def _held(content: bytes) -> int:
    """Keep *content* in memory; return its descriptor, which a fork keeps."""
    descriptor = os.memfd_create("gofax-relay tls")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    return descriptor


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _mark(file: Path) -> Mark:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
