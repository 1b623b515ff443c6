"""The access token that a bot shows to Teams: fetched once for all threads, renewed in time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import requests
from pydantic import SecretStr

from connectors.access_token import AccessToken
from connectors.base import DeliveryError, Refused, Unauthorized
from connectors.http import Http, error_for
from connectors.teams.answers import json_object

#: What the token is for, in Microsoft's public cloud.
SCOPE = "https://api.botframework.com/.default"
#: Seconds before its end at which a token is replaced.
MARGIN = 300.0

_ENTRA_CODE = re.compile(r"AADSTS\d+")
#: What a person has to mend, by Entra's own codes.
REMEDIES = {
    "AADSTS7000215": "client_secret is wrong: it takes the secret's value, not its id",
    "AADSTS7000222": "client_secret has expired: make a new one in the app registration",
    "AADSTS700016": "client_id is unknown in this tenant",
    "AADSTS90002": "tenant_id names no tenant",
    "AADSTS900023": "tenant_id names no tenant",
}


class BotToken:
    """Client credentials of a bot; safe to use from many threads."""

    def __init__(self, url: str, *, client_id: str, secret: SecretStr, http: Http) -> None:
        self._url = url
        self._client_id = client_id
        self._secret = secret
        self._http = http
        self._session = http.session(pool_size=1)
        self._token = AccessToken(self._ask, margin=MARGIN)

    def get(self, *, refused: str | None = None) -> str:
        """Return a token other than *refused*, within the caller's deadline.

        Raises :class:`DeliveryError`.
        """
        return self._token.get(ends_at=self._http.ends_at(), refused=refused)

    def close(self) -> None:
        self._session.close()

    def _ask(self) -> Mapping[str, Any]:
        asked = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._secret.get_secret_value(),
            "scope": SCOPE,
        }
        with self._http.repeatable():
            response = self._session.post(self._url, data=asked)
        error = _fault(response)
        if error is not None:
            raise error
        return json_object(response) or {}


def _fault(response: requests.Response) -> DeliveryError | None:
    detail = "" if response.ok else _detail(response)
    error = error_for(response.status_code, headers=response.headers, detail=detail, safe=True)
    if isinstance(error, Refused | Unauthorized):
        return Unauthorized(f"no access token for the bot: {error}", status=error.status)
    return error


def _detail(response: requests.Response) -> str:
    """Say what Entra found wrong, by code; its own sentences name ids, times and traces."""
    answer = json_object(response) or {}
    kind, described = answer.get("error"), str(answer.get("error_description", ""))
    found = _ENTRA_CODE.search(described)
    code = found[0] if found else ""
    named = kind if isinstance(kind, str) and re.fullmatch(r"[a-z_]{1,40}", kind) else ""
    return ": ".join(filter(None, [named, code, REMEDIES.get(code, "")]))
