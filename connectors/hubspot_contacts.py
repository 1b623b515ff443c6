"""The one contact in HubSpot that has a phone number: found, adopted or created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import phonenumbers

from connectors.base import Ambiguous, Refused, Transient
from connectors.hubspot_api import Api, Conflict, NoProperty, properties, record_id, text

CONTACTS = "/crm/objects/2026-09/contacts"
#: Phone properties that people fill in, and what HubSpot makes of them.
PHONES = {"phone": "hs_calculated_phone_number", "mobilephone": "hs_calculated_mobile_number"}


class Contacts:
    """Finds the one contact of a phone number, or makes it."""

    def __init__(self, api: Api, *, unique_property: str, may_create: bool) -> None:
        self.api = api
        self.key = unique_property
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

    def are_keyed(self) -> bool:
        """Say whether the account has the unique property."""
        try:
            self._keyed("+10000000000")
        except NoProperty:
            return False
        return True

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
        national = phonenumbers.national_significant_number(phonenumbers.parse(number))
        written = [number, number.removeprefix("+")]
        filters: list[dict[str, Any]] = [
            _equal("hs_searchable_calculated_phone_number", national),
            _equal("hs_searchable_calculated_mobile_number", national),
            {"propertyName": "phone", "operator": "IN", "values": written},
            {"propertyName": "mobilephone", "operator": "IN", "values": written},
        ]
        asked = {
            "filterGroups": [{"filters": [each]} for each in filters],
            "properties": [*PHONES, *PHONES.values(), *([self.key] if keyed else [])],
            "sorts": [],
            "limit": 200,
            "after": "0",
        }
        rows = self.api.rows("POST", CONTACTS + "/search", body=asked)
        # HubSpot searches without the country code, so two countries can collide.
        matching = [row for row in rows if number in _numbers(properties(row))]
        return sorted(matching, key=lambda row: int(record_id(row)))

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


def _equal(name: str, value: str) -> dict[str, str]:
    return {"propertyName": name, "operator": "EQ", "value": value}


def _numbers(record: Mapping[str, Any]) -> set[str | None]:
    """Return the numbers of a contact as E.164, as far as their country is certain."""
    found = set()
    for name, calculated in PHONES.items():
        written = text(record, name) or ""
        if not written.strip().startswith("+"):
            # The country is HubSpot's guess, or else the number may have it without a plus.
            written = text(record, calculated) or written
            written = "+" + written.strip().removeprefix("+")
        found.add(e164(written))
    return found


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
