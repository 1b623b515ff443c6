"""HubSpot's dated API, driven through its SDK and our guarded session."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import requests
from hubspot import Client
from hubspot.crm.objects.exceptions import ApiException
from requests.structures import CaseInsensitiveDict
from urllib3 import Retry

from connectors.base import DeliveryError, Refused, Throttled, Transient, Unauthorized
from connectors.http import Http, Session, error_for, retry_after

#: Waits per policy of a 429 that comes without Retry-After; DAILY ends at midnight.
POLICY_WAITS = {"SECONDLY": timedelta(seconds=1), "TEN_SECONDLY_ROLLING": timedelta(seconds=10)}
LOCKED_WAIT = timedelta(seconds=2)
MIGRATION_WAIT = timedelta(minutes=10)
#: How soon to look again whether a new day has begun where the account is.
DAILY_PROBE = timedelta(hours=1)

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
# The SDK gives None for a status that is not named here; "object" is the JSON as it came.
_ANY_SUCCESS = dict.fromkeys(range(200, 300), "object")
_SCOPE_LISTS = ("missingScopes", "requiredGranularScopes", "requiredScopes")
_ID = re.compile(r"[0-9]{1,20}")
_E164 = re.compile(r"\+\d{7,15}")


class Conflict(Refused):
    """Another record has the unique value."""


class NoOwner(Unauthorized):
    """Nobody in the account has the id that a record was to be owned by."""


class NoProperty(Refused):
    """The account lacks the unique property, or it is not unique."""


class Api:
    """Calls HubSpot with one token; safe to use from many threads."""

    def __init__(
        self,
        *,
        base_url: str,
        token: str,
        unique_property: str,
        http: Http,
        blame: Mapping[str, str] | None = None,
        zone: ZoneInfo | None = None,
    ) -> None:
        """*blame*: names in refusals of whole configurations, with what to do then; *zone*: of
        the account, if it is known.
        """
        self.http = http
        self._token = token
        self._unique_property = unique_property
        self._blame = dict(blame or {})
        self._zone = zone
        self._session = http.session()
        client = Client.create(access_token=token, host=base_url.rstrip("/"), retry=Retry(total=0))
        # Each access to basic_api makes a new client and a new pool: this one is kept.
        self._client = client.crm.objects.basic_api.api_client
        self._client.rest_client.pool_manager = _Pool(self._session)

    def close(self) -> None:
        self._session.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        ids: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, Any] | None = None,
        once: bool = False,
    ) -> Any:
        """Return the JSON of a success, None if it is none.

        *once*: a second call would make a second thing, so a lost answer is Ambiguous.
        """
        with nullcontext() if once else self.http.repeatable():
            try:
                return self._client.call_api(
                    path,
                    method,
                    path_params=dict(ids or {}),
                    query_params=dict(query or {}),
                    header_params=dict(_HEADERS),
                    body=body,
                    response_types_map=_ANY_SUCCESS,
                    auth_settings=["oauth2"],
                    _return_http_data_only=True,
                    # The session keeps the exact deadline; this is for the SDK's own pool.
                    _request_timeout=(self.http.connect_timeout, self.http.default_deadline),
                )
            except ApiException as error:
                failure = self._error(error, safe=not once)
            except RecursionError:
                return None
        raise failure  # without its cause, which quotes the whole answer

    def rows(self, method: str, path: str, **options: Any) -> list[dict[str, Any]]:
        """Return the results of a search, a list or a batch.

        Records that are not there are left out; anything else that failed in a batch raises.
        """
        answer = self.call(method, path, **options)
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
            raise Transient("answered with something else than a list of records")
        for fault in dicts(answer, "errors"):
            if text(fault, "category") != "OBJECT_NOT_FOUND":
                raise self._refusal(json.dumps(fault), status=400) or Transient(
                    f"failed in part: {self._detail(fault)}"
                )
        return results

    def _error(self, error: ApiException, *, safe: bool) -> DeliveryError:
        said, headers = _parsed(error.body), error.headers or {}
        detail = self._detail(said)
        message = f"answered {error.status}: {detail}" if detail else f"answered {error.status}"
        throttled = _throttled(error.status, said, headers, message=message, zone=self._zone)
        if throttled is not None:
            return throttled
        refusal = self._refusal(error.body or "", status=error.status, message=message)
        mapped = error_for(error.status, headers=headers, detail=detail, safe=safe)
        return refusal or mapped or Transient(message, status=error.status)

    def _refusal(self, body: str, *, status: int, message: str = "") -> DeliveryError | None:
        """Tell apart the refusals that are not about this one event."""
        if status not in (400, 409):
            return None
        message = message or self._detail(_parsed(body))
        if "CONFLICTING_UNIQUE_VALUE" in body:
            return Conflict(message, status=status)
        # Whole words: what is said of hs_pipeline_stage is not said of hs_pipeline.
        words = set(re.findall(r"[a-z][a-z0-9_]*", body)) if status == 400 else set()
        if self._unique_property in words:
            return NoProperty(message, status=status)
        if "hubspot_owner_id" in words:
            return NoOwner(f"{message} (is owner_id right?)", status=status)
        for name in sorted(words & self._blame.keys()):
            return Unauthorized(f"{message} ({self._blame[name]})", status=status)
        return None

    def _detail(self, said: Mapping[str, Any]) -> str:
        """Quote what helps a person, without tokens and phone numbers."""
        parts = [text(said, "message") or "", _scopes(said)]
        correlation = text(said, "correlationId")
        parts += [f"correlation id {correlation}"] if correlation else []
        quoted = "; ".join(part[:200] for part in parts if part)
        return _E164.sub("(number)", quoted.replace(self._token, "(token)"))


def is_id(value: str) -> bool:
    """Say whether *value* can be the id of a record; anything else came from another system."""
    return _ID.fullmatch(value) is not None


def text(value: object, name: str) -> str | None:
    """Return a field of an answer as text; None if it is absent, empty or no plain value."""
    found = value.get(name) if isinstance(value, dict) else None
    if isinstance(found, bool) or not isinstance(found, str | int):
        return None
    return str(found) or None


def dicts(value: object, name: str) -> list[dict[str, Any]]:
    """Return a list of objects in an answer, without what is no object."""
    found = value.get(name) if isinstance(value, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def properties(record: object) -> dict[str, Any]:
    """Return the properties of a record."""
    found = record.get("properties") if isinstance(record, dict) else None
    return found if isinstance(found, dict) else {}


def record_id(record: object) -> str:
    """Return the id of a record that was read or upserted."""
    found = text(record, "id")
    if found is None or not is_id(found):
        raise Transient("answered with something else than a record")
    return found


def _parsed(body: str | None) -> dict[str, Any]:
    try:
        said = json.loads(body or "")
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _scopes(said: Mapping[str, Any]) -> str:
    contexts = [each.get("context") for each in (said, *dicts(said, "errors"))]
    named = [
        str(scope)
        for context in contexts
        if isinstance(context, dict)
        for name in _SCOPE_LISTS
        if isinstance(context.get(name), list)
        for scope in context[name]
    ]
    return f"missing scopes: {', '.join(dict.fromkeys(named))}" if named else ""


def _throttled(
    status: int,
    said: Mapping[str, Any],
    headers: Mapping[str, str],
    *,
    message: str,
    zone: ZoneInfo | None,
) -> Throttled | None:
    asked = retry_after(headers)
    if status == 423:
        wait = max(asked or LOCKED_WAIT, LOCKED_WAIT)
        return Throttled(message, retry_after=wait, scope="conversation", status=status)
    if status == 477:
        return Throttled(message, retry_after=asked or MIGRATION_WAIT, status=status)
    if status == 429:
        wait = asked or policy_wait(_policy(said), now=datetime.now(UTC), zone=zone)
        return Throttled(message, retry_after=wait, status=status)
    return None


def _policy(said: Mapping[str, Any]) -> str:
    """Return the limit that was reached; searches name it in the message only."""
    named = re.search(r"your (\w+) limit", text(said, "message") or "")
    return (text(said, "policyName") or (named[1] if named else "")).upper()


def policy_wait(policy: str, *, now: datetime, zone: ZoneInfo | None) -> timedelta:
    """Return how long to keep away after the limit named *policy* was reached."""
    if policy != "DAILY":
        return POLICY_WAITS.get(policy, POLICY_WAITS["TEN_SECONDLY_ROLLING"])
    if zone is None:
        return DAILY_PROBE
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    return datetime.combine(tomorrow, time(), tzinfo=zone).astimezone(UTC) - now


class _Pool:
    """Takes the place of the SDK's urllib3 pool: requests go out through the guarded session."""

    def __init__(self, session: Session) -> None:
        self._session = session

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
        response = self._session.request(
            method, url, params=list(fields or ()), data=body, headers=headers
        )
        return _Answer(response)


class _Answer:
    """What the SDK reads of an answer."""

    def __init__(self, response: requests.Response) -> None:
        self.status = response.status_code
        self.reason = response.reason
        # The SDK decodes by the charset that the answer claims, and fails on a wrong one.
        self.data = response.content.decode("utf-8", "replace").encode()
        self.headers = CaseInsensitiveDict(response.headers)
        self.headers.pop("Content-Type", None)

    def getheaders(self) -> Mapping[str, str]:
        return self.headers

    def getheader(self, name: str, default: str | None = None) -> str | None:
        return self.headers.get(name, default)
