"""What zenpy talks to Zendesk through: address, credentials and the meaning of an answer.

All three are settled underneath zenpy, so that it never sees a 429 that it would sleep on, nor an
error that it would word in its own way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

import requests

from connectors.base import DeliveryError, Refused, Throttled, Transient, Unauthorized
from connectors.http import SAFE_METHODS, Http, Session, error_for, json_object
from connectors.oauth import AccessToken


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

    def __init__(self, guard: Http, *, address: str, sign_in: AccessToken | str) -> None:
        """*sign_in*: a token to renew, or an Authorization header that stays as it is."""
        super().__init__(guard, pool_size=1)
        self.headers["User-Agent"] = "gofax-relay"
        self._address = address
        self._sign_in = sign_in

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
        send = super().send
        if isinstance(self._sign_in, str):
            return send(self._addressed(request, self._sign_in), **options)
        return self._sign_in.signed_in(
            lambda token: send(self._addressed(request, f"Bearer {token}"), **options)
        )

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
    status, detail = response.status_code, described(response)
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


def described(response: requests.Response) -> str:
    """Say what was wrong in the vendor's words, if it sent any in its own form."""
    if response.ok:
        return ""
    body = json_object(response) or {}
    error = body.get("error")
    words = [error.get("title") if isinstance(error, dict) else error]
    words += [body.get("description"), body.get("error_description")]
    details = body.get("details")
    for faults in details.values() if isinstance(details, dict) else ():
        words += [each.get("description") for each in faults if isinstance(each, dict)]
    return ": ".join(word for word in words if isinstance(word, str) and word)[:300]
