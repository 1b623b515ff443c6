"""One signed POST to an endpoint, and its answer."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPException, IncompleteRead
from urllib.parse import urlsplit

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from sender.deadline import DeadlineAdapter
from sender.errors import SenderError
from sender.event import Event
from sender.signing import SIGNATURE_HEADER, sign
from sender.trust import PUBLIC, Trust

#: Seconds for the whole call, from connecting to the end of the answer.
DEFAULT_TIMEOUT = 10.0
#: Bytes of an answer that are read.
MAX_ANSWER = 1 << 16

_CUT = "connection closed before the answer was complete: see the receiver's log"

#: What the innermost cause of a failure means, and how to mend it; the first that fits.
_MEANINGS: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "no complete answer within {timeout:g} s: is the receiver stuck or far away?"),
    (ConnectionRefusedError, "connection refused: is the receiver running, is the port right?"),
    (socket.gaierror, "host name not found: check the URL"),
    (
        ssl.SSLCertVerificationError,
        "certificate not accepted ({cause.verify_message}): it must be from a public CA and name "
        "this host; for a test, --ca FILE trusts your own CA, and --insecure any",
    ),
    (ssl.SSLEOFError, _CUT),
    (ssl.SSLError, "no TLS ({cause}): does the receiver speak https on this port?"),
    (ConnectionError, _CUT),
    (IncompleteRead, _CUT),
    (HTTPException, "no proper HTTP answer ({cause}): is this the receiver's port?"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An endpoint's answer."""

    status: int
    #: From connecting to the end of the answer.
    duration: timedelta
    #: The body as text, at most the first 64 KiB.
    text: str
    #: By name, in upper or lower case.
    headers: Mapping[str, str]

    @property
    def is_success(self) -> bool:
        """Whether the status is a 2xx."""
        return 200 <= self.status < 300


def deliver(
    url: str,
    event: Event | bytes,
    *,
    secret: str | bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    trust: Trust = PUBLIC,
) -> Answer:
    """Post *event* to *url* once, and return the answer, whatever its status.

    Bytes are posted as they are. Without *secret* there is no signature. *headers* come last, so
    that they can replace any of ours, the signature too. *timeout*: seconds for the whole call.
    *trust*: whose certificates are accepted.

    Raises :class:`SenderError` if there was no complete answer.
    """
    check_url(url)
    body = event if isinstance(event, bytes) else event.encode()
    all_headers = request_headers(body, secret=secret, headers=headers)
    try:
        return _post(url, body, headers=all_headers, timeout=timeout, trust=trust)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise SenderError(f"{shown(url)}: {explain(error, timeout=timeout)}") from error
    except ValueError as error:
        raise SenderError(f"{shown(url)}: not sendable: {error}") from error


def request_headers(
    body: bytes,
    *,
    secret: str | bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> CaseInsensitiveDict[str]:
    """Return the headers that *body* goes out with; *headers* replace any of ours."""
    made = CaseInsensitiveDict(
        {
            "User-Agent": "gofax-sender",
            "Accept": "*/*",
            # A kept connection could be closed under the next call.
            "Connection": "close",
            "Content-Type": "application/json",
        }
    )
    if secret is not None:
        made[SIGNATURE_HEADER] = sign(body, secret)
    made.update(headers or {})
    return made


def check_url(url: str) -> None:
    """Raise :class:`SenderError` unless *url* is one that can be posted to."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        example = "http://127.0.0.1:8080/webhooks/gofax"
        raise SenderError(f"{shown(url)!r} is not an http or https URL: give one like {example}")


def shown(url: str) -> str:
    """Return *url* for people: without the password that it may carry."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url)


def explain(error: BaseException, *, timeout: float) -> str:
    """Say what *error*, raised by a call, means and how to mend it."""
    cause = _innermost(error)
    for kind, words in _MEANINGS:
        if isinstance(cause, kind):
            return words.format(timeout=timeout, cause=cause)
    return f"{cause} ({type(cause).__name__})"


def _post(
    url: str, body: bytes, *, headers: Mapping[str, str], timeout: float, trust: Trust
) -> Answer:
    started = time.monotonic()
    with (
        _session(trust) as session,
        session.post(
            url, data=body, headers=headers, timeout=timeout, allow_redirects=False, stream=True
        ) as response,
    ):
        content: bytes = response.raw.read(MAX_ANSWER, decode_content=True)
    return Answer(
        status=response.status_code,
        duration=timedelta(seconds=time.monotonic() - started),
        text=content.decode("utf-8", "replace"),
        headers=response.headers,
    )


def _session(trust: Trust) -> requests.Session:
    """Make a session for one call."""
    session = requests.Session()
    # No proxies, no .netrc: a delivery goes where the URL says, with the credentials given.
    session.trust_env = False
    session.headers = CaseInsensitiveDict()
    session.verify = trust.verify
    session.mount("http://", DeadlineAdapter())
    session.mount("https://", DeadlineAdapter())
    return session


def _innermost(error: BaseException) -> BaseException:
    """Follow the chain to what happened first; each library wraps it once more."""
    while True:
        reason = getattr(error, "reason", None)
        inner = error.__cause__ or reason or error.__context__
        inner = inner or next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        if not isinstance(inner, BaseException):
            return error
        error = inner
