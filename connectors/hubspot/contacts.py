"""The one contact in HubSpot that has a phone number: found, adopted or created."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import phonenumbers

from connectors.base import Ambiguous, Refused, Transient
from connectors.hubspot.api import Api, Conflict, NoOwner, NoProperty, properties, record_id, text

CONTACTS = "/crm/objects/2026-09/contacts"
#: Phone properties of which HubSpot makes others: as E.164, and without the country code.
CALCULATED = {
    "phone": ("hs_calculated_phone_number", "hs_searchable_calculated_phone_number"),
    "mobilephone": ("hs_calculated_mobile_number", "hs_searchable_calculated_mobile_number"),
}
OWNER = "hubspot_owner_id"
#: Most groups of filters in one search; they are alternatives.
GROUPS = 5
#: Most records in one batch.
BATCH = 100

Made = TypeVar("Made")


class Contacts:
    """Finds the one contact of a phone number, or makes it."""

    def __init__(
        self,
        api: Api,
        *,
        unique_property: str,
        phones: Sequence[str],
        may_create: bool,
        owner: str | None,
    ) -> None:
        """*owner*: who has what belongs to contacts without an owner."""
        self.api = api
        self.default_owner = owner
        self.key = unique_property
        self.phones = tuple(dict.fromkeys(phones))
        self.may_create = may_create

    def find(self, number: str) -> str | None:
        """Return the id of the contact with *number*; None if there is none and may be none."""
        try:
            contact = self._keyed(number)
            keyed = True
        except NoProperty:
            contact, keyed = None, False
        contact = contact or self._known(number, keyed=keyed)
        if contact or not self.may_create:
            return contact
        return self._upserted(number) if keyed else self._created(number)

    def exists(self, contact: str) -> bool:
        """Say whether there is a contact with this very id: one that was merged has another."""
        return self._read(contact) == contact

    def owned(self, contact: str, make: Callable[[Mapping[str, str]], Made]) -> Made:
        """Let *make* make something that the owner of *contact* shall have.

        HubSpot refuses owners who have left; then it is the configured one's.
        """
        owner = self._owner(contact)
        if owner is not None and owner != self.default_owner:
            try:
                return make({OWNER: owner})
            except NoOwner:
                pass
        return make({OWNER: self.default_owner} if self.default_owner else {})

    def _owner(self, contact: str) -> str | None:
        path = CONTACTS + "/{id}"
        row = self.api.call("GET", path, ids={"id": contact}, query={"properties": OWNER})
        return text(properties(row), OWNER)

    def mark(self, number: str | None, *, contact: str, values: Mapping[str, str]) -> None:
        """Write *values* on *contact* and on every other one that has *number*."""
        rows = self._matching(number, keyed=False) if number else []
        ids = sorted({contact, *map(record_id, rows)}, key=int)
        for start in range(0, len(ids), BATCH):
            inputs = [{"id": id, "properties": dict(values)} for id in ids[start : start + BATCH]]
            self.api.rows("POST", CONTACTS + "/batch/update", body={"inputs": inputs})

    def _read(self, contact: str, **query: str) -> str | None:
        try:
            return record_id(
                self.api.call("GET", CONTACTS + "/{id}", ids={"id": contact}, query=query)
            )
        except Refused as error:
            if error.status != 404:
                raise
            return None

    def _keyed(self, number: str) -> str | None:
        return self._read(number, idProperty=self.key)

    def _known(self, number: str, *, keyed: bool) -> str | None:
        """Take the oldest contact that people gave *number*, and mark it as ours."""
        for row in self._matching(number, keyed=keyed):
            # A contact with two numbers keeps the first that it was found by.
            if not keyed or text(properties(row), self.key):
                return record_id(row)
            contact = self._adopted(record_id(row), number)
            if contact:
                return contact
        return None

    def _matching(self, number: str, *, keyed: bool) -> list[dict[str, Any]]:
        filters = self._filters(number)
        computed = [CALCULATED[name][0] for name in self.phones if name in CALCULATED]
        names = [*self.phones, *computed, *([self.key] if keyed else [])]
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(filters), GROUPS):
            asked = {
                "filterGroups": [{"filters": [each]} for each in filters[start : start + GROUPS]],
                "properties": names,
                "sorts": [],
                "limit": 200,
                "after": "0",
            }
            rows = self.api.rows("POST", CONTACTS + "/search", body=asked)
            found |= {record_id(row): row for row in rows}
        # HubSpot searches without the country code, so two countries can collide.
        matching = [id for id, row in found.items() if number in self._numbers(properties(row))]
        return [found[id] for id in sorted(matching, key=int)]

    def _filters(self, number: str) -> list[dict[str, Any]]:
        """Return what to search for, one alternative each."""
        parsed = phonenumbers.parse(number)
        national = phonenumbers.national_significant_number(parsed)
        spaced = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
        written = [number, number.removeprefix("+"), spaced]
        searchable = [CALCULATED[name][1] for name in self.phones if name in CALCULATED]
        return [
            *({"propertyName": name, "operator": "EQ", "value": national} for name in searchable),
            *({"propertyName": name, "operator": "IN", "values": written} for name in self.phones),
        ]

    def _numbers(self, record: Mapping[str, Any]) -> set[str | None]:
        """Return the numbers of a contact as E.164, as far as their country is certain."""
        found = set()
        for name in self.phones:
            written = (text(record, name) or "").strip()
            if not written.startswith("+"):
                # The country is HubSpot's guess, or else the number may have it without a plus.
                calculated = text(record, CALCULATED[name][0]) if name in CALCULATED else None
                written = "+" + (calculated or written).strip().removeprefix("+")
            found.add(e164(written))
        return found

    def _adopted(self, contact: str, number: str) -> str | None:
        """Mark *contact*; None if the search index named one that is gone."""
        body = {"properties": {self.key: number}}
        try:
            self.api.call("PATCH", CONTACTS + "/{id}", ids={"id": contact}, body=body)
        except Conflict as error:
            return self._read_again(number, error)
        except Refused as error:
            if error.status != 404:
                raise
            return None
        return contact

    def _upserted(self, number: str) -> str:
        filled = {self.key: number, "phone": number}
        wanted = {"idProperty": self.key, "id": number, "properties": filled}
        try:
            rows = self.api.rows("POST", CONTACTS + "/batch/upsert", body={"inputs": [wanted]})
            return record_id(rows[0] if rows else None)
        except Conflict as error:
            return self._read_again(number, error)

    def _created(self, number: str) -> str:
        body = {"properties": {"phone": number}, "associations": []}
        contact = text(self.api.call("POST", CONTACTS, body=body, once=True), "id")
        if contact is None:
            raise Ambiguous("a contact was sent, but the answer names none")
        return contact

    def _read_again(self, number: str, conflict: Exception) -> str:
        contact = self._keyed(number)
        if contact is None:
            raise Transient("another contact has just taken the number") from conflict
        return contact


def e164(number: str | None) -> str | None:
    """Write an international number as E.164; None for anything else."""
    if number is None or not number.startswith("+"):
        return None
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None
    written: str = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    return written
