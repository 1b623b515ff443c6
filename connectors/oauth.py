"""Access tokens by OAuth (RFC 6749): one for all threads, fetched once and renewed in time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping

import requests
from pydantic import Field, SecretStr

from connectors.base import Options, Refused, Transient, Unauthorized
from connectors.http import Http, error_for, json_object

PRINTABLE = re.compile(r"[!-~]+")
#: Seconds before its end at which a token is replaced.
MARGIN = 60.0

_ENTRA_CODE = re.compile(r"AADSTS\d+")
#: Advice by the codes of Microsoft Entra.
ENTRA_REMEDIES = {
    "AADSTS7000215": "client_secret is wrong: it takes the secret's value, not its id",
    "AADSTS7000222": "client_secret has expired: make a new one in the app registration",
    "AADSTS700016": "client_id is unknown in this tenant",
    "AADSTS90002": "tenant_id names no tenant",
    "AADSTS900023": "tenant_id names no tenant",
}


class ClientCredentials(Options):
    """The client credentials of an application (RFC 6749, 4.4)."""

    token_url: str = Field(
        pattern=r"^https?://[!-~]+$",
        description="Address of the token endpoint, such as "
        "https://login.microsoftonline.com/TENANT/oauth2/v2.0/token.",
    )
    client_id: str = Field(min_length=1, description="The application's id.")
    client_secret: SecretStr = Field(description="The value of its secret.")
    scope: str = Field(
        default="https://outlook.office365.com/.default", description="Scope of the tokens."
    )

    @property
    def grant(self) -> dict[str, object]:
        """The fields of the request for a token."""
        return {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "scope": self.scope,
        }


def described(response: requests.Response) -> str:
    """Name a refused grant by its error codes; the sentences beside them quote ids and traces.

    Knows the codes of RFC 6749 (5.2) and those of Microsoft Entra.
    """
    answer = json_object(response) or {}
    kind = answer.get("error")
    found = _ENTRA_CODE.search(str(answer.get("error_description", "")))
    code = found[0] if found else ""
    named = kind if isinstance(kind, str) and re.fullmatch(r"[a-z_]{1,40}", kind) else ""
    return ": ".join(filter(None, [named, code, ENTRA_REMEDIES.get(code, "")]))


class AccessToken:
    """The access token of one application; safe to use from many threads.

    A token is replaced *margin* seconds before its end, or after half of its life if that is
    shorter. A token without an end is kept until the system refuses it.
    """

    def __init__(
        self,
        url: str,
        grant: Mapping[str, object],
        *,
        http: Http,
        margin: float = MARGIN,
        as_json: bool = False,
        detail: Callable[[requests.Response], str] = described,
    ) -> None:
        """*grant*: the fields to post to *url*, as a form or *as_json*; secrets are ``SecretStr``.

        *detail* reads the fault from an answer that grants nothing.
        """
        self._url = url
        self._grant = dict(grant)
        self._http = http
        self._margin = margin
        self._body = "json" if as_json else "data"
        self._detail = detail
        self._session = http.session(pool_size=1)
        self._lock = threading.Lock()
        self._token: str | None = None
        self._renew_at = 0.0

    def get(self, *, refused: str | None = None) -> str:
        """Return a token other than *refused*, within the caller's deadline.

        Threads that ask at once share one request. Raises :class:`DeliveryError`.
        """
        if not self._lock.acquire(timeout=max(0.0, self._http.ends_at() - time.monotonic())):
            raise Transient("no access token in time: another delivery still waits for one")
        try:
            if self._token in (None, refused) or time.monotonic() >= self._renew_at:
                self._token, self._renew_at = self._fetch()
            assert self._token is not None
            return self._token
        finally:
            self._lock.release()

    def signed_in(self, send: Callable[[str], requests.Response]) -> requests.Response:
        """Call *send* with our token, and again with a new token if the answer is 401."""
        token = self.get()
        response = send(token)
        return send(self.get(refused=token)) if response.status_code == 401 else response

    def close(self) -> None:
        """Release connections."""
        self._session.close()

    def _fetch(self) -> tuple[str, float]:
        """Return a token, and the monotonic time at which to replace it (RFC 6749, 5.1)."""
        asked_at = time.monotonic()
        answer = self._ask()
        token, life = answer.get("access_token"), _seconds(answer.get("expires_in"))
        if not isinstance(token, str) or not PRINTABLE.fullmatch(token):
            raise Transient("the answer about an access token holds none")
        if life is None:
            return token, float("inf")
        return token, asked_at + max(life - self._margin, life / 2)

    def _ask(self) -> Mapping[str, object]:
        grant = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self._grant.items()
        }
        with self._http.repeatable():
            response = self._session.request("POST", self._url, **{self._body: grant})  # type: ignore[arg-type]  # one of two
        detail = "" if response.ok else self._detail(response)
        error = error_for(response.status_code, headers=response.headers, detail=detail, safe=True)
        if isinstance(error, Refused | Unauthorized):
            said = f"no access token: {error}; look at client_id, client_secret and the address"
            raise Unauthorized(said, status=error.status)
        if error is not None:
            raise error
        return json_object(response) or {}


def _seconds(life: object) -> float | None:
    """Read a lifetime, which some servers write as a string; None if it has no end."""
    try:
        seconds = float(str(life))
    except ValueError:
        return None
    return seconds if seconds > 0 else None
