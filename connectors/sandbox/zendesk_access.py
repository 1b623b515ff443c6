"""Sign-in at the stand-in of Zendesk: access tokens, API tokens and scopes.

Any Bearer token and any API token works, except ``revoked``. A token that was granted to an OAuth
client works within its scopes until it expires.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from flask import request

from connectors.sandbox.zendesk_limits import Clock, Settings
from connectors.sandbox.zendesk_rules import Json, Refusal

#: A client id, secret or token that is always refused.
REVOKED = "revoked"
#: Zendesk takes more than 300 and less than 172,800; the ends are taken too.
LIFE_IN_SECONDS = range(300, 172_801)


class Access:
    """Grants access tokens, and lets requests in by them."""

    def __init__(self, settings: Settings, *, clock: Clock = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        #: Token to its end and its scopes.
        self._granted: dict[str, tuple[float, frozenset[str]]] = {}

    def grant(self, asked: Json) -> Json:
        """Answer a request for an access token."""
        if asked.get("grant_type") != "client_credentials":
            raise Refusal(400, "unsupported_grant_type", error_description="unknown grant_type")
        given = asked.get("client_id"), asked.get("client_secret")
        if not all(given) or REVOKED in given:
            raise Refusal(401, "invalid_client", error_description="Client authentication failed")
        life = asked.get("expires_in", 1800)
        if life not in LIFE_IN_SECONDS:
            raise Refusal(400, "invalid_request", error_description="expires_in is out of range")
        life = life if self._settings.token_life is None else self._settings.token_life
        scopes = frozenset(str(asked.get("scope", "read write")).split())
        if self._settings.allowed_scopes is not None:
            scopes &= frozenset(self._settings.allowed_scopes.split())
        token = f"granted-{secrets.token_urlsafe(24)}"
        self._granted[token] = (self._clock() + life, scopes)
        scope = " ".join(sorted(scopes))
        return {"access_token": token, "token_type": "bearer", "scope": scope, "expires_in": life}

    def revoke(self) -> None:
        """End the life of every access token that was given out."""
        self._granted.clear()

    def let_in(self, *, anonymous: bool = False) -> None:
        """Check the request's credentials. Raises Refusal."""
        given = request.authorization
        if given is None and anonymous:
            return
        if given is None or given.type not in ("basic", "bearer"):
            raise Refusal(401, "Couldn't authenticate you")
        if given.type == "basic":
            self._let_in_by_api_token(given.username or "", given.password or "")
            return
        self._let_in_by_access_token(given.token or "")

    def _let_in_by_api_token(self, user: str, token: str) -> None:
        if not user.endswith("/token") or token in ("", REVOKED):
            raise Refusal(401, "Couldn't authenticate you")

    def _let_in_by_access_token(self, token: str) -> None:
        ends_at, scopes = self._granted.get(token, (0.0, frozenset[str]()))
        standing = not token.startswith("granted-") and token not in ("", REVOKED)
        if not standing and self._clock() >= ends_at:
            raise Refusal(
                401,
                "invalid_token",
                error_description="The access token provided is expired, revoked, malformed or "
                "invalid for other reasons.",
            )
        if not standing and not scopes & _sufficient():
            raise Refusal(
                403, "Forbidden", "You are missing the following required scopes: " + _needed()
            )


def _needed() -> str:
    reads = request.method in ("GET", "HEAD")
    return f"{_resource()}:{'read' if reads else 'write'}"


def _sufficient() -> set[str]:
    return {_needed(), _needed().partition(":")[2]}


def _resource() -> str:
    path: Any = request.path.partition("/api/v2/")[2]
    return "users" if path.startswith("users") else "tickets"
