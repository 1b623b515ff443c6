"""Logs each SMS on the timeline of the customer's contact in HubSpot."""

from __future__ import annotations

import hashlib
import html
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, SecretStr

from connectors.base import (
    Ambiguous,
    Connector,
    DeliveryError,
    Event,
    Options,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.http import Http
from connectors.hubspot_api import Api, dicts, is_id, properties, text
from connectors.hubspot_contacts import CONTACTS, Contacts, e164
from connectors.text import parties, spoken, title

COMMUNICATIONS = "/crm/objects/2026-09/communications"
ASSOCIATIONS = "/crm/associations/2026-09/contacts/communications"
ACCOUNT = "/account-info/2026-09/details"

#: HubSpot's id of the association from a communication to its contact.
COMMUNICATION_TO_CONTACT = 81
#: Longest text that HubSpot takes for a communication, mark-up included.
MAX_BODY = 65_536
#: Most records in one batch read.
BATCH = 100
#: How far HubSpot's clock and ours may differ while we look for an entry made since an event.
CLOCK_SLACK = timedelta(days=1)
CUT_NOTE = "… (shortened: HubSpot takes no more in one entry)"

_NOT_IN_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def _fit_for_a_header(token: SecretStr) -> SecretStr:
    # What a header cannot carry would be quoted in the error of the HTTP library.
    if not re.fullmatch(r"[!-~]+", token.get_secret_value()):
        raise ValueError("must be one word of printable ASCII characters")
    return token


class HubSpotOptions(Options):
    """What a HubSpot destination can be told."""

    access_token: Annotated[SecretStr, AfterValidator(_fit_for_a_header)] = Field(
        description="Service key (Settings > Integrations > Service Keys) with the scopes "
        "crm.objects.contacts.read and crm.objects.contacts.write."
    )
    base_url: str = Field(
        default="https://api.hubapi.com",
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
        description="Address of HubSpot's API, or of a stand-in.",
    )
    unknown_contact: Literal["create", "skip"] = Field(
        default="create",
        description="When no contact has the customer's number: create one, or skip the event.",
    )
    owner_id: str | None = Field(
        default=None,
        pattern=r"^[0-9]+$",
        description="HubSpot id of the owner whom the timeline shows as the entry's creator.",
    )
    unique_property: str = Field(
        default="sms_relay_phone",
        pattern=r"^[a-z][a-z0-9_]*$",
        description="Contact property with unique values that holds the customer's number.",
    )


class HubSpot(Connector[HubSpotOptions]):
    """Finds or creates the contact by phone number and logs the SMS as a communication."""

    Options = HubSpotOptions
    default_rate: ClassVar[str | None] = "100/10s"

    def __init__(self, options: HubSpotOptions, *, http: Http) -> None:
        super().__init__(options, http=http)
        self._api = Api(
            base_url=options.base_url,
            token=options.access_token.get_secret_value(),
            unique_property=options.unique_property,
            http=http,
        )
        self._contacts = Contacts(
            self._api,
            unique_property=options.unique_property,
            may_create=options.unknown_contact == "create",
        )

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        """Log *event* once on the timeline of its customer's contact."""
        with self.http.within(deadline):
            if thread is not None and is_id(thread):
                receipt = self._log(event, contact=thread, key=key, repeat=repeat)
                if receipt is not None:
                    return receipt
            return self._log_on_found(event, key=key, repeat=repeat)

    def check(self) -> str:
        """Read contacts, change nothing, and say which account answers."""
        with self.http.within(self.http.default_deadline):
            try:
                self._api.rows("GET", CONTACTS, query={"limit": 1})
                keyed = self._contacts.are_keyed()
            except Refused as error:
                raise Unauthorized(f"{error} (is base_url right?)", status=error.status) from error
            except Throttled as error:
                raise Transient(str(error), status=error.status) from error
            return f"{self._account()}: the service key may read contacts{_caution(keyed)}"

    def close(self) -> None:
        """Release connections."""
        self._api.close()

    def _account(self) -> str:
        try:
            details = self._api.call("GET", ACCOUNT)
        except DeliveryError:
            return "HubSpot"
        return f"HubSpot account {text(details, 'portalId') or '(unnamed)'}"

    def _log_on_found(self, event: Event, *, key: str, repeat: bool) -> Receipt:
        number = e164(event.customer)
        if number is None and self.options.unknown_contact == "skip":
            return Receipt(reference="skipped: the event names no phone number of a customer")
        if number is None:
            raise Refused("the event names no international phone number to find a contact by")
        contact = self._contacts.find(number)
        if contact is None:
            return Receipt(reference="skipped: no contact has the customer's number")
        receipt = self._log(event, contact=contact, key=key, repeat=repeat)
        if receipt is None:
            raise Transient(f"contact {contact} disappeared while the entry was made")
        return receipt

    def _log(self, event: Event, *, contact: str, key: str, repeat: bool) -> Receipt | None:
        """Log *event* on *contact*; None if there is no such contact (any more)."""
        marker = _marker(key)
        entry = _entry(event, contact=contact, marker=marker, owner=self.options.owner_id)
        try:
            row = self._logged(contact, marker=marker, since=event.received_at) if repeat else None
            if row is None:
                row = self._api.call("POST", COMMUNICATIONS, body=entry, once=True)
        except Refused as error:
            if error.status not in (400, 404) or self._contacts.exists(contact):
                raise
            return None
        reference = text(row, "id")
        if reference is None:
            raise Ambiguous("a communication was sent, but the answer names none")
        return Receipt(reference=reference, url=_link(row), thread=contact)

    def _logged(self, contact: str, *, marker: str, since: datetime) -> Any:
        """Find the entry that an earlier attempt made, newest first."""
        ids = sorted(self._communications(contact), key=int, reverse=True)
        for start in range(0, len(ids), BATCH):
            rows = self._bodies(ids[start : start + BATCH])
            for row in rows:
                if marker in (text(properties(row), "hs_communication_body") or ""):
                    return row
            if rows and all(_is_older(row, since - CLOCK_SLACK) for row in rows):
                break
        return None

    def _bodies(self, ids: list[str]) -> list[dict[str, Any]]:
        asked = {
            "inputs": [{"id": each} for each in ids],
            "properties": ["hs_communication_body", "hs_timestamp"],
            "propertiesWithHistory": [],
        }
        return self._api.rows("POST", COMMUNICATIONS + "/batch/read", body=asked)

    def _communications(self, contact: str) -> Iterator[str]:
        after: str | None = None
        while True:
            wanted = {"id": contact} | ({"after": after} if after else {})
            rows = self._api.rows("POST", ASSOCIATIONS + "/batch/read", body={"inputs": [wanted]})
            for row in rows:
                found = (text(each, "toObjectId") for each in dicts(row, "to"))
                yield from (each for each in found if each and is_id(each))
            nexts = [row["paging"] for row in rows if isinstance(row.get("paging"), dict)]
            after = next((text(each.get("next"), "after") for each in nexts), None)
            if after is None:
                return


def _marker(key: str) -> str:
    """Return the words by which an entry is found again."""
    return f"gofax-relay {hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _entry(event: Event, *, contact: str, marker: str, owner: str | None) -> dict[str, Any]:
    filled = {
        "hs_communication_channel_type": "SMS",
        "hs_communication_logged_from": "CRM",
        "hs_communication_body": _body(event, marker=marker),
        "hs_timestamp": _moment(event).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    if owner is not None:
        filled["hubspot_owner_id"] = owner
    association = {
        "associationCategory": "HUBSPOT_DEFINED",
        "associationTypeId": COMMUNICATION_TO_CONTACT,
    }
    return {
        "properties": filled,
        "associations": [{"to": {"id": contact}, "types": [association]}],
    }


def _body(event: Event, *, marker: str) -> str:
    """Write the entry; it has no fields for direction and numbers, so the text says them."""
    before = _html(f"{title(event)} · {parties(event)}"[:500] + "\n\n")
    after = _html(f"\n\n{marker}")
    return before + _fitted(spoken(event), room=MAX_BODY - _size(before + after)) + after


def _fitted(words: str, *, room: int) -> str:
    """Write as many *words* as fit, and say so if these are not all."""
    written = _html(words)
    if _size(written) <= room:
        return written
    words = _cleaned(words)
    sizes = list(accumulate(_size(_html(character)) for character in words))
    return _html(words[: bisect_right(sizes, room - _size(_html(CUT_NOTE)))] + CUT_NOTE)


def _html(words: str) -> str:
    return html.escape(_cleaned(words)).replace("\n", "<br>")


def _cleaned(words: str) -> str:
    words = words.replace("\r\n", "\n").replace("\r", "\n")
    return _NOT_IN_TEXT.sub("\N{REPLACEMENT CHARACTER}", words)


def _size(words: str) -> int:
    # UTF-16 units: the count of most JVM systems, and never less than that of characters.
    return len(words.encode("utf-16-le")) // 2


def _moment(event: Event) -> datetime:
    """Return when it happened; a sender's clock that is plainly wrong does not count."""
    happened = event.occurred_at
    if happened is None or happened.year < 2000 or happened > event.received_at:
        happened = event.received_at
    return happened.astimezone(UTC)


def _is_older(record: Mapping[str, Any], moment: datetime) -> bool:
    try:
        return datetime.fromisoformat(text(record, "createdAt") or "") < moment
    except (ValueError, TypeError):
        return False


def _link(record: object) -> str | None:
    url = text(record, "url") or ""
    return url if url.startswith(("https://", "http://")) else None


def _caution(keyed: bool) -> str:
    if keyed:
        return ""
    return ", but the unique property is missing, so one customer may get two contacts"
