"""The timeline of a contact in HubSpot: its communications and tasks, written once each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from connectors.base import Ambiguous
from connectors.hubspot.answers import dicts, is_id, new_id, properties, text
from connectors.hubspot.api import Api
from connectors.hubspot.contacts import OWNER
from connectors.hubspot.errors import Invalid, after_acting, blamed
from connectors.hubspot.sms import Sms, entry_body, moment, stamp

OBJECTS = "/crm/objects/2026-09"
ASSOCIATIONS = "/crm/associations/2026-09"
Kind = Literal["communications", "tasks"]

#: HubSpot's ids of the associations from an entry to its contact and its ticket.
TO_CONTACT: Mapping[Kind, int] = {"communications": 81, "tasks": 204}
TASK_TO_TICKET = 230
#: Most records in one batch read.
BATCH = 100
#: How far HubSpot's clock and ours may differ while we look for an entry made since an event.
CLOCK_SLACK = timedelta(days=1)


class Timeline:
    """Reads and writes the entries on contacts' timelines."""

    def __init__(self, api: Api, *, owner: str | None) -> None:
        self.api = api
        self.owner = owner

    def find(self, contact: str, *, mark: str, since: datetime) -> dict[str, Any] | None:
        """Return the communication that an earlier attempt made, if there is one."""
        names = ["hs_communication_body", "hs_timestamp"]
        for rows in self.newest("communications", contact=contact, names=names):
            for row in rows:
                if mark in (text(properties(row), "hs_communication_body") or ""):
                    return row
            if rows and all(_is_older(row, since - CLOCK_SLACK) for row in rows):
                break
        return None

    def entry(self, sms: Sms) -> dict[str, str]:
        """Return the properties of the communication; none is for direction or numbers."""
        return {
            "hs_communication_channel_type": "SMS",
            "hs_communication_logged_from": "CRM",
            "hs_communication_body": entry_body(sms.words, mark=sms.mark),
            "hs_timestamp": stamp(moment(sms.event)),
        } | ({OWNER: self.owner} if self.owner else {})

    def log(self, sms: Sms, *, contact: str) -> dict[str, Any]:
        """Make the communication."""
        links = [associated(contact, TO_CONTACT["communications"])]
        try:
            row = self.add("communications", self.entry(sms), links)
        except Invalid as error:
            raise blamed(error, {OWNER: "is owner_id right?"}) from error
        if row is None:
            # The status says that it is there, even if the rest of the answer says nothing.
            with after_acting("the SMS is in HubSpot"):
                row = self.find(contact, mark=sms.mark, since=sms.event.received_at)
        if row is None:
            raise Ambiguous("the SMS was sent, but neither the answer nor the timeline names it")
        return row

    def add(
        self, kind: Kind, values: Mapping[str, str], links: list[dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Make an entry and return it; None if the answer does not name it."""
        body = {"properties": dict(values), "associations": links}
        row = self.api.call("POST", f"{OBJECTS}/{kind}", body=body, once=True)
        return row if isinstance(row, dict) and new_id(row) else None

    def newest(
        self, kind: Kind, *, contact: str, names: list[str]
    ) -> Iterator[list[dict[str, Any]]]:
        """Read the entries of *contact*, the newest hundred first."""
        ids = sorted(self.linked("contacts", contact, kind), key=int, reverse=True)
        for start in range(0, len(ids), BATCH):
            asked = {
                "inputs": [{"id": each} for each in ids[start : start + BATCH]],
                "properties": names,
                "propertiesWithHistory": [],
            }
            yield self.api.rows("POST", f"{OBJECTS}/{kind}/batch/read", body=asked)

    def linked(self, kind: str, record: str, to: str) -> Iterator[str]:
        """Yield the ids of what a record is associated with."""
        after: str | None = None
        while True:
            wanted = {"id": record} | ({"after": after} if after else {})
            path = f"{ASSOCIATIONS}/{kind}/{to}/batch/read"
            rows = self.api.rows("POST", path, body={"inputs": [wanted]})
            for row in rows:
                found = (text(each, "toObjectId") for each in dicts(row, "to"))
                yield from (each for each in found if each and is_id(each))
            nexts = [row["paging"] for row in rows if isinstance(row.get("paging"), dict)]
            after = next((text(each.get("next"), "after") for each in nexts), None)
            if after is None:
                return


def associated(record: str, kind: int) -> dict[str, Any]:
    """Name a record to associate a new one with."""
    types = [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": kind}]
    return {"to": {"id": record}, "types": types}


def _is_older(record: Mapping[str, Any], when: datetime) -> bool:
    try:
        return datetime.fromisoformat(text(record, "createdAt") or "") < when
    except (ValueError, TypeError):
        return False
