"""A bot in a Teams channel: starts threads there and answers in them (Bot Framework REST).

The connector service returns ids, so a conversation keeps its thread. It takes no idempotency key
and lets nothing be read back, so a lost answer stays ambiguous.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from connectors.base import (
    DeliveryError,
    Event,
    Receipt,
    Refused,
    Transient,
    Unauthorized,
)
from connectors.http import Http, error_for, json_object, retry_after
from connectors.oauth import AccessToken
from connectors.teams import cards
from connectors.teams.options import TeamsOptions

Json = dict[str, Any]

#: Scope of a token in Microsoft's public cloud, and the seconds before its end at which it is
#: replaced.
SCOPE = "https://api.botframework.com/.default"
MARGIN = 300.0

#: Statuses after which nothing was done and a retry is welcome.
NOT_DONE = frozenset({412, 503})
GONE = frozenset({404, 410})
_NUMBER = re.compile(r"[0-9]{1,30}")
_PRINTABLE = re.compile(r"[!-~]{1,300}")
_CODE = re.compile(r"[A-Za-z0-9]{1,60}")
#: Advice by the service's own codes.
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

    def __init__(self, options: TeamsOptions, http: Http) -> None:
        assert options.channel and options.tenant_id and options.client_id
        assert options.client_secret is not None
        self._options = options
        self._channel = options.channel
        self._tenant = str(options.tenant_id)
        self._url = f"{options.service_url}/v3/conversations"
        self._session = http.session()
        grant = {
            "grant_type": "client_credentials",
            "client_id": str(options.client_id),
            "client_secret": options.client_secret,
            "scope": SCOPE,
        }
        token_url = f"{options.login_url}/{self._tenant}/oauth2/v2.0/token"
        self._token = AccessToken(token_url, grant, http=http, margin=MARGIN)

    def post(self, event: Event, *, thread: str | None, repeat: bool) -> Receipt:
        """Post a card for *event* in *thread*, or start a thread if there is none or it is gone.

        Raises :class:`DeliveryError`.
        """
        # A thread of another channel stays alone: the destination has moved since.
        if thread is not None and thread.startswith(f"{self._channel};messageid="):
            receipt = self._reply(self._activity(event, repeat, in_thread=True), thread=thread)
            if receipt is not None:
                return receipt
        return self._start(self.message(event, repeat=repeat))

    def check(self) -> str:
        """Look the channel up, change nothing, and say whether the bot is there."""
        url = f"{self._url}/{quote(self._channel, safe='')}/pagedmembers?pageSize=50"
        error = _fault(self._call("GET", url), safe=True)
        if isinstance(error, Refused):
            raise Unauthorized(str(error), status=error.status)
        if error is not None:
            raise error
        return f"{urlsplit(self._url).hostname}: the bot is in the team of the channel"

    def close(self) -> None:
        self._session.close()
        self._token.close()

    def _activity(self, event: Event, repeat: bool, *, in_thread: bool) -> Json:
        return cards.activity(event, options=self._options, repeat=repeat, in_thread=in_thread)

    def message(self, event: Event, *, repeat: bool = False) -> Json:
        """Return what starts a thread with *event*. Raises :class:`Refused`."""
        return {
            "isGroup": True,
            "tenantId": self._tenant,
            "channelData": {"channel": {"id": self._channel}, "tenant": {"id": self._tenant}},
            "activity": self._activity(event, repeat, in_thread=False),
        }

    def _start(self, asked: Json) -> Receipt:
        response = self._call("POST", self._url, asked)
        if response.status_code == 400 and error_code(response) == "BadSyntax":
            # A wrong channel or tenant is wrong for every event.
            said = "answered 400: BadSyntax: check channel and tenant_id"
            raise Unauthorized(said, status=400)
        _raise_fault(response)
        if root := _root(response):
            return Receipt(reference=root, thread=f"{self._channel};messageid={root}")
        return Receipt(reference=_unnamed(response))

    def _reply(self, activity: Json, *, thread: str) -> Receipt | None:
        url = f"{self._url}/{quote(thread, safe='')}/activities"
        response = self._call("POST", url, activity)
        if response.status_code in GONE:
            return None
        _raise_fault(response)
        return Receipt(reference=_reply_id(response) or _unnamed(response), thread=thread)

    def _call(self, method: str, url: str, body: Json | None = None) -> requests.Response:
        data = None if body is None else cards.encode(body)

        def send(token: str) -> requests.Response:
            headers = {
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json; charset=utf-8",
            }
            return self._session.request(method, url, data=data, headers=headers)

        return self._token.signed_in(send)


def error_code(response: requests.Response) -> str:
    """Return the vendor's error code, or nothing; the message beside it may quote the address."""
    answer = json_object(response) or {}
    inner = answer.get("error")
    code = (inner if isinstance(inner, dict) else answer).get("code")
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


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
        return Transient(said, status=status, retry_after=retry_after(response.headers))
    return error_for(status, headers=response.headers, detail=detail, safe=safe)


def _root(response: requests.Response) -> str | None:
    """Return the id of the message that a thread was started with, if the answer names it."""
    answer = json_object(response) or {}
    _, _, within = str(answer.get("id", "")).partition(";messageid=")
    root = str(answer.get("activityId") or within)
    return root if _NUMBER.fullmatch(root) else None


def _reply_id(response: requests.Response) -> str | None:
    made = (json_object(response) or {}).get("id")
    return made if isinstance(made, str) and _PRINTABLE.fullmatch(made) else None


def _unnamed(response: requests.Response) -> str:
    """Refer to a message whose id could not be read: the status says that it is there."""
    return f"posted ({response.status_code}), id unknown"
