"""The HTTP session underneath zenpy: our address, our credentials, our errors.

zenpy would sleep on a 429 and word errors in its own way, so it never sees either.

    Refused      Gone, Closed, Full, KeyTaken
    Transient    Changed
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests

from connectors.base import (
    Ambiguous,
    DeliveryError,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.http import SAFE_METHODS, Http, Session, error_for, json_object
from connectors.oauth import AccessToken
from connectors.zendesk.limits import UpdateLimits


class Gone(Refused):
    """There is no such ticket or profile (any more)."""


class Closed(Refused):
    """The ticket is closed: it takes no updates."""


class Full(Refused):
    """The ticket has as many comments as Zendesk allows."""


class Changed(Transient):
    """Somebody else wrote first; nothing happened."""


class KeyTaken(Refused):
    """The idempotency key was used with another body, less than two hours ago."""


class ZendeskSession(Session):
    """A guarded session that signs in and raises errors by Zendesk's rules."""

    #: zenpy asks for this before it leaves the credentials to us.
    authorized = True

    def __init__(
        self,
        guard: Http,
        *,
        address: str,
        sign_in: AccessToken | str,
        limits: UpdateLimits,
    ) -> None:
        """*sign_in*: a token to renew, or an Authorization header that stays as it is."""
        super().__init__(guard, pool_size=1, names_paths=True)
        self.headers["User-Agent"] = "gofax-relay"
        self._address = address
        self._sign_in = sign_in
        self._limits = limits

    @contextmanager
    def keyed(self, key: str) -> Iterator[None]:
        """Send *key* along, under which Zendesk creates one ticket in two hours."""
        self.headers["Idempotency-Key"] = key
        try:
            yield
        finally:
            del self.headers["Idempotency-Key"]

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        keyed = "Idempotency-Key" in request.headers
        if _is_repeatable(request):
            with self.guard.repeatable():
                response = self._send_signed_in(request, **options)
        else:
            try:
                response = self._send_signed_in(request, **options)
            except Ambiguous as lost:
                if not keyed:
                    raise
                # By the key Zendesk knows a repetition.
                raise Transient(str(lost)) from lost
        error = self._fault(response, safe=keyed or _is_repeatable(request))
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

    def _fault(self, response: requests.Response, *, safe: bool) -> DeliveryError | None:
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
        if isinstance(error, Throttled):
            error.scope = self._limits.scope(response)
        return error


def _is_repeatable(request: requests.PreparedRequest) -> bool:
    """Say whether *request* may be sent twice: it reads, writes a profile, or adds tags."""
    path = urlsplit(request.url or "").path
    return (
        request.method in SAFE_METHODS
        or path.startswith("/api/v2/users/")
        or path.endswith("/tags.json")
    )


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
