"""A bot in a Teams channel: starts threads there and answers in them (Bot Framework REST).

The connector service gives ids, so a conversation keeps its thread; but it knows no idempotency
key and lets nothing be read back, so a lost answer stays a doubt.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import requests
from pydantic import SecretStr

from connectors import cards
from connectors.base import (
    Ambiguous,
    DeliveryError,
    Receipt,
    Refused,
    Transient,
    Unauthorized,
)
from connectors.http import Http, error_for
from connectors.teams_answers import error_code, json_object
from connectors.teams_token import BotToken

Json = dict[str, Any]

#: What the service did not do, and lets be tried again.
NOT_DONE = frozenset({412, 503})
GONE = frozenset({404, 410})
_NUMBER = re.compile(r"[0-9]{1,30}")
_PRINTABLE = re.compile(r"[!-~]{1,300}")
#: What a person has to mend, by the service's own codes.
REMEDIES = {
    "BotNotRegistered": "no registration of this bot: check client_id, and that the Azure Bot "
    "has the channel Microsoft Teams",
    "BotDisabledByAdmin": "an administrator blocks the app",
    "BotNotInConversationRoster": "the bot is not in the team: install its app there",
    "ConversationBlockedByUser": "the channel's moderation keeps the bot out",
    "InvalidBotApiHost": "a tenant of another cloud: set service_url to the address for it",
    "NotEnoughPermissions": "the bot may not post in this channel",
}


class Bot:
    """Posts as a bot into one channel; safe to use from many threads."""

    def __init__(
        self,
        *,
        channel: str,
        tenant: str,
        service_url: str,
        login_url: str,
        client_id: str,
        secret: SecretStr,
        http: Http,
    ) -> None:
        self._channel = channel
        self._tenant = tenant
        self._url = f"{service_url.rstrip('/')}/v3/conversations"
        self._session = http.session()
        token_url = f"{login_url.rstrip('/')}/{quote(tenant, safe='')}/oauth2/v2.0/token"
        self._token = BotToken(token_url, client_id=client_id, secret=secret, http=http)

    def is_ours(self, thread: str | None) -> bool:
        """Say whether *thread* is one of this channel; a config may have moved to another."""
        return bool(thread) and str(thread).startswith(f"{self._channel};messageid=")

    def post(self, activity: Json, *, thread: str | None, ends_at: float) -> Receipt:
        """Answer in *thread*, or start one if there is none (any more).

        Raises :class:`DeliveryError`.
        """
        if thread is not None and self.is_ours(thread):
            receipt = self._reply(activity, thread=thread, ends_at=ends_at)
            if receipt is not None:
                return receipt
        return self._start(activity, ends_at=ends_at)

    def check(self, *, ends_at: float) -> str:
        """Look the channel up, change nothing, and say what was found."""
        url = f"{self._url}/{quote(self._channel, safe='')}/pagedmembers?pageSize=50"
        error = _fault(self._call("GET", url, ends_at=ends_at), safe=True)
        if isinstance(error, Refused):
            raise Unauthorized(str(error), status=error.status)
        if error is not None:
            raise error
        return "the bot is in the channel's team"

    def close(self) -> None:
        self._session.close()
        self._token.close()

    def _start(self, activity: Json, *, ends_at: float) -> Receipt:
        asked = {
            "isGroup": True,
            "tenantId": self._tenant,
            "channelData": {"channel": {"id": self._channel}, "tenant": {"id": self._tenant}},
            "activity": activity,
        }
        response = self._call("POST", self._url, asked, ends_at=ends_at)
        if response.status_code == 400 and error_code(response) == "BadSyntax":
            # What can be wrong with its syntax is the same for every event.
            said = "answered 400: BadSyntax: check channel and tenant_id"
            raise Unauthorized(said, status=400)
        _raise_fault(response)
        root = _root(response)
        return Receipt(reference=root, thread=f"{self._channel};messageid={root}")

    def _reply(self, activity: Json, *, thread: str, ends_at: float) -> Receipt | None:
        url = f"{self._url}/{quote(thread, safe='')}/activities"
        response = self._call("POST", url, activity, ends_at=ends_at)
        if response.status_code in GONE:
            return None
        _raise_fault(response)
        return Receipt(reference=_reply_id(response), thread=thread)

    def _call(
        self, method: str, url: str, body: Json | None = None, *, ends_at: float
    ) -> requests.Response:
        header = self._token.header(ends_at=ends_at)
        response = self._send(method, url, body, header=header)
        if response.status_code == 401:
            header = self._token.header(ends_at=ends_at, refused=header)
            response = self._send(method, url, body, header=header)
        return response

    def _send(self, method: str, url: str, body: Json | None, *, header: str) -> requests.Response:
        return self._session.request(
            method,
            url,
            data=None if body is None else cards.encode(body),
            headers={"Authorization": header, "Content-Type": "application/json; charset=utf-8"},
        )


def _raise_fault(response: requests.Response) -> None:
    error = _fault(response)
    if error is not None:
        raise error


def _fault(response: requests.Response, *, safe: bool = False) -> DeliveryError | None:
    """Read a status as Microsoft documents it; None if all is well."""
    status, code = response.status_code, error_code(response)
    detail = ": ".join(filter(None, [code, REMEDIES.get(code, "")]))
    said = f"answered {status}" + (f": {detail}" if detail else "")
    if status in GONE:
        return Unauthorized(f"{said}; the channel is gone, or channel names none", status=status)
    if status in NOT_DONE:
        return Transient(said, status=status)
    return error_for(status, headers=response.headers, detail=detail, safe=safe)


def _root(response: requests.Response) -> str:
    """Return the id of the message that a thread was started with."""
    answer = json_object(response) or {}
    _, _, within = str(answer.get("id", "")).partition(";messageid=")
    root = str(answer.get("activityId") or within)
    if not _NUMBER.fullmatch(root):
        raise _unnamed(response)
    return root


def _reply_id(response: requests.Response) -> str:
    made = (json_object(response) or {}).get("id")
    if not isinstance(made, str) or not _PRINTABLE.fullmatch(made):
        raise _unnamed(response)
    return made


def _unnamed(response: requests.Response) -> Ambiguous:
    status = response.status_code
    return Ambiguous(f"answered {status} without the id of what it posted", status=status)
