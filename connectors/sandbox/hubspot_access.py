"""Tokens of the HubSpot stand-in: what each may do, and how OAuth grants them."""

from __future__ import annotations

import re
import secrets

from flask import request
from flask.typing import ResponseReturnValue

from connectors.sandbox.hubspot_rules import Problem

TOKEN_PATH = "/oauth/2026-03/token"
#: Seconds for which a granted token works.
TOKEN_LIFE = 1800
REVOKED, UNSCOPED = "revoked", "unscoped"
#: A token that begins so may do what the scopes behind it allow, and no more.
SCOPED = "scopes:"
#: How tokens begin that the stand-in granted; only these expire.
GRANTED = "granted-"
_CONTACTS = "crm.objects.contacts"
_CHANNELS = "conversations.custom_channels"
_NO_TOKEN = "Authentication credentials not found. This API supports OAuth 2.0"
_NO_SCOPES = "This app hasn't been granted all required scopes to make this call."


class Access:
    """Admits requests by their token, and grants tokens to an OAuth app."""

    def __init__(self) -> None:
        self._granted: set[str] = set()

    def grant(self) -> ResponseReturnValue:
        """Answer a refresh of tokens, as ``POST /oauth/2026-03/token`` does."""
        form = request.form
        if form.get("grant_type") != "refresh_token":
            return {"status": "BAD_GRANT_TYPE", "message": "missing or unknown grant type"}, 400
        if form.get("client_secret", REVOKED) == REVOKED:
            return {"status": "BAD_CLIENT_SECRET", "message": "client secret mismatch"}, 400
        if form.get("refresh_token", REVOKED) == REVOKED:
            return {"status": "BAD_REFRESH_TOKEN", "message": "invalid refresh token"}, 400
        token = GRANTED + secrets.token_hex(8)
        self._granted.add(token)
        return {
            "access_token": token,
            "refresh_token": form["refresh_token"],
            "expires_in": TOKEN_LIFE,
            "token_type": "bearer",
        }

    def expire(self) -> None:
        """Let every granted token expire."""
        self._granted.clear()

    def admit(self) -> None:
        """Refuse a request without a valid token, or whose token lacks the scope."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token or token == REVOKED:
            raise Problem(401, "INVALID_AUTHENTICATION", _NO_TOKEN)
        if token.startswith(GRANTED) and token not in self._granted:
            raise Problem(401, "EXPIRED_AUTHENTICATION", "The OAuth token used expired.")
        needed = _scope_for(request.method, request.path)
        if token == UNSCOPED:
            token = SCOPED
        if needed and token.startswith(SCOPED) and needed not in token[len(SCOPED) :].split(","):
            required = {
                "message": "One or more of the following scopes are required.",
                "context": {"requiredGranularScopes": [needed]},
            }
            raise Problem(403, "MISSING_SCOPES", _NO_SCOPES, errors=[required])


def _scope_for(method: str, path: str) -> str:
    reads = method == "GET" or path.endswith(("/search", "/batch/read"))
    if "/custom-channels/" in path:
        return f"{_CHANNELS}.{'read' if reads else 'write'}"
    if "/crm-object-schemas/" in path:
        return "crm.schemas.custom.read"
    if re.search(r"/(tickets|pipelines)\b", path) and "/associations/" not in path:
        return "tickets"
    if "/properties/" in path and not reads:
        return "crm.schemas.contacts.write"
    if "/crm/" in path:
        return f"{_CONTACTS}.{'read' if reads else 'write'}"
    return ""
