"""The one contact in HubSpot that has a phone number: found, adopted or created."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import phonenumbers

from connectors.base import Ambiguous, Refused, Transient
from connectors.hubspot.answers import dicts, new_id, properties, record_id, text
from connectors.hubspot.api import Api
from connectors.hubspot.errors import Invalid, blamed

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
#: Seconds for which properties that the account lacks are left out.
ABSENT_KEPT = 60.0

Made = TypeVar("Made")


@dataclass(slots=True)
class Contact:
    """A contact on which one event is logged."""

    id: str
    #: Found by search: its unique property is still empty.
    unkeyed: bool = False
    #: Its owner, if it has one; None before HubSpot was asked.
    owner: tuple[str | None] | None = None


class Contacts:
    """Finds the one contact of a phone number, or makes it."""

    def __init__(
        self, api: Api, *, unique_property: str, phones: Sequence[str], owner: str | None
    ) -> None:
        """*owner*: gets what belongs to contacts without an owner."""
        self.api = api
        self.default_owner = owner
        self.key = unique_property
        self.phones = tuple(dict.fromkeys(phones))
        self._absent: dict[str, float] = {}

    def known(self, number: str) -> Iterator[Contact]:
        """Yield the contact whose unique property is *number*, or else those that have it.

        The oldest comes first. The search index may still name contacts that are gone.
        """
        keyed = None if self._is_absent(self.key) else self._keyed(number)
        if keyed:
            yield Contact(keyed)
            return
        for row in self._matching(number):
            # A contact with two numbers keeps the first as its key.
            key = text(properties(row), self.key)
            yield Contact(record_id(row), unkeyed=not key and not self._is_absent(self.key))

    def make(self, number: str, values: Mapping[str, str]) -> Contact:
        """Make the contact of *number* with *values*, or return one that was made meanwhile."""
        values = {**values, "phone": number}
        if self._is_absent(self.key):
            return self._made_unkeyed(values)
        try:
            return Contact(self._upserted(number, values))
        except Refused as error:
            if isinstance(error, Invalid) and error.is_taken(self.key):
                return self._made_elsewhere(number, error)
            names = {each.name for each in error.faults} if isinstance(error, Invalid) else {""}
            if error.status != 400 or not names & {self.key, ""} or not self._lacks_key():
                raise
        return self._made_unkeyed(values)

    def adopt(self, contact: Contact, number: str) -> str:
        """Fill in the unique property of a contact that people made.

        Returns why HubSpot refuses that, if it does: then the contact is found by search again.
        """
        body = {"properties": {self.key: number}}
        try:
            self.api.call("PATCH", CONTACTS + "/{id}", ids={"id": contact.id}, body=body)
        except Refused as error:
            if isinstance(error, Invalid) and error.is_taken(self.key):
                return ""
            return str(error)
        return ""

    def exists(self, contact: Contact) -> bool:
        """Return whether there is a contact with this very id: a merged one has another."""
        return self._read(contact.id) == contact.id

    def owned(self, contact: Contact, make: Callable[[Mapping[str, str]], Made]) -> Made:
        """Let *make* make something that belongs to the contact's owner.

        HubSpot refuses owners who have left; then it belongs to the configured one. Raises
        Unauthorized if that one is refused, too.
        """
        owner = self._owner(contact)
        if owner is not None and owner != self.default_owner:
            try:
                return make({OWNER: owner})
            except Invalid as error:
                if not error.wrong_of(OWNER):
                    raise
        try:
            return make({OWNER: self.default_owner} if self.default_owner else {})
        except Invalid as error:
            raise blamed(error, {OWNER: "is owner_id right?"}) from error

    def update(self, number: str | None, *, contact: str, values: Mapping[str, str]) -> None:
        """Write *values* on *contact* and on every other one that has *number*.

        Raises what HubSpot refuses of one contact after the others are written.
        """
        rows = self._matching(number) if number else []
        ids = sorted({contact, *map(record_id, rows)}, key=int)
        refusals = [
            refusal
            for start in range(0, len(ids), BATCH)
            for refusal in self._refusals_of(ids[start : start + BATCH], values)
        ]
        if refusals:
            raise refusals[0]

    def _refusals_of(self, ids: Sequence[str], values: Mapping[str, str]) -> list[Invalid]:
        """Write *values* on contacts, one by one if HubSpot refuses them together."""
        try:
            self._write(ids, values)
        except Invalid as error:
            if error.wrong_of(*values):
                raise  # whichever contact it is
            if len(ids) == 1:
                return [error]
            return [each for id in ids for each in self._refusals_of([id], values)]
        return []

    def _write(self, ids: Sequence[str], values: Mapping[str, str]) -> None:
        path = CONTACTS + "/batch/update"
        inputs = [{"id": id, "properties": dict(values)} for id in ids]
        reply = self.api.reply("POST", path, body={"inputs": inputs})
        # A 200 says that all are written, whatever its body; a 207 that some are not.
        if reply.status == 207 and not isinstance(reply.json, dict):
            raise Transient("some contacts were not written, and the answer names none")
        self.api.expect_parts(reply.json, request=("POST", path))

    def _owner(self, contact: Contact) -> str | None:
        if contact.owner is None:
            ids, query = {"id": contact.id}, {"properties": OWNER}
            row = self.api.call("GET", CONTACTS + "/{id}", ids=ids, query=query)
            contact.owner = (text(properties(row), OWNER),)
        return contact.owner[0]

    def _read(self, contact: str, **query: str) -> str | None:
        try:
            row = self.api.call("GET", CONTACTS + "/{id}", ids={"id": contact}, query=query)
        except Refused as error:
            if error.status != 404:
                raise
            return None
        return record_id(row)

    def _keyed(self, number: str) -> str | None:
        try:
            return self._read(number, idProperty=self.key)
        except Refused as error:
            if error.status != 400 or not self._lacks_key():
                raise
            return None

    def _lacks_key(self) -> bool:
        """Return whether the account lacks the unique property, and remember it for a while."""
        lacks = self.api.lacks_unique("contacts", self.key)
        if lacks:
            self._absent[self.key] = time.monotonic() + ABSENT_KEPT
        return lacks

    def _is_absent(self, name: str) -> bool:
        return self._absent.get(name, 0.0) > time.monotonic()

    def _matching(self, number: str) -> list[dict[str, Any]]:
        """Return the contacts that have *number*, oldest first."""
        computed = [CALCULATED[name][0] for name in self.phones if name in CALCULATED]
        keyed = [] if self._is_absent(self.key) else [self.key]
        names = [*self.phones, *computed, *keyed]
        filters = [
            each for each in self._filters(number) if not self._is_absent(each["propertyName"])
        ]
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(filters), GROUPS):
            rows = self._searched(filters[start : start + GROUPS], names)
            found |= {record_id(row): row for row in rows}
        # HubSpot searches without the country code, so two countries can collide.
        matching = [id for id, row in found.items() if number in self._numbers(properties(row))]
        return [found[id] for id in sorted(matching, key=int)]

    def _searched(self, filters: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
        """Search by any of *filters*, without those whose property the account does not have.

        HubSpot refuses the whole search and need not say for which of them.
        """
        try:
            return self._search(filters, names)
        except Refused as error:
            if error.status != 400 or len(filters) == 1:
                raise
            refusal = error
        rows, absent = [], []
        for each in filters:
            try:
                rows += self._search([each], names)
            except Refused as error:
                if error.status != 400:
                    raise
                absent.append(each["propertyName"])
        if len(absent) == len(filters):
            raise refusal
        self._absent |= dict.fromkeys(absent, time.monotonic() + ABSENT_KEPT)
        return rows

    def _search(self, filters: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
        asked = {
            "filterGroups": [{"filters": [each]} for each in filters],
            "properties": names,
            "sorts": [],
            "limit": 200,
            "after": "0",
        }
        return self.api.rows("POST", CONTACTS + "/search", body=asked)

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

    def _upserted(self, number: str, values: Mapping[str, str]) -> str:
        path = CONTACTS + "/batch/upsert"
        filled = {**values, self.key: number}
        wanted = {"idProperty": self.key, "id": number, "properties": filled}
        answer = self.api.call("POST", path, body={"inputs": [wanted]})
        self.api.expect_parts(answer, request=("POST", path))
        made = next(map(new_id, dicts(answer, "results")), None) or self._keyed(number)
        if made is None:
            raise Transient("a contact was sent, but neither the answer nor a look-up names it")
        return made

    def _made_elsewhere(self, number: str, conflict: Exception) -> Contact:
        contact = self._keyed(number)
        if contact is None:
            raise Transient("another contact has just taken the number") from conflict
        return Contact(contact)

    def _made_unkeyed(self, values: Mapping[str, str]) -> Contact:
        body = {"properties": dict(values), "associations": []}
        contact = new_id(self.api.call("POST", CONTACTS, body=body, once=True))
        if contact is None:
            raise Ambiguous("a contact was sent, but the answer names none")
        return Contact(contact)


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
