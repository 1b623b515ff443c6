"""Custom channels of the HubSpot stand-in: their messages are threads of the inbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from connectors.sandbox.hubspot_rules import invalid, not_found, required

Json = dict[str, Any]
#: The registered channel, and the inbox that it feeds.
CHANNEL_ID, INBOX_ID = "601", "701"
IDENTIFIERS = {
    *("CHANNEL_SPECIFIC_OPAQUE_ID", "HS_EMAIL_ADDRESS"),
    *("HS_PHONE_NUMBER", "HS_SHORT_CODE"),
}


class Inbox:
    """Channel accounts and their messages."""

    def __init__(self, *, new_id: Callable[[], str], accounts_a_page: int = 100) -> None:
        self._new_id = new_id
        self._accounts_a_page = accounts_a_page
        self._accounts: dict[str, Json] = {}
        self._messages: list[Json] = []
        self._published: dict[str, Json] = {}
        self._threads: dict[str, str] = {}

    def messages(self) -> tuple[Json, ...]:
        """Return every message, in order of arrival."""
        return tuple(self._messages)

    def accounts(self, channel: str, *, after: int = 0) -> Json:
        """Return a page of the channel's accounts."""
        _expect_channel(channel)
        found, end = list(self._accounts.values()), after + self._accounts_a_page
        page: Json = {"total": len(found), "results": found[after:end]}
        return page | ({"paging": {"next": {"after": str(end)}}} if end < len(found) else {})

    def connect(self, channel: str, asked: Mapping[str, Any]) -> Json:
        """Make a channel account."""
        _expect_channel(channel)
        required(asked, "authorized", "inboxId", "name")
        if asked["inboxId"] != INBOX_ID:
            raise invalid(f"Inbox {asked['inboxId']} does not exist")
        made: Json = {
            "id": self._new_id(),
            "channelId": channel,
            "active": True,
            "archived": False,
            "createdAt": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        names = ("authorized", "inboxId", "name", "deliveryIdentifier")
        self._accounts[made["id"]] = made | {name: asked.get(name) for name in names}
        return self._accounts[made["id"]]

    def disconnect(self, account: str) -> None:
        """Remove a channel account, as a person can."""
        self._accounts.pop(account, None)

    def publish(self, channel: str, asked: Mapping[str, Any]) -> tuple[Json, bool]:
        """Add a message, and return whether it is new: one idempotency id makes one message."""
        _expect_channel(channel)
        _expect_message(asked)
        if asked["channelAccountId"] not in self._accounts:
            raise invalid(f"Channel account {asked['channelAccountId']} does not exist")
        key = asked.get("integrationIdempotencyId")
        if key in self._published:
            return self._published[key], False
        made = self._message(channel, asked)
        self._messages.append(made)
        if key:
            self._published[key] = made
        return made, True

    def _message(self, channel: str, asked: Mapping[str, Any]) -> Json:
        thread = asked.get("integrationThreadId") or self._new_id()
        names = ("channelAccountId", "text", "senders", "recipients", "attachments")
        return {name: asked[name] for name in names} | {
            "id": self._new_id(),
            "type": "MESSAGE",
            "archived": False,
            "channelId": channel,
            "client": {"clientType": "INTEGRATION"},
            "conversationsThreadId": self._threads.setdefault(thread, self._new_id()),
            "createdAt": asked["timestamp"],
            "createdBy": "I-1",
            "direction": asked["messageDirection"],
            "truncationStatus": "NOT_TRUNCATED",
            "associateWithContactId": asked.get("associateWithContactId"),
        }


def _expect_channel(channel: str) -> None:
    if channel != CHANNEL_ID:
        raise not_found(f"channel {channel} does not exist")


def _expect_message(asked: Mapping[str, Any]) -> None:
    required(asked, "attachments", "channelAccountId", "messageDirection", "recipients")
    required(asked, "senders", "text", "timestamp")
    if asked["messageDirection"] not in ("INCOMING", "OUTGOING"):
        raise invalid("messageDirection must be INCOMING or OUTGOING")
    for party in (*asked["senders"], *asked["recipients"]):
        identifier = party.get("deliveryIdentifier") or {}
        required(identifier, "type", "value")
        if identifier["type"] not in IDENTIFIERS:
            raise invalid(f"{identifier['type']} is no type of a delivery identifier")
    try:
        datetime.fromisoformat(asked["timestamp"])
    except (TypeError, ValueError):
        raise invalid("timestamp is no time") from None
