"""Which requests HubSpot's API accepts, and the form of its errors."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import phonenumbers
from flask import request

#: The account's one owner.
OWNER_ID = "501"
KINDS = ("contacts", "communications", "tickets", "tasks")
CALCULATED = {
    "phone": ("hs_calculated_phone_number", "hs_searchable_calculated_phone_number"),
    "mobilephone": ("hs_calculated_mobile_number", "hs_searchable_calculated_mobile_number"),
}
#: From and to of the associations that a new object may come with.
ASSOCIATIONS = {
    81: ("communications", "contacts"),
    83: ("communications", "tickets"),
    204: ("tasks", "contacts"),
    230: ("tasks", "tickets"),
    16: ("tickets", "contacts"),
    84: ("tickets", "communications"),
}
#: Stages of the account's one ticket pipeline, ``0``: label, and whether its tickets are closed.
STAGES = {
    "1": ("New", False),
    "2": ("Waiting on contact", False),
    "3": ("Waiting on us", False),
    "4": ("Closed", True),
}
TASK_STATUSES = {"NOT_STARTED", "IN_PROGRESS", "WAITING", "COMPLETED", "DEFERRED"}
MAX_BODY = 65_536


class Problem(Exception):
    """An error answer in HubSpot's form."""

    def __init__(self, status: int, category: str, message: str, **more: object) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, object] = {"status": "error", "message": message}
        self.body |= {"category": category, "correlationId": str(uuid.uuid4())} | more


@dataclass(frozen=True, kw_only=True, slots=True)
class Property:
    """The definition of a property."""

    name: str
    label: str = ""
    type: str = "string"
    field_type: str = "text"
    group: str = ""
    unique: bool = False
    read_only: bool = False

    def shown(self) -> dict[str, Any]:
        """Return the definition as the properties API does."""
        return {
            "name": self.name,
            "label": self.label or self.name,
            "type": self.type,
            "fieldType": self.field_type,
            "groupName": self.group,
            "description": "",
            "options": [],
            "hasUniqueValue": self.unique,
            "archived": False,
        }


_WRITABLE = {
    "contacts": (
        *("firstname", "lastname", "email", "company", "lifecyclestage", "hubspot_owner_id"),
        *("phone", "mobilephone", "hs_whatsapp_phone_number"),
    ),
    "communications": (
        *("hs_communication_channel_type", "hs_communication_logged_from"),
        *("hs_communication_body", "hs_timestamp", "hubspot_owner_id"),
    ),
    "tickets": (
        *("subject", "content", "hs_pipeline", "hs_pipeline_stage", "hs_ticket_priority"),
        "hubspot_owner_id",
    ),
    "tasks": (
        *("hs_timestamp", "hs_task_subject", "hs_task_body", "hs_task_status", "hs_task_type"),
        *("hs_task_priority", "hubspot_owner_id"),
    ),
}
#: The properties that ``gofax-relay connectors setup`` makes in a real account.
PREPARED = {
    "contacts": (
        Property(name="sms_relay_phone", unique=True),
        Property(name="sms_opted_out", type="bool", field_type="booleancheckbox"),
    ),
    "tickets": (Property(name="sms_relay_conversation", unique=True),),
}


def definitions(kind: str, *, prepared: bool) -> dict[str, Property]:
    """Return the account's properties for objects of *kind*."""
    found = [Property(name=name) for name in _WRITABLE[kind]]
    if kind == "contacts":
        computed = [name for pair in CALCULATED.values() for name in pair]
        found += [Property(name=name, read_only=True) for name in computed]
    if prepared:
        found += PREPARED.get(kind, ())
    return {each.name: each for each in found}


def asked_for() -> dict[str, Any]:
    """Return the request's JSON object."""
    asked = request.get_json(silent=True)
    if not isinstance(asked, dict):
        raise invalid("Invalid input JSON")
    return asked


def required(asked: Mapping[str, Any], *names: str) -> None:
    """Refuse a request without the fields that the API's description requires."""
    missing = [name for name in names if name not in asked]
    if missing:
        raise invalid(f"Some required fields were not set: [{', '.join(missing)}]")


def inputs_of(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the inputs of a batch, 1 to 100."""
    inputs: list[dict[str, Any]] = asked.get("inputs", [])
    if not 0 < len(inputs) <= 100:
        raise invalid("A batch takes 1 to 100 inputs")
    return inputs


def values_of(asked: Mapping[str, Any], known: Mapping[str, Property]) -> dict[str, str]:
    """Return the property values to write; refuse unknown and read-only ones."""
    values: dict[str, str] = asked.get("properties", {})
    for name, value in values.items():
        definition = known.get(name)
        if definition is None:
            raise invalid_value(name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
        if definition.read_only:
            raise invalid_value(name, "READ_ONLY_VALUE", f'"{name}" is a read only property')
        if definition.type == "bool" and value not in ("true", "false", ""):
            raise invalid_value(name, "INVALID_OPTION", f"{value} was not one of true, false")
    owner = values.get("hubspot_owner_id") or OWNER_ID
    if owner != OWNER_ID:
        raise invalid_value("hubspot_owner_id", "INVALID_OWNER_ID", f"Owner {owner} not found")
    return values


def validate(kind: str, values: Mapping[str, str]) -> None:
    """Refuse values that no object of *kind* can have."""
    checks = {
        "contacts": _validate_contact,
        "communications": _validate_communication,
        "tickets": _validate_ticket,
        "tasks": _validate_task,
    }
    if kind in checks:
        checks[kind](values)


def _validate_contact(values: Mapping[str, str]) -> None:
    names = ("firstname", "email", "lastname")
    if not any(values.get(name) for name in names):
        one = f"One of [{', '.join(names)}]"
        raise invalid(f"Some required properties for CONTACT creates are missing: [{one}]")


def _validate_communication(values: Mapping[str, str]) -> None:
    channels = ("SMS", "WHATS_APP", "LINKEDIN_MESSAGE")
    _expect_one_of(values, "hs_communication_channel_type", channels)
    _expect_one_of(values, "hs_communication_logged_from", ("CRM",))
    _expect_time(values, "hs_timestamp")
    _expect_length(values, "hs_communication_body")


def _validate_ticket(values: Mapping[str, str]) -> None:
    if not values.get("subject"):
        raise invalid_value("subject", "REQUIRED_FIELD", "subject is required")
    _expect_one_of({"hs_pipeline": "0"} | dict(values), "hs_pipeline", ("0",))
    _expect_one_of(values, "hs_pipeline_stage", STAGES)
    _expect_length(values, "content")


def _validate_task(values: Mapping[str, str]) -> None:
    _expect_time(values, "hs_timestamp")
    _expect_one_of(values, "hs_task_status", TASK_STATUSES)
    _expect_one_of({"hs_task_type": "TODO"} | dict(values), "hs_task_type", ("TODO", "CALL"))
    _expect_length(values, "hs_task_body")


def _expect_one_of(values: Mapping[str, str], name: str, allowed: Collection[str]) -> None:
    if values.get(name, "") not in allowed:
        said = f"{values.get(name)} was not one of the allowed options: {sorted(allowed)}"
        raise invalid_value(name, "INVALID_OPTION", said)


def _expect_time(values: Mapping[str, str], name: str) -> None:
    try:
        datetime.fromisoformat(values.get(name, ""))
    except ValueError:
        raise invalid_value(name, "INVALID_DATE", f"{values.get(name)} is no time") from None


def _expect_length(values: Mapping[str, str], name: str) -> None:
    if len(values.get(name, "").encode("utf-16-le")) // 2 > MAX_BODY:
        raise invalid_value(name, "PROPERTY_VALUE_TOO_LONG", f"{name} is too long")


def invalid(message: str) -> Problem:
    """Return the error for a whole request."""
    return Problem(400, "VALIDATION_ERROR", message)


def invalid_value(name: str, code: str, said: str) -> Problem:
    """Return the error for one property's value."""
    detail = {"isValid": False, "message": said, "error": code, "name": name}
    error = {"message": said, "code": code, "context": {"propertyName": [name]}}
    message = f"Property values were not valid: {json.dumps([detail])}"
    return Problem(400, "VALIDATION_ERROR", message, errors=[error])


def not_found(what: str = "resource not found") -> Problem:
    """Return the error for an unknown id."""
    return Problem(404, "OBJECT_NOT_FOUND", what)


def batch(results: list[Any], *, missing: Iterable[str] = ()) -> tuple[dict[str, Any], int]:
    """Answer a batch; unknown ids become errors beside the results."""
    errors = [
        {
            "status": "error",
            "category": "OBJECT_NOT_FOUND",
            "message": "no such object or association",
            "context": {"ids": [each]},
        }
        for each in missing
    ]
    answer: dict[str, Any] = {"status": "COMPLETE", "results": results}
    if not errors:
        return answer, 200
    return answer | {"numErrors": len(errors), "errors": errors}, 207


def filter_of(asked: Mapping[str, Any], known: Mapping[str, Property]) -> Mapping[str, Any]:
    """Return a filter of a search; refuse one that HubSpot does not know."""
    if asked.get("propertyName") not in known:
        raise invalid(f'There was a problem with the request: no "{asked.get("propertyName")}"')
    if asked.get("operator") not in {"EQ", "IN", "CONTAINS_TOKEN"}:
        raise invalid("There was a problem with the request: operator")
    return asked


def is_found(values: Mapping[str, str], groups: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether *values* match one of the *groups*."""
    return any(all(_matches(values, each) for each in group["filters"]) for group in groups)


def _matches(values: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    value = values.get(wanted["propertyName"])
    if value is None:
        return False
    if wanted["operator"] == "IN":
        return value in wanted.get("values", [])
    if wanted["operator"] == "EQ":
        return value == wanted.get("value")
    pattern = re.escape(str(wanted.get("value"))).replace(r"\*", ".*")
    return any(re.fullmatch(pattern, token) for token in value.split())


def calculated(name: str, written: str, *, country: str) -> dict[str, str]:
    """Return the properties that HubSpot calculates from a phone number, empty if unreadable."""
    full, searchable = CALCULATED[name]
    try:
        number = phonenumbers.parse(written, country)
    except phonenumbers.NumberParseException:
        return {full: "", searchable: ""}
    if not phonenumbers.is_valid_number(number):
        return {full: "", searchable: ""}
    return {
        full: phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164),
        searchable: phonenumbers.national_significant_number(number),
    }
