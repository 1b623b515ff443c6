"""Definitions of the HubSpot stand-in's account: properties, schemas, the ticket pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta, timezone

from flask.typing import ResponseReturnValue

from connectors.sandbox.hubspot_rules import (
    STAGES,
    Problem,
    Property,
    asked_for,
    invalid,
    not_found,
    required,
)
from connectors.sandbox.hubspot_settings import Settings

ACCOUNT_ID = 12345678
#: The account's time zone; it has no summer time.
ZONE, OFFSET = "Australia/Brisbane", timezone(timedelta(hours=10))
MAX_UNIQUE = 10


class Definitions:
    """Shows and changes what an administrator defines."""

    def __init__(self, known: Mapping[str, dict[str, Property]], settings: Settings) -> None:
        """*known*: the properties of each kind of object, by name."""
        self._known = known
        self._settings = settings

    def add(self, names: Iterable[tuple[str, str]]) -> None:
        """Make plain properties, given by kind of object and name, unless they exist."""
        for kind, name in names:
            self._known[kind].setdefault(name, Property(name=name))

    def account(self) -> ResponseReturnValue:
        """Return the account's details."""
        return {
            "portalId": ACCOUNT_ID,
            "accountType": "DEVELOPER_TEST",
            "timeZone": ZONE,
            "companyCurrency": "AUD",
            "additionalCurrencies": [],
            "dataHostingLocation": "ap1",
            "uiDomain": "app-ap1.hubspot.com",
        }

    def read(self, kind: str, name: str) -> ResponseReturnValue:
        """Return a property."""
        definition = self._known[kind].get(name)
        if definition is None:
            raise not_found(f"Property named {name} doesn't exist")
        return definition.shown()

    def create(self, kind: str) -> ResponseReturnValue:
        """Make a property; at most ten of an object are unique."""
        asked, known = asked_for(), self._known[kind]
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

    def delete(self, kind: str, name: str) -> ResponseReturnValue:
        """Archive a property; HubSpot answers alike whether it existed or not."""
        self._known[kind].pop(name, None)
        return "", 204

    def schema(self, kind: str) -> ResponseReturnValue:
        """Return the schema of a kind of object, with its required properties."""
        return {
            "id": kind,
            "name": kind,
            "fullyQualifiedName": kind,
            "requiredProperties": self._settings.required.get(kind, []),
            "properties": [each.shown() for each in self._known[kind].values()],
        }

    def pipeline(self, pipeline: str) -> ResponseReturnValue:
        """Return the account's one ticket pipeline."""
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
