"""The access token that a bot shows to Teams: fetched once for all threads, renewed in time."""

from __future__ import annotations

import re
import threading
import time

import requests
from pydantic import SecretStr

from connectors.base import DeliveryError, Refused, Transient, Unauthorized
from connectors.http import Http, error_for
from connectors.teams_answers import json_object
from connectors.wire import current

#: What the token is for, in Microsoft's public cloud.
SCOPE = "https://api.botframework.com/.default"
#: Seconds before its end at which a token is replaced.
MARGIN = 300.0

_PRINTABLE = re.compile(r"[!-~]+")
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
        self._lock = threading.Lock()
        self._header: str | None = None
        self._renew_at = 0.0

    def header(self, *, refused: str | None = None) -> str:
        """Return an Authorization header other than *refused*, within the caller's deadline.

        Many threads that ask at once share one request. Raises :class:`DeliveryError`.
        """
        if not self._lock.acquire(timeout=_patience(self._http)):
            raise Transient("no access token in time: another delivery still waits for one")
        try:
            if self._header in (None, refused) or time.monotonic() >= self._renew_at:
                self._header, self._renew_at = self._fetch()
            assert self._header is not None
            return self._header
        finally:
            self._lock.release()

    def close(self) -> None:
        self._session.close()

    def _fetch(self) -> tuple[str, float]:
        asked_at = time.monotonic()
        answer = json_object(self._ask()) or {}
        token, life = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(token, str) or not _PRINTABLE.fullmatch(token):
            raise Transient("the answer about an access token holds none")
        if not isinstance(life, int | float) or life <= 0:
            return f"Bearer {token}", float("inf")
        return f"Bearer {token}", asked_at + max(life - MARGIN, life / 2)

    def _ask(self) -> requests.Response:
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
        return response


def _patience(http: Http) -> float:
    """Return the seconds that are left of the call that is under way."""
    call = current.get()
    return max(0.0, call.ends_at - time.monotonic()) if call else http.default_deadline


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
