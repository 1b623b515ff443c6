"""A stand-in of one HubSpot account, in memory: its CRM, its conversations inbox, its limits.

Any Bearer token works, except ``revoked`` (401) and ``unscoped`` (403); ``scopes:a,b`` may do what
the scopes named allow. ``PATCH …/sandbox`` sets search lag and limits while it runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta, timezone
from typing import Any

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from pydantic import ValidationError

from connectors.sandbox import hubspot_page as shown
from connectors.sandbox.hubspot_inbox import Inbox
from connectors.sandbox.hubspot_limits import Limits, Settings
from connectors.sandbox.hubspot_objects import Object, Objects
from connectors.sandbox.hubspot_rules import (
    ASSOCIATIONS,
    KINDS,
    STAGES,
    Problem,
    Property,
    asked_for,
    authorize,
    batch,
    definitions,
    filter_of,
    inputs_of,
    invalid,
    not_found,
    required,
    validate,
    values_of,
)
from connectors.sandbox.records import Records

ACCOUNT_ID = 12345678
#: Where the account is; clocks never change there.
ZONE, OFFSET = "Australia/Brisbane", timezone(timedelta(hours=10))
MAX_UNIQUE = 10
#: Kinds whose making is an effect that people see, with the property that says it.
TEXTS = {
    "communications": "hs_communication_body",
    "tickets": "subject",
    "tasks": "hs_task_subject",
}
#: Paths that do not count as calls of HubSpot.
OWN = "/sandbox"


class StandIn:
    """One HubSpot account; safe to use from many threads."""

    def __init__(
        self,
        records: Records,
        *,
        search_lag: timedelta = timedelta(),
        associations_a_page: int = 500,
        accounts_a_page: int = 100,
        country: str = "AU",
        prepared: bool = True,
    ) -> None:
        """*search_lag*: how far the search index comes behind; *country*: of the account;
        *prepared*: it has what ``gofax-relay connectors setup hubspot`` makes.
        """
        self.settings = Settings(search_lag=search_lag.total_seconds())
        self._records = records
        self._associations_a_page = associations_a_page
        self._limits = Limits(self.settings, zone=OFFSET)
        self._lock = threading.RLock()
        # A restarted stand-in must not give an old id to another contact.
        self._first_id = int(time.time()) * 100_000
        self._objects = {
            kind: Objects(
                definitions(kind, prepared=prepared), new_id=self._new_id, country=country
            )
            for kind in KINDS
        }
        self._links: dict[tuple[str, str, str], list[str]] = {}
        self.inbox = Inbox(new_id=self._new_id, accounts_a_page=accounts_a_page)

    def blueprint(self) -> Blueprint:
        """Return the routes, relative to HubSpot's base URL."""
        routes = Blueprint("hubspot", __name__)
        routes.before_request(self._admit)
        routes.after_request(self._limited)
        routes.register_error_handler(Problem, lambda problem: (problem.body, problem.status))
        objects = "/crm/objects/2026-09/<kind>"
        defined = "/crm/properties/2026-09/<kind>"
        channel = "/conversations/custom-channels/2026-09/<channel>"
        views: list[tuple[str, str, Callable[..., ResponseReturnValue]]] = [
            ("PATCH", OWN, self._configure),
            ("GET", "/account-info/2026-09/details", self._account),
            ("GET", objects, self._list),
            ("POST", objects, self._create),
            ("GET", f"{objects}/<given>", self._read),
            ("PATCH", f"{objects}/<given>", self._update),
            ("DELETE", f"{objects}/<given>", self._delete),
            ("POST", f"{objects}/search", self._search),
            ("POST", f"{objects}/batch/read", self._read_batch),
            ("POST", f"{objects}/batch/update", self._update_batch),
            ("POST", f"{objects}/batch/upsert", self._upsert_batch),
            ("POST", "/crm/associations/2026-09/<kind>/<to>/batch/read", self._associations),
            ("GET", f"{defined}/<name>", self._read_property),
            ("POST", defined, self._create_property),
            ("GET", "/crm/pipelines/2026-09/tickets/<pipeline>", self._pipeline),
            ("GET", f"{channel}/channel-accounts", self._channel_accounts),
            ("POST", f"{channel}/channel-accounts", self._connect),
            ("POST", f"{channel}/messages", self._publish),
        ]
        for method, path, view in views:
            routes.add_url_rule(path, view.__name__, self._locked(view), methods=[method])
        return routes

    def page(self) -> tuple[shown.Timeline, ...]:
        """Return every contact with what happened to it, oldest contact first."""
        with self._lock:
            return tuple(self._timeline(each) for each in self._objects["contacts"].all())

    def linked(self, kind: str, given: str, to: str) -> list[str]:
        """Return the ids of what an object is associated with, in the order of association."""
        with self._lock:
            return list(self._links.get((kind, given, to), []))

    def _timeline(self, contact: Object) -> shown.Timeline:
        def linked(kind: str) -> list[Object]:
            ids = self.linked("contacts", contact.id, kind)
            found = [self._objects[kind].find(each) for each in ids]
            return [each for each in found if each is not None]

        return shown.timeline(
            contact,
            communications=linked("communications"),
            tickets=linked("tickets"),
            tasks=linked("tasks"),
            messages=self.inbox.messages(),
        )

    def _admit(self) -> None:
        if not request.path.endswith(OWN):
            authorize()
            self._limits.admit(search=request.path.endswith("/search"))

    def _limited(self, response: Response) -> Response:
        if not request.path.endswith(("/search", OWN)):
            response.headers.extend(self._limits.headers())
        return response

    def _locked(self, view: Callable[..., ResponseReturnValue]) -> Callable[..., Any]:
        def locked(**arguments: str) -> ResponseReturnValue:
            if (kind := arguments.get("kind")) and kind not in self._objects:
                raise invalid(f"Unable to infer object type from: {kind}")
            with self._lock:
                return view(**arguments)

        return locked

    def _configure(self) -> ResponseReturnValue:
        try:
            changed = Settings.model_validate(self.settings.model_dump() | asked_for())
        except ValidationError as error:
            return {"error": error.errors(include_context=False, include_url=False)}, 400
        for name, value in changed:
            setattr(self.settings, name, value)
        return self.settings.model_dump()

    def _account(self) -> ResponseReturnValue:
        return {
            "portalId": ACCOUNT_ID,
            "accountType": "DEVELOPER_TEST",
            "timeZone": ZONE,
            "companyCurrency": "AUD",
            "additionalCurrencies": [],
            "dataHostingLocation": "ap1",
            "uiDomain": "app-ap1.hubspot.com",
        }

    def _list(self, kind: str) -> ResponseReturnValue:
        limit = min(request.args.get("limit", default=10, type=int), 100)
        return {"results": [each.shown() for each in self._objects[kind].all()[:limit]]}

    def _create(self, kind: str) -> ResponseReturnValue:
        asked, objects = asked_for(), self._objects[kind]
        required(asked, "properties", "associations")
        values = values_of(asked, objects.known)
        validate(kind, values)
        others = [self._associated(kind, each) for each in asked["associations"]]
        made = objects.add(values)
        for other_kind, other in others:
            self._link(kind, made, other_kind, other)
        contact = next((other for other_kind, other in others if other_kind == "contacts"), None)
        self._note(kind, made, contact=contact)
        anchor = f"#hubspot-contact-{contact.id}" if contact else ""
        return made.shown() | {"url": f"{request.host_url}{anchor}"}, 201

    def _note(self, kind: str, made: Object, *, contact: Object | None) -> None:
        if kind in TEXTS:
            self._records.add(
                system="hubspot",
                kind=kind.removesuffix("s"),
                text=shown.plain(made.properties.get(TEXTS[kind], "")),
                conversation=shown.number_of(contact) if contact else "",
                reference=made.id,
            )

    def _associated(self, kind: str, association: Mapping[str, Any]) -> tuple[str, Object]:
        given = str(association.get("to", {}).get("id", ""))
        [asked] = association.get("types") or [{}]
        pair = ASSOCIATIONS.get(asked.get("associationTypeId", 0))
        if pair is None or pair[0] != kind:
            raise invalid(f"One or more associations are not valid: {asked} is not from {kind}")
        other = self._objects[pair[1]].find(given)
        if other is None:
            raise invalid(f"One or more associations are not valid: no {pair[1]} have id {given}")
        return pair[1], other

    def _link(self, kind: str, one: Object, other_kind: str, other: Object) -> None:
        self._links.setdefault((kind, one.id, other_kind), []).append(other.id)
        self._links.setdefault((other_kind, other.id, kind), []).append(one.id)

    def _read(self, kind: str, given: str) -> ResponseReturnValue:
        names = [each for each in request.args.get("properties", "").split(",") if each]
        return self._found(kind, given).shown(names)

    def _update(self, kind: str, given: str) -> ResponseReturnValue:
        objects, found = self._objects[kind], self._found(kind, given)
        values = values_of(asked_for(), objects.known)
        validate(kind, found.properties | values)
        objects.write(found, values)
        return found.shown()

    def _found(self, kind: str, given: str) -> Object:
        found = self._objects[kind].find(given, by=request.args.get("idProperty"))
        if found is None:
            raise not_found()
        return found

    def _delete(self, kind: str, given: str) -> ResponseReturnValue:
        self._objects[kind].remove(given)
        return "", 204

    def _search(self, kind: str) -> ResponseReturnValue:
        asked, objects = asked_for(), self._objects[kind]
        groups, names = asked.get("filterGroups", []), asked.get("properties") or ["email"]
        filters = [each for group in groups for each in group.get("filters", [])]
        if len(groups) > 5 or len(filters) > 18 or asked.get("limit", 10) > 200:
            raise invalid("There was a problem with the request: too many filters or results")
        for each in filters:
            filter_of(each, objects.known)
        found = objects.search(groups, lag=timedelta(seconds=self.settings.search_lag))
        results = [each.shown(names) for each in found[: asked.get("limit", 10)]]
        return {"total": len(found), "results": results}

    def _read_batch(self, kind: str) -> ResponseReturnValue:
        asked = asked_for()
        required(asked, "inputs", "properties", "propertiesWithHistory")
        wanted = [each.get("id", "") for each in inputs_of(asked)]
        found = {each: self._objects[kind].find(each) for each in wanted}
        rows = [each.shown(asked["properties"]) for each in found.values() if each]
        return batch(rows, missing=[each for each, it in found.items() if it is None])

    def _update_batch(self, kind: str) -> ResponseReturnValue:
        objects, results = self._objects[kind], []
        missing = []
        for each in inputs_of(asked_for()):
            found = objects.find(each.get("id", ""), by=each.get("idProperty"))
            if found is None:
                missing.append(each.get("id", ""))
                continue
            objects.write(found, values_of(each, objects.known))
            results.append(found.shown())
        return batch(results, missing=missing)

    def _upsert_batch(self, kind: str) -> ResponseReturnValue:
        objects, results = self._objects[kind], []
        for each in inputs_of(asked_for()):
            found = objects.find(each.get("id", ""), by=each.get("idProperty"))
            new, values = found is None, values_of(each, objects.known)
            if found is None:
                found = objects.add(values | {each["idProperty"]: each["id"]})
            else:
                objects.write(found, values)
            results.append(found.shown() | {"new": new})
        return batch(results)

    def _associations(self, kind: str, to: str) -> ResponseReturnValue:
        inputs = inputs_of(asked_for())
        linked = {each["id"]: self._links.get((kind, each["id"], to), []) for each in inputs}
        rows = [self._association_page(linked[each["id"]], **each) for each in inputs]
        return batch(
            [row for row in rows if row["to"]],
            missing=[each for each, found in linked.items() if not found],
        )

    def _association_page(self, linked: list[str], *, id: str, after: str = "0") -> dict[str, Any]:
        start = int(after)
        end = start + self._associations_a_page
        row: dict[str, Any] = {
            "from": {"id": id},
            "to": [{"toObjectId": each, "associationTypes": []} for each in linked[start:end]],
        }
        return row | ({"paging": {"next": {"after": str(end)}}} if end < len(linked) else {})

    def _read_property(self, kind: str, name: str) -> ResponseReturnValue:
        definition = self._objects[kind].known.get(name)
        if definition is None:
            raise not_found(f"Property named {name} doesn't exist")
        return definition.shown()

    def _create_property(self, kind: str) -> ResponseReturnValue:
        asked, known = asked_for(), self._objects[kind].known
        required(asked, "fieldType", "groupName", "label", "name", "type")
        if asked["name"] in known:
            message = f"A property named '{asked['name']}' already exists"
            raise Problem(409, "OBJECT_ALREADY_EXISTS", message)
        unique = bool(asked.get("hasUniqueValue"))
        if unique and sum(each.unique for each in known.values()) >= MAX_UNIQUE:
            raise invalid(f"At most {MAX_UNIQUE} properties can have unique values")
        made = known[asked["name"]] = Property(
            name=asked["name"],
            label=asked["label"],
            type=asked["type"],
            field_type=asked["fieldType"],
            group=asked["groupName"],
            unique=unique,
        )
        return made.shown(), 201

    def _pipeline(self, pipeline: str) -> ResponseReturnValue:
        if pipeline != "0":
            raise not_found()
        stages = [
            {
                "id": id,
                "label": label,
                "displayOrder": int(id),
                "archived": False,
                "metadata": {"ticketState": "CLOSED" if closed else "OPEN"},
            }
            for id, (label, closed) in STAGES.items()
        ]
        return {"id": pipeline, "label": "Support Pipeline", "stages": stages}

    def _channel_accounts(self, channel: str) -> ResponseReturnValue:
        return self.inbox.accounts(channel, after=request.args.get("after", default=0, type=int))

    def _connect(self, channel: str) -> ResponseReturnValue:
        return self.inbox.connect(channel, asked_for()), 201

    def _publish(self, channel: str) -> ResponseReturnValue:
        asked = asked_for()
        contact = asked.get("associateWithContactId")
        found = self._objects["contacts"].find(str(contact)) if contact else None
        if contact and found is None:
            raise invalid(f"contact {contact} does not exist")
        message, new = self.inbox.publish(channel, asked)
        if new:
            self._records.add(
                system="hubspot",
                kind="message",
                text=message["text"],
                conversation=shown.number_of(found) if found else "",
                reference=message["id"],
            )
        return message, 201

    def _new_id(self) -> str:
        return str(self._first_id + self._records.new_id())
