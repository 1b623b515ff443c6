"""What zenpy talks to Zendesk through: address, credentials and the meaning of an answer.

All three are settled underneath zenpy, so that it never sees a 429 that it would sleep on, nor an
error that it would word in its own way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
from pydantic import SecretStr

from connectors.access_token import AccessToken
from connectors.base import DeliveryError, Refused, Throttled, Transient, Unauthorized
from connectors.http import SAFE_METHODS, Http, Session, error_for

#: What an access token is asked to be good for, and for how long (seconds).
SCOPE = "tickets:read tickets:write users:read users:write"
TOKEN_LIFE = 7200
#: Seconds before its end at which a token is replaced.
MARGIN = 60.0


class Gone(Refused):
    """There is no such ticket (any more)."""


class Closed(Refused):
    """The ticket is closed: it takes no comments."""


class Changed(Transient):
    """Somebody else wrote first; nothing happened."""


class KeyTaken(Refused):
    """The idempotency key was used with another body, less than two hours ago."""


class ZendeskSession(Session):
    """What zenpy talks through: our address, our credentials, our errors."""

    #: zenpy asks for this before it leaves the credentials to us.
    authorized = True

    def __init__(self, guard: Http, *, address: str, credentials: Credentials) -> None:
        super().__init__(guard, pool_size=1)
        self.headers["User-Agent"] = "gofax-relay"
        self._address = address
        self._credentials = credentials
        #: Monotonic end of the delivery that this session serves.
        self.ends_at = 0.0

    @contextmanager
    def keyed(self, key: str) -> Iterator[None]:
        """Let Zendesk do what is asked inside once for each *key*."""
        self.headers["Idempotency-Key"] = key
        try:
            yield
        finally:
            del self.headers["Idempotency-Key"]

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        safe = _is_repeatable(request)
        with self.guard.repeatable() if safe else nullcontext():
            response = self._send_signed_in(request, **options)
        error = _fault(response, safe=safe)
        if error is not None:
            raise error
        # zenpy recognises an answer by the address that it asked.
        response.request = request
        return response

    def _send_signed_in(
        self, request: requests.PreparedRequest, **options: Any
    ) -> requests.Response:
        header = self._credentials.header(ends_at=self.ends_at)
        response = super().send(self._addressed(request, header), **options)
        if response.status_code == 401 and self._credentials.renewable:
            header = self._credentials.header(ends_at=self.ends_at, refused=header)
            response = super().send(self._addressed(request, header), **options)
        return response

    def _addressed(
        self, request: requests.PreparedRequest, header: str
    ) -> requests.PreparedRequest:
        """Move what zenpy asks for to our address, wherever an answer's link may point."""
        addressed = request.copy()
        _, prefix, path = (request.url or "").partition("/api/v2/")
        addressed.url = f"{self._address}{prefix}{path}"
        addressed.headers["Authorization"] = header
        return addressed


def _is_repeatable(request: requests.PreparedRequest) -> bool:
    return (
        request.method in SAFE_METHODS
        or "Idempotency-Key" in request.headers
        # Everything that we do to users may be done twice.
        or urlsplit(request.url or "").path.startswith("/api/v2/users/")
    )


def _fault(response: requests.Response, *, safe: bool) -> DeliveryError | None:
    """Translate an answer by Zendesk's own rules first, then by those of every system."""
    status, detail = response.status_code, _detail(response)
    message = f"answered {status}: {detail}"
    if status == 404 and "No help desk" in detail:
        return Unauthorized(message, status=status)
    if status == 404:
        return Gone(message, status=status)
    if status == 409:
        return Changed(message, status=status)
    if status == 400 and "IdempotentRequestError" in detail:
        return KeyTaken(message, status=status)
    if status == 422 and "closed prevents" in detail:
        return Closed(message, status=status)
    error = error_for(status, headers=response.headers, detail=detail, safe=safe)
    if isinstance(error, Throttled) and _limits_one_conversation(response):
        wait = error.retry_after
        return Throttled(message, retry_after=wait, scope="conversation", status=status)
    return error


def _limits_one_conversation(response: requests.Response) -> bool:
    """Tell the limits on updates of one ticket or user from the account's, counted down to 0."""
    left = response.headers.get("X-Rate-Limit-Remaining")
    return response.request.method in ("PUT", "DELETE") and left != "0"


def _detail(response: requests.Response) -> str:
    """Say what was wrong in the vendor's words, if it sent any in its own form."""
    if response.ok:
        return ""
    body = _json(response)
    error = body.get("error")
    words = [error.get("title") if isinstance(error, dict) else error]
    words += [body.get("description"), body.get("error_description")]
    details = body.get("details")
    for faults in details.values() if isinstance(details, dict) else ():
        words += [each.get("description") for each in faults if isinstance(each, dict)]
    return ": ".join(word for word in words if isinstance(word, str) and word)[:300]


def _json(response: requests.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


class Credentials(Protocol):
    """Knows the Authorization header to send."""

    renewable: bool

    def header(self, *, ends_at: float, refused: str | None = None) -> str:
        """Return the header, another one than *refused*, by *ends_at* at the latest."""
        ...

    def close(self) -> None: ...


class Standing:
    """Credentials that stay as they are."""

    renewable = False

    def __init__(self, header: str) -> None:
        self._header = header

    def header(self, *, ends_at: float, refused: str | None = None) -> str:
        return self._header

    def close(self) -> None:
        pass


class OAuthClient:
    """An OAuth client: fetches an access token for all threads, and a new one before it ends."""

    renewable = True

    def __init__(self, url: str, *, client_id: str, secret: SecretStr, http: Http) -> None:
        self._url = url
        self._id = client_id
        self._secret = secret
        self._http = http
        self._session = http.session(pool_size=1)
        self._token = AccessToken(self._ask, margin=MARGIN)

    def header(self, *, ends_at: float, refused: str | None = None) -> str:
        known = refused and refused.removeprefix("Bearer ")
        return f"Bearer {self._token.get(ends_at=ends_at, refused=known)}"

    def close(self) -> None:
        self._session.close()

    def _ask(self) -> Mapping[str, Any]:
        asked = {
            "grant_type": "client_credentials",
            "client_id": self._id,
            "client_secret": self._secret.get_secret_value(),
            "scope": SCOPE,
            "expires_in": TOKEN_LIFE,
        }
        with self._http.repeatable():
            response = self._session.post(self._url, json=asked)
        error = _fault(response, safe=True)
        if isinstance(error, Refused | Unauthorized):
            raise Unauthorized(f"no access token for this client: {error}", status=error.status)
        if error is not None:
            raise error
        return _json(response)
