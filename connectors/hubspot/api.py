"""HubSpot's dated API, driven through its SDK and our guarded session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import requests
from hubspot.crm.objects.exceptions import ApiException
from hubspot.discovery.crm.objects.discovery import Discovery
from urllib3 import Retry

from connectors.base import Ambiguous, Refused, Transient, Unauthorized
from connectors.http import Http, with_body
from connectors.hubspot.allowance import Allowance
from connectors.hubspot.answers import dicts, parsed
from connectors.hubspot.errors import error_of, error_of_part
from connectors.oauth import AccessToken

PROPERTIES = "/crm/properties/2026-09/{kind}"
#: Tokens of fewer characters, as stand-ins take them, are parts of words.
SHORTEST_SECRET = 8

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


class Reply(NamedTuple):
    """A successful answer."""

    status: int
    #: None if the body is no JSON.
    json: Any


class Api:
    """Calls HubSpot as one app; safe to use from many threads."""

    def __init__(
        self,
        *,
        base_url: str,
        token: str | AccessToken,
        http: Http,
        zone: ZoneInfo | None = None,
    ) -> None:
        """*zone*: of the account, if it is known."""
        self.http = http
        self._token = token
        self._zone = zone
        self._pool = _Pool(token, http=http)
        # Not by hubspot.Client, which imports this when it is first asked for: after a fork.
        objects = Discovery({"host": base_url.rstrip("/"), "retry": Retry(total=0)})
        # Each access to basic_api makes a new client and a new pool: this one is kept.
        self._client = objects.basic_api.api_client
        self._client.rest_client.pool_manager = self._pool

    def close(self) -> None:
        self._pool.close()
        if isinstance(self._token, AccessToken):
            self._token.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of a success, None if it is none; the options are those of reply."""
        return self.reply(method, path, **options).json

    def reply(
        self,
        method: str,
        path: str,
        *,
        ids: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, Any] | None = None,
        once: bool = False,
    ) -> Reply:
        """Make a request, and return its answer.

        *ids* fill in the path. *once*: a second call would make a second thing, so a lost answer
        is Ambiguous. Raises :class:`DeliveryError` for every status but 2xx.
        """
        try:
            answer = self._client.call_api(
                path,
                method,
                path_params=dict(ids or {}),
                query_params=dict(query or {}),
                header_params=dict(_HEADERS),
                body=body,
                # The SDK would log bodies, and fail on those that it cannot read.
                _preload_content=False,
            )
            return Reply(answer.status, parsed(answer.data))
        except ApiException as error:
            failure = error_of(
                error.status,
                (error.body or "").encode(),
                error.headers or {},
                request=(method, path),
                safe=not once,
                zone=self._zone,
            )
        except Ambiguous as error:
            # Not http.repeatable(): of a write that HubSpot took, the answer's rest is not needed.
            if once:
                raise
            raise Transient(str(error), status=error.status) from error
        raise failure  # without its cause, which quotes the whole answer

    def rows(self, method: str, path: str, **options: Any) -> list[dict[str, Any]]:
        """Return the results of a search, a list or a batch, without records that are gone.

        Raises :class:`DeliveryError` if any part of a batch failed.
        """
        answer = self.call(method, path, **options)
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
            raise Transient("answered with something else than a list of records")
        self.expect_parts(answer, request=(method, path))
        return results

    def expect_parts(self, answer: object, *, request: tuple[str, str]) -> None:
        """Raise the first error of a batch, except for records that are gone."""
        for each in dicts(answer, "errors"):
            error = error_of_part(each, request=request)
            if error:
                raise error

    def property(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return the definition of a property; None if the account has none of this name."""
        ids = {"kind": kind, "name": name}
        try:
            found = self.call("GET", PROPERTIES + "/{name}", ids=ids)
        except Refused as error:
            if error.status != 404:
                raise
            return None
        return found if isinstance(found, dict) else {}

    def lacks_unique(self, kind: str, name: str) -> bool:
        """Return whether no record of *kind* can be found by the property *name*.

        To be asked when such a look-up was refused.
        """
        try:
            found = self.property(kind, name)
        except Unauthorized:
            return True  # so much the refusal that led here says by itself
        return found is None or found.get("hasUniqueValue") is False


class _Pool:
    """Takes the place of the SDK's urllib3 pool: counts, signs and sends each request."""

    def __init__(self, token: str | AccessToken, *, http: Http) -> None:
        self._token = token
        self._http = http
        self._session = http.session(names_paths=True)
        self._allowance = Allowance()
        #: Returns a POST to an address, without what differs between calls.
        self._empty = lru_cache(maxsize=64)(self._prepared)

    def close(self) -> None:
        self._session.close()

    def _prepared(self, url: str) -> requests.PreparedRequest:
        return self._session.prepare_request(requests.Request("POST", url))

    def request(
        self,
        method: str,
        url: str,
        *,
        body: str | None = None,
        fields: Sequence[tuple[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: object = None,
        preload_content: bool = True,
    ) -> _Answer:
        search = url.endswith("/search")

        def send(token: str) -> requests.Response:
            signed = {**(headers or {}), "Authorization": f"Bearer {token}"}
            with self._allowance.turn(search=search, ends_at=self._http.ends_at()):
                if method == "POST" and body is not None and not fields:
                    # The addresses of these are few.
                    request = with_body(self._empty(url), body.encode(), signed)
                    response = self._session.send(request)
                else:
                    asked = list(fields or ())
                    response = self._session.request(
                        method, url, params=asked, data=body, headers=signed
                    )
            self._allowance.learn(response.headers)
            return response

        if isinstance(self._token, AccessToken):
            return _Answer(self._token.signed_in(send))
        return _Answer(send(self._token))


class _Answer:
    """What the SDK reads of an answer."""

    def __init__(self, response: requests.Response) -> None:
        self.status = response.status_code
        self.reason = response.reason
        # The SDK fails on bytes that are no UTF-8.
        said = response.content.decode("utf-8", "replace")
        token = response.request.headers["Authorization"].removeprefix("Bearer ")
        if not response.ok and len(token) >= SHORTEST_SECRET:
            said = said.replace(token, "(token)")
        self.data = said.encode()
        self.headers = response.headers

    def getheaders(self) -> Mapping[str, str]:
        return self.headers
