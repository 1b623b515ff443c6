"""The conversations inbox of HubSpot: messages of a custom channel, one thread a conversation."""

from __future__ import annotations

import re
from typing import Any

from connectors.base import Ambiguous, Refused, Transient, Unauthorized
from connectors.hubspot.answers import dicts, text
from connectors.hubspot.api import Api
from connectors.hubspot.options import InboxOptions
from connectors.hubspot.sms import Sms, cleaned, digest, is_from_customer, moment, stamp
from connectors.plain import spoken

CHANNELS = "/conversations/custom-channels/2026-09/{channel}"
Json = dict[str, Any]


class Inbox:
    """Publishes messages through one custom channel."""

    def __init__(self, api: Api, options: InboxOptions) -> None:
        self.api = api
        self.options = options
        self._channel = {"channel": options.channel_id}

    def publish(self, sms: Sms, *, contact: str) -> str:
        """Publish the SMS once, and return the id of the message."""
        account = self._account(sms.event.ours or "")
        ids = {"channelAccountId": account, "associateWithContactId": int(contact)}
        asked = self.message(sms) | ids
        made = self._published(asked, repeat=sms.repeat)
        # One idempotency id makes one message: to send it again is to look it up.
        made = made or self._published(asked, repeat=True)
        if made is None:
            raise Ambiguous("a message was published, but no answer names it")
        return made

    def message(self, sms: Sms) -> Json:
        """Return the message, except the ids of its contact and its channel account."""
        event = sms.event
        incoming = is_from_customer(event)
        return {
            "attachments": [],
            "messageDirection": "INCOMING" if incoming else "OUTGOING",
            "senders": [_party(event.customer if incoming else event.ours)],
            "recipients": [_party(event.ours if incoming else event.customer)],
            "text": cleaned(spoken(event)),
            "timestamp": stamp(moment(event)),
            "integrationThreadId": sms.conversation,
            "integrationIdempotencyId": digest(sms.key),
        }

    def _published(self, asked: Json, *, repeat: bool) -> str | None:
        """Return the id of the message, or words if a repetition is refused as one."""
        try:
            made = self.api.call("POST", CHANNELS + "/messages", ids=self._channel, body=asked)
        except Refused as error:
            if not (repeat and error.status == 409):
                raise
            return "published by an earlier attempt"
        return text(made, "id")

    def accounts(self) -> list[Json]:
        """Return the channel's accounts: our numbers that are connected to an inbox."""
        found: list[Json] = []
        after: str | None = None
        while True:
            query = {"limit": 100} | ({"after": after} if after else {})
            answer = self._asked(query)
            found += dicts(answer, "results")
            paging = answer.get("paging")
            after = text(paging.get("next"), "after") if isinstance(paging, dict) else None
            if after is None:
                return found

    def connect(self, number: str) -> None:
        """Connect one of our numbers to the inbox."""
        body = {
            "authorized": True,
            "inboxId": self.options.inbox_id,
            "name": f"SMS {number}",
            "deliveryIdentifier": _party(number)["deliveryIdentifier"],
        }
        path = CHANNELS + "/channel-accounts"
        self.api.call("POST", path, ids=self._channel, body=body, once=True)

    def _asked(self, query: Json) -> Json:
        path = CHANNELS + "/channel-accounts"
        try:
            answer = self.api.call("GET", path, ids=self._channel, query=query)
        except Refused as error:
            if error.status != 404:
                raise
            raise Unauthorized(f"{error} (is inbox.channel_id right?)", status=404) from error
        if not isinstance(answer, dict) or not isinstance(answer.get("results"), list):
            raise Transient("answered with something else than a list of channel accounts")
        return answer

    def _account(self, ours: str) -> str:
        usable = [each for each in self.accounts() if is_usable(each)]
        channel = f"channel {self.options.channel_id}"
        setup = "connect it with gofax-relay connectors setup"
        if not usable:
            raise Unauthorized(f"{channel} has no account for any number of ours: {setup}")
        for each in usable:
            if connected(each) == ours and (account := text(each, "id")):
                return account
        raise Refused(f"{channel} has no account for our number in this event: {setup}")


def connected(account: Json) -> str | None:
    """Return the number of a channel account."""
    return text(account.get("deliveryIdentifier"), "value")


def is_usable(account: Json) -> bool:
    """Return whether messages can be published through a channel account."""
    return bool(account.get("active", True)) and not account.get("archived")


def _party(number: str | None) -> Json:
    value = number or "unknown"
    kind = "CHANNEL_SPECIFIC_OPAQUE_ID"
    if re.fullmatch(r"\+[0-9]{7,15}", value):
        kind = "HS_PHONE_NUMBER"
    elif re.fullmatch(r"[0-9]{3,8}", value):
        kind = "HS_SHORT_CODE"
    return {"deliveryIdentifier": {"type": kind, "value": value}}
