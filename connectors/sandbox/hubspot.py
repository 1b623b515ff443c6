"""A stand-in of one HubSpot account, in memory: CRM, conversations inbox, limits, rules.

Any Bearer token works, except ``revoked`` (401) and ``unscoped`` (403); ``scopes:a,b`` may do what
these scopes allow. ``PATCH …/sandbox`` changes search lag, limits and required properties.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from pydantic import ValidationError

from connectors.sandbox import hubspot_page as shown
from connectors.sandbox.hubspot_access import TOKEN_PATH, Access
from connectors.sandbox.hubspot_definitions import OFFSET, Definitions
from connectors.sandbox.hubspot_inbox import Inbox
from connectors.sandbox.hubspot_limits import Limits
from connectors.sandbox.hubspot_objects import Object, Objects
from connectors.sandbox.hubspot_rules import (
    ASSOCIATIONS,
    KINDS,
    Problem,
    asked_for,
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
from connectors.sandbox.hubspot_settings import Settings
from connectors.sandbox.records import Records

#: Kinds of objects that count as effects, with the property that people read.
TEXTS = {
    "communications": "hs_communication_body",
    "tickets": "subject",
    "tasks": "hs_task_subject",
}
#: Our own path, which HubSpot does not have.
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
        """*search_lag*: of the search index; *country*: of the account; *prepared*: the account
        has what ``gofax-relay connectors setup`` makes.
        """
        self.access = Access()
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
        self._definitions = Definitions(
            {kind: objects.known for kind, objects in self._objects.items()}, self.settings
        )
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
            ("POST", TOKEN_PATH, self.access.grant),
            ("GET", "/account-info/2026-09/details", self._definitions.account),
            ("GET", objects, self._list),
            ("POST", objects, self._create),
            ("GET", f"{objects}/<given>", self._read),
            ("PATCH", f"{objects}/<given>", self._update),
            ("DELETE", f"{objects}/<given>", self._delete),
            ("PUT", f"{objects}/<given>/associations/default/<to>/<other>", self._associate),
            ("POST", f"{objects}/search", self._search),
            ("POST", f"{objects}/batch/read", self._read_batch),
            ("POST", f"{objects}/batch/update", self._update_batch),
            ("POST", f"{objects}/batch/upsert", self._upsert_batch),
            ("POST", "/crm/associations/2026-09/<kind>/<to>/batch/read", self._associations),
            ("GET", f"{defined}/<name>", self._definitions.read),
            ("POST", defined, self._definitions.create),
            ("DELETE", f"{defined}/<name>", self._definitions.delete),
            ("GET", "/crm-object-schemas/2026-09/schemas/<kind>", self._definitions.schema),
            ("GET", "/crm/pipelines/2026-09/tickets/<pipeline>", self._definitions.pipeline),
            ("GET", f"{channel}/channel-accounts", self._channel_accounts),
            ("POST", f"{channel}/channel-accounts", self._connect),
            ("POST", f"{channel}/messages", self._publish),
        ]
        for method, path, view in views:
            routes.add_url_rule(path, view.__name__, self._locked(view), methods=[method])
        return routes

    def page(self) -> tuple[shown.Timeline, ...]:
        """Return every contact with its entries, oldest contact first."""
        with self._lock:
            return tuple(self._timeline(each) for each in self._objects["contacts"].all())

    def linked(self, kind: str, given: str, to: str) -> list[str]:
        """Return the ids of an object's associations, in the order in which they were made."""
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
        if not request.path.endswith((OWN, TOKEN_PATH)):
            self.access.admit()
            self._limits.admit(search=request.path.endswith("/search"))

    def _limited(self, response: Response) -> Response:
        if not request.path.endswith(("/search", OWN, TOKEN_PATH)):
            response.headers.extend(self._limits.headers())
        return response

    def _locked(self, view: Callable[..., ResponseReturnValue]) -> Callable[..., Any]:
        def locked(**arguments: str) -> ResponseReturnValue:
            for kind in {arguments.get("kind"), arguments.get("to")} - {None, *self._objects}:
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
        self._definitions.add(changed.named())
        return self.settings.model_dump()

    def _list(self, kind: str) -> ResponseReturnValue:
        limit = min(request.args.get("limit", default=10, type=int), 100)
        return {"results": [each.shown() for each in self._objects[kind].all()[:limit]]}

    def _create(self, kind: str) -> ResponseReturnValue:
        asked, objects = asked_for(), self._objects[kind]
        required(asked, "properties", "associations")
        values = values_of(asked, objects.known)
        validate(kind, values)
        self.settings.enforce(kind, values, new=True)
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

    def _associate(self, kind: str, given: str, to: str, other: str) -> ResponseReturnValue:
        one, found = self._objects[kind].find(given), self._objects[to].find(other)
        if one is None or found is None:
            raise not_found()
        self._link(kind, one, to, found)
        return batch([{"from": {"id": given}, "to": {"id": other}}])

    def _link(self, kind: str, one: Object, other_kind: str, other: Object) -> None:
        for key, id in (
            ((kind, one.id, other_kind), other.id),
            ((other_kind, other.id, kind), one.id),
        ):
            linked = self._links.setdefault(key, [])
            if id not in linked:
                linked.append(id)

    def _read(self, kind: str, given: str) -> ResponseReturnValue:
        names = [each for each in request.args.get("properties", "").split(",") if each]
        return self._found(kind, given).shown(names)

    def _update(self, kind: str, given: str) -> ResponseReturnValue:
        objects, found = self._objects[kind], self._found(kind, given)
        values = values_of(asked_for(), objects.known)
        validate(kind, found.properties | values)
        self.settings.enforce(kind, found.properties | values, new=False)
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
            values = values_of(each, objects.known)
            self.settings.enforce(kind, found.properties | values, new=False)
            objects.write(found, values)
            results.append(found.shown())
        return batch(results, missing=missing)

    def _upsert_batch(self, kind: str) -> ResponseReturnValue:
        objects, results = self._objects[kind], []
        for each in inputs_of(asked_for()):
            found = objects.find(each.get("id", ""), by=each.get("idProperty"))
            new, values = found is None, values_of(each, objects.known)
            values = {**values, each["idProperty"]: each["id"]}
            self.settings.enforce(kind, (found.properties if found else {}) | values, new=new)
            if found is None:
                validate(kind, values)
                found = objects.add(values)
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
