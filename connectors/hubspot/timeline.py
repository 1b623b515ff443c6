"""The timeline of a contact in HubSpot: its communications and tasks, written once each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from connectors.base import Ambiguous
from connectors.hubspot.api import Api, dicts, is_id, properties, text
from connectors.hubspot.sms import Sms, entry_body, moment, stamp

OBJECTS = "/crm/objects/2026-09"
ASSOCIATIONS = "/crm/associations/2026-09/contacts"
Kind = Literal["communications", "tasks"]

#: HubSpot's ids of the associations from an entry to its contact and its ticket.
TO_CONTACT: Mapping[Kind, int] = {"communications": 81, "tasks": 204}
TO_TICKET: Mapping[Kind, int] = {"communications": 83, "tasks": 230}
#: Most records in one batch read.
BATCH = 100
#: How far HubSpot's clock and ours may differ while we look for an entry made since an event.
CLOCK_SLACK = timedelta(days=1)


class Timeline:
    """Reads and writes what stands on contacts' timelines."""

    def __init__(self, api: Api, *, owner: str | None) -> None:
        self.api = api
        self.owner = owner

    def find(self, contact: str, *, mark: str, since: datetime) -> dict[str, Any] | None:
        """Find the communication that an earlier attempt made, newest first."""
        names = ["hs_communication_body", "hs_timestamp"]
        for rows in self.newest("communications", contact=contact, names=names):
            for row in rows:
                if mark in (text(properties(row), "hs_communication_body") or ""):
                    return row
            if rows and all(_is_older(row, since - CLOCK_SLACK) for row in rows):
                break
        return None

    def log(self, sms: Sms, *, contact: str, ticket: str | None) -> dict[str, Any]:
        """Make the communication; HubSpot has no fields for direction and numbers."""
        values = {
            "hs_communication_channel_type": "SMS",
            "hs_communication_logged_from": "CRM",
            "hs_communication_body": entry_body(sms.words, mark=sms.mark),
            "hs_timestamp": stamp(moment(sms.event)),
        } | ({"hubspot_owner_id": self.owner} if self.owner else {})
        return self.add("communications", values, contact=contact, ticket=ticket)

    def newest(
        self, kind: Kind, *, contact: str, names: list[str]
    ) -> Iterator[list[dict[str, Any]]]:
        """Read the entries of *contact*, the newest hundred first."""
        ids = sorted(self._ids(kind, contact), key=int, reverse=True)
        for start in range(0, len(ids), BATCH):
            asked = {
                "inputs": [{"id": each} for each in ids[start : start + BATCH]],
                "properties": names,
                "propertiesWithHistory": [],
            }
            yield self.api.rows("POST", f"{OBJECTS}/{kind}/batch/read", body=asked)

    def add(
        self, kind: Kind, values: Mapping[str, str], *, contact: str, ticket: str | None
    ) -> dict[str, Any]:
        """Make an entry; who cannot bear two of them looks first."""
        links = [associated(contact, TO_CONTACT[kind])]
        links += [associated(ticket, TO_TICKET[kind])] if ticket else []
        body = {"properties": dict(values), "associations": links}
        row = self.api.call("POST", f"{OBJECTS}/{kind}", body=body, once=True)
        if not isinstance(row, dict) or text(row, "id") is None:
            raise Ambiguous(f"one of {kind} was sent, but the answer names none")
        return row

    def _ids(self, kind: Kind, contact: str) -> Iterator[str]:
        after: str | None = None
        while True:
            wanted = {"id": contact} | ({"after": after} if after else {})
            path = f"{ASSOCIATIONS}/{kind}/batch/read"
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
