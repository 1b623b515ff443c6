"""The guarded HTTP client of every connector.

A session keeps one deadline over connect, headers and body together, caps the body, follows no
redirect, never retries, ignores proxies and ``.netrc``, and reaches private addresses and plain
http only where ``outbound.allow`` permits. Failures become the contract's errors by an exact rule,
because the connection notes when it starts to send: before that nothing can have happened
(Transient); after it the outcome is unknown (Ambiguous). Once the status line is read, the status
decides, even if the rest of the answer is broken, late or too long.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from connectors.base import (
    Ambiguous,
    DeliveryError,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.wire import Addresses, Blocked, Call, GuardedAdapter, current

#: Methods that change nothing, so that a lost answer leaves no doubt (RFC 9110, 9.2.1).
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
FOREIGN_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError)


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
        self.addresses = Addresses(allow)
        self.default_deadline = default_deadline
        self.connect_timeout = connect_timeout
        self.max_answer = max_answer

    def session(self, *, pool_size: int = 64, names_paths: bool = False) -> Session:
        """Return a session that keeps up to *pool_size* connections to each host.

        *names_paths*: its errors name the path of a request, which then must hold no secret, as
        the addresses of webhooks and workflows do.
        """
        return Session(self, pool_size=pool_size, names_paths=names_paths)

    def ends_at(self) -> float:
        """Return the monotonic deadline of the current call, or of one that starts now."""
        call = current.get()
        return call.ends_at if call else time.monotonic() + self.default_deadline

    @contextmanager
    def within(self, deadline: float) -> Iterator[None]:
        """Give everything inside *deadline* seconds in total."""
        token = current.set(Call(ends_at=time.monotonic() + deadline))
        try:
            yield
        finally:
            current.reset(token)

    @contextmanager
    def repeatable(self) -> Iterator[None]:
        """Mark the requests inside as harmless to repeat: a lost answer is then Transient."""
        token = current.set(Call(ends_at=self.ends_at(), repeatable=True))
        try:
            yield
        finally:
            current.reset(token)


class Session(requests.Session):
    """A ``requests.Session`` under the guard of its :class:`Http`.

    Raises the contract's errors instead of ``requests``' own. Answers of any status are returned,
    with what could be read of them; only a request that may be repeated raises
    :class:`Transient` for a 2xx whose body is broken, because it asked for the body.
    """

    def __init__(self, guard: Http, *, pool_size: int, names_paths: bool = False) -> None:
        super().__init__()
        self.guard, self.names_paths = guard, names_paths
        # No proxies, no .netrc: both would come from the environment, past the guard.
        self.trust_env = False
        adapter = GuardedAdapter(guard.addresses, pool_size=pool_size)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        try:
            return self._prepared(request)
        except (*FOREIGN_ERRORS, ValueError) as error:
            kind = type(error).__name__
        raise Unauthorized(f"not a usable request: {kind}")  # the cause would quote the URL

    def _prepared(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare as ``requests`` does, in half the time: there are no settings to merge."""
        settings = (request.auth, self.auth, request.cookies, request.files, self.params)
        if any(settings) or "@" in (request.url or ""):
            return super().prepare_request(request)
        prepared = requests.PreparedRequest()
        prepared.prepare_method(request.method)
        prepared.prepare_url(request.url, request.params)
        headers = CaseInsensitiveDict({**self.headers})
        headers.update(request.headers or {})
        prepared.prepare_headers(headers)
        prepared.prepare_body(request.data, None, request.json)
        return prepared

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Take nothing from the environment."""
        return {
            "verify": self.verify if verify is None else verify,
            "cert": self.cert if cert is None else cert,
        }

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        call = current.get() or Call(ends_at=self.guard.ends_at())
        token = current.set(call)
        call.sent, call.target, call.status = False, request.path_url, None
        safe = call.repeatable or request.method in SAFE_METHODS
        outer = sys.exception()
        response = None
        try:
            remaining = call.remaining()
            how = {"verify": self.verify, "cert": self.cert} | options
            # Not by requests' own send, which would take cookies over and look for redirects.
            response = self.get_adapter(request.url or "").send(
                request,
                stream=True,
                timeout=(min(self.guard.connect_timeout, remaining), remaining),
                verify=how["verify"],
                cert=how["cert"],
            )
            _read_body(response, limit=self.guard.max_answer)
            return response
        except (*FOREIGN_ERRORS, OSError, ValueError) as error:
            if call.status is not None and not (safe and 200 <= call.status < 300):
                return _nothing_read(request, status=call.status) if response is None else response
            # No local name may hold the cause: its frames would keep the socket open in a cycle.
            raise _outcome(
                _innermost(error, outer=outer),
                place=_place(request, names_path=self.names_paths),
                sent=call.sent,
                safe=safe,
            ) from _presentable(_innermost(error, outer=outer))
        finally:
            current.reset(token)


def with_body(
    same: requests.PreparedRequest, body: bytes, headers: Mapping[str, str] | None = None
) -> requests.PreparedRequest:
    """Return a request that differs from *same* in its body and in *headers*.

    To prepare one takes half as long as a call, so connectors prepare what is the same once.
    """
    request = requests.PreparedRequest()
    request.method, request.url = same.method, same.url
    own = {"Content-Length": str(len(body)), **(headers or {})}
    # As a plain dict, because requests' own takes longer at each of its many uses.
    request.headers = {**same.headers, **own}  # type: ignore[assignment]
    request.body = body
    return request


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
        return Transient(message, status=status, retry_after=retry_after(headers))
    if status == 429:
        return Throttled(message, retry_after=retry_after(headers), status=status)
    if 400 <= status < 500:
        return Refused(message, status=status)
    # A 5xx, or a class that HTTP does not have: nobody knows what it stands for.
    kind = Transient if safe else Ambiguous
    return kind(message, status=status, retry_after=retry_after(headers))


def json_object(response: requests.Response) -> dict[str, Any] | None:
    """Return the JSON object in the body; None if the body is anything else."""
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> timedelta | None:
    """Read ``Retry-After``, in seconds or as a date (RFC 9110, 10.2.3); None if there is none."""
    text = next((headers[name] for name in headers if name.lower() == "retry-after"), "").strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:12]), 10**9))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(moment - (now or datetime.now(UTC)), timedelta())


def _innermost(error: BaseException, *, outer: BaseException | None) -> BaseException:
    """Find the root cause; *outer* is an exception the caller was already handling."""
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


def _outcome(cause: BaseException, *, place: str, sent: bool, safe: bool) -> DeliveryError:
    if isinstance(cause, Blocked):
        return Unauthorized(str(cause))
    reason = failure_of(cause)
    if not sent:
        if _is_bad_address(cause):
            return Unauthorized(f"{place}: not a usable address ({reason})")
        return Transient(f"{place}: not reached: {reason}")
    if safe:
        return Transient(f"{place}: no usable answer: {reason}")
    return Ambiguous(f"{place}: sent, but no usable answer: {reason}")


def failure_of(cause: BaseException) -> str:
    """Say what went wrong on the network, in the system's words if it has some."""
    if isinstance(cause, TimeoutError):
        return "time-out"
    said = cause.strerror if isinstance(cause, OSError) else None
    return said[:1].lower() + said[1:] if said else type(cause).__name__


def _place(request: requests.PreparedRequest, *, names_path: bool) -> str:
    """Return where *request* goes: host, port and perhaps the path; never the query."""
    url = urllib3.util.parse_url(request.url or "")
    if url.host is None:
        return "(no host)"
    port = url.port or (443 if url.scheme == "https" else 80)
    return f"{url.host}:{port}{(url.path or '') if names_path else ''}"


def _read_body(response: requests.Response, *, limit: int) -> None:
    """Read the body up to *limit*, and drop the rest with the connection."""
    body = bytearray()
    try:
        for chunk in response.raw.stream(65536, decode_content=True):
            body += chunk
            if len(body) > limit:
                response.close()
                break
    except BaseException:
        response.close()
        raise
    finally:
        response._content = bytes(body[:limit])


def _nothing_read(request: requests.PreparedRequest, *, status: int) -> requests.Response:
    """Return an answer of which not even the headers could be read."""
    response = requests.Response()
    response.status_code, response.request = status, request
    response.url = request.url or ""
    response._content = b""
    return response
