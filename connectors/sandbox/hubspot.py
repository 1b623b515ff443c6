"""A stand-in of HubSpot's CRM: contacts, communications and their associations, in memory.

Any Bearer token works, except ``revoked`` (401) and ``unscoped`` (403). The account has the unique
contact property ``sms_relay_phone``, and one owner, 501.
"""

from __future__ import annotations

import html
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from connectors.sandbox.hubspot_rules import (
    CALCULATED,
    UNIQUE_PROPERTY,
    Problem,
    asked_for,
    authorize,
    batch,
    calculated,
    filter_of,
    inputs_of,
    invalid,
    invalid_value,
    is_found,
    validate_communication,
    values_of,
)
from connectors.sandbox.records import Records

ACCOUNT_ID = 12345678


@dataclass(slots=True)
class _Object:
    id: str
    properties: dict[str, str]
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def shown(self, names: Iterable[str] = ()) -> dict[str, Any]:
        values = dict.fromkeys(names) | {"hs_object_id": self.id}
        wanted = {name: self.properties.get(name) for name in names} if names else self.properties
        moment = self.created_at.isoformat(timespec="milliseconds")
        return {
            "id": self.id,
            "properties": values | dict(wanted),
            "createdAt": moment,
            "updatedAt": moment,
            "archived": False,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One communication on a timeline."""

    id: str
    at: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """One contact, with what was logged on it, newest last."""

    contact: str
    name: str
    phone: str
    entries: tuple[Entry, ...]


class StandIn:
    """One HubSpot account; safe to use from many threads."""

    def __init__(
        self,
        records: Records,
        *,
        search_lag: timedelta = timedelta(),
        associations_a_page: int = 500,
        country: str = "AU",
    ) -> None:
        """*search_lag*: how long a new contact stays out of the search index; *country*: of the
        account, and so of numbers that do not say theirs.
        """
        self._country = country
        self._records = records
        self._associations_a_page = associations_a_page
        self._search_lag = search_lag
        self._lock = threading.RLock()
        # A restarted stand-in must not give an old id to another contact.
        self._first_id = int(time.time()) * 100_000
        self._contacts: dict[str, _Object] = {}
        self._communications: dict[str, _Object] = {}
        self._logged: dict[str, list[str]] = {}

    def blueprint(self) -> Blueprint:
        """Return the routes, relative to HubSpot's base URL."""
        routes = Blueprint("hubspot", __name__)
        routes.before_request(authorize)
        routes.register_error_handler(Problem, lambda problem: (problem.body, problem.status))
        contacts = "/crm/objects/2026-09/contacts"
        communications = "/crm/objects/2026-09/communications"
        views: list[tuple[str, str, Callable[..., ResponseReturnValue]]] = [
            ("GET", "/account-info/2026-09/details", self._account),
            ("GET", contacts, self._list_contacts),
            ("POST", contacts, self._create_contact),
            ("GET", f"{contacts}/<given>", self._read_contact),
            ("PATCH", f"{contacts}/<given>", self._update_contact),
            ("DELETE", f"{contacts}/<given>", self._delete_contact),
            ("POST", f"{contacts}/search", self._search_contacts),
            ("POST", f"{contacts}/batch/upsert", self._upsert_contacts),
            ("POST", communications, self._create_communication),
            ("POST", f"{communications}/batch/read", self._read_communications),
            (
                "POST",
                "/crm/associations/2026-09/contacts/communications/batch/read",
                self._read_associations,
            ),
        ]
        for method, path, view in views:
            routes.add_url_rule(path, view.__name__, self._locked(view), methods=[method])
        return routes

    def page(self) -> tuple[Timeline, ...]:
        """Return every contact with its timeline, oldest contact first."""
        with self._lock:
            return tuple(self._timeline(contact) for contact in self._contacts.values())

    def _locked(self, view: Callable[..., ResponseReturnValue]) -> Callable[..., Any]:
        def locked(**arguments: str) -> ResponseReturnValue:
            with self._lock:
                return view(**arguments)

        return locked

    def _timeline(self, contact: _Object) -> Timeline:
        entries = [self._communications[each] for each in self._logged.get(contact.id, [])]
        entries.sort(key=lambda each: each.properties["hs_timestamp"])
        names = (contact.properties.get(name, "") for name in ("firstname", "lastname"))
        return Timeline(
            contact=contact.id,
            name=" ".join(filter(None, names)),
            phone=_number_of(contact),
            entries=tuple(
                Entry(
                    id=each.id,
                    at=each.properties["hs_timestamp"],
                    text=_plain(each.properties["hs_communication_body"]),
                )
                for each in entries
            ),
        )

    def _account(self) -> ResponseReturnValue:
        return {"portalId": ACCOUNT_ID, "accountType": "DEVELOPER_TEST", "timeZone": "UTC"}

    def _list_contacts(self) -> ResponseReturnValue:
        limit = min(request.args.get("limit", default=10, type=int), 100)
        return {"results": [each.shown() for each in list(self._contacts.values())[:limit]]}

    def _create_contact(self) -> ResponseReturnValue:
        asked = asked_for()
        if "associations" not in asked:
            raise invalid("Some required fields were not set: [associations]")
        return self._added(values_of(asked, "contacts")).shown(), 201

    def _read_contact(self, given: str) -> ResponseReturnValue:
        names = [each for each in request.args.get("properties", "").split(",") if each]
        contact = self._find(given, by=request.args.get("idProperty"))
        if contact is None:
            raise Problem(404, "OBJECT_NOT_FOUND", "resource not found")
        return contact.shown(names)

    def _update_contact(self, given: str) -> ResponseReturnValue:
        contact = self._find(given, by=request.args.get("idProperty"))
        if contact is None:
            raise Problem(404, "OBJECT_NOT_FOUND", "resource not found")
        self._write(contact, values_of(asked_for(), "contacts"))
        return contact.shown()

    def _delete_contact(self, given: str) -> ResponseReturnValue:
        # HubSpot answers alike whether there was one or not.
        self._contacts.pop(given, None)
        return "", 204

    def _search_contacts(self) -> ResponseReturnValue:
        asked = asked_for()
        groups, names = asked.get("filterGroups", []), asked.get("properties") or ["email"]
        filters = [filter_of(each) for group in groups for each in group.get("filters", [])]
        if len(groups) > 5 or len(filters) > 18 or asked.get("limit", 10) > 200:
            raise invalid("There was a problem with the request: too many filters or results")
        latest = datetime.now(UTC) - self._search_lag
        found = [
            each
            for each in self._contacts.values()
            if each.created_at <= latest and is_found(each.properties, groups)
        ]
        shown = [each.shown(names) for each in found[: asked.get("limit", 10)]]
        return {"total": len(found), "results": shown}

    def _upsert_contacts(self) -> ResponseReturnValue:
        results = []
        for each in inputs_of(asked_for()):
            contact = self._find(each.get("id", ""), by=each.get("idProperty"))
            new = contact is None
            values = values_of(each, "contacts")
            if contact is None:
                contact = self._added(values | {each["idProperty"]: each["id"]})
            else:
                self._write(contact, values)
            results.append(contact.shown() | {"new": new})
        return batch(results)

    def _create_communication(self) -> ResponseReturnValue:
        asked = asked_for()
        values = values_of(asked, "communications")
        validate_communication(values)
        contacts = [self._associated(each) for each in asked.get("associations", [])]
        made = _Object(id=self._new_id(), properties=values)
        self._communications[made.id] = made
        for contact in contacts:
            self._logged.setdefault(contact.id, []).append(made.id)
        self._records.add(
            system="hubspot",
            kind="communication",
            text=_plain(values["hs_communication_body"]),
            conversation=_number_of(contacts[0]) if contacts else "",
            reference=made.id,
        )
        return made.shown() | self._link(contacts), 201

    def _read_communications(self) -> ResponseReturnValue:
        asked = asked_for()
        wanted = [each.get("id", "") for each in inputs_of(asked)]
        found = [self._communications[each] for each in wanted if each in self._communications]
        missing = [each for each in wanted if each not in self._communications]
        return batch([each.shown(asked["properties"]) for each in found], missing=missing)

    def _read_associations(self) -> ResponseReturnValue:
        inputs = inputs_of(asked_for())
        rows = [self._association_page(**each) for each in inputs if self._logged.get(each["id"])]
        missing = [each["id"] for each in inputs if not self._logged.get(each["id"])]
        return batch(rows, missing=missing)

    def _association_page(self, *, id: str, after: str = "0") -> dict[str, Any]:
        logged, start = self._logged[id], int(after)
        end = start + self._associations_a_page
        row: dict[str, Any] = {
            "from": {"id": id},
            "to": [{"toObjectId": each, "associationTypes": []} for each in logged[start:end]],
        }
        return row | ({"paging": {"next": {"after": str(end)}}} if end < len(logged) else {})

    def _associated(self, association: Mapping[str, Any]) -> _Object:
        given = association.get("to", {}).get("id", "")
        contact = self._contacts.get(str(given))
        kinds = [each.get("associationTypeId") for each in association.get("types", [])]
        if contact is None:
            raise invalid(f"One or more associations are not valid: no CONTACT has the id {given}")
        if kinds != [81]:
            raise invalid(f"One or more associations are not valid: {kinds} is not COMMUNICATION")
        return contact

    def _link(self, contacts: list[_Object]) -> dict[str, str]:
        anchor = f"#hubspot-contact-{contacts[0].id}" if contacts else ""
        return {"url": f"{request.host_url}{anchor}"}

    def _new_id(self) -> str:
        return str(self._first_id + self._records.new_id())

    def _find(self, given: str, *, by: str | None) -> _Object | None:
        if by is None:
            return self._contacts.get(given)
        if by != UNIQUE_PROPERTY:
            raise invalid(f"Property '{by}' does not exist or has no unique values")
        every = self._contacts.values()
        return next((each for each in every if each.properties.get(by) == given), None)

    def _added(self, values: dict[str, str]) -> _Object:
        contact = _Object(id=self._new_id(), properties={})
        self._write(contact, values)
        self._contacts[contact.id] = contact
        return contact

    def _write(self, contact: _Object, values: Mapping[str, str]) -> None:
        key = values.get(UNIQUE_PROPERTY)
        holder = self._find(key, by=UNIQUE_PROPERTY) if key else None
        if holder is not None and holder is not contact:
            raise invalid_value(UNIQUE_PROPERTY, "CONFLICTING_UNIQUE_VALUE", "is taken")
        contact.properties |= values
        for name in CALCULATED.keys() & values.keys():
            contact.properties |= calculated(name, values[name], country=self._country)


def _number_of(contact: _Object) -> str:
    values = contact.properties
    names = (UNIQUE_PROPERTY, "hs_calculated_mobile_number", "hs_calculated_phone_number")
    return next((values[name] for name in names if values.get(name)), "")


def _plain(body: str) -> str:
    return html.unescape(re.sub("<[^>]*>", "", body.replace("<br>", "\n")))
