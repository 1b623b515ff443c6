"""Access tokens by OAuth client credentials (RFC 6749, 4.4): fetched once, renewed in time."""

from __future__ import annotations

from pydantic import Field, SecretStr

from connectors.access_token import AccessToken
from connectors.base import Options, Refused, Unauthorized
from connectors.http import Http, error_for

#: Seconds before its end at which a token is replaced.
MARGIN = 60.0


class ClientCredentials(Options):
    """An application that gets its tokens by itself."""

    token_url: str = Field(
        pattern=r"^https?://[!-~]+$",
        description="Where tokens are, such as "
        "https://login.microsoftonline.com/TENANT/oauth2/v2.0/token.",
    )
    client_id: str = Field(min_length=1, description="The application's id.")
    client_secret: SecretStr = Field(description="The value of its secret.")
    scope: str = Field(
        default="https://outlook.office365.com/.default", description="What the tokens are for."
    )


class Tokens:
    """The tokens of one application; shared by threads."""

    def __init__(self, credentials: ClientCredentials, *, http: Http) -> None:
        self._credentials = credentials
        self._http = http
        self._session = http.session(pool_size=1)
        self._token = AccessToken(self._ask, margin=MARGIN)

    def get(self, *, refused: str | None = None) -> str:
        """Return a token other than *refused*, within the caller's deadline.

        Raises :class:`DeliveryError`.
        """
        return self._token.get(ends_at=self._http.ends_at(), refused=refused)

    def close(self) -> None:
        """Release connections."""
        self._session.close()

    def _ask(self) -> dict[str, object]:
        given = self._credentials
        form = {
            "grant_type": "client_credentials",
            "client_id": given.client_id,
            "client_secret": given.client_secret.get_secret_value(),
            "scope": given.scope,
        }
        with self._http.repeatable():
            response = self._session.post(given.token_url, data=form)
        error = error_for(response.status_code, headers=response.headers, safe=True)
        if isinstance(error, Refused | Unauthorized):
            words = f"no access token: {error}; look at client_id, client_secret and token_url"
            raise Unauthorized(words, status=error.status)
        if error is not None:
            raise error
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            answer = None
        return answer if isinstance(answer, dict) else {}
