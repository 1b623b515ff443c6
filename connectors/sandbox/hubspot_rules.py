"""What HubSpot's API accepts, and how it says no."""

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

REVOKED, UNSCOPED = "revoked", "unscoped"
#: A token that begins so may do what the scopes behind it allow, and no more.
SCOPED = "scopes:"
#: The owner that the account has.
OWNER_ID = "501"
KINDS = ("contacts", "communications", "tickets", "tasks")
CALCULATED = {
    "phone": ("hs_calculated_phone_number", "hs_searchable_calculated_phone_number"),
    "mobilephone": ("hs_calculated_mobile_number", "hs_searchable_calculated_mobile_number"),
}
#: From and to of the associations that may be made together with an object.
ASSOCIATIONS = {
    81: ("communications", "contacts"),
    83: ("communications", "tickets"),
    204: ("tasks", "contacts"),
    230: ("tasks", "tickets"),
    16: ("tickets", "contacts"),
}
#: The stages of the account's one ticket pipeline, ``0``: label, and whether tickets are closed.
STAGES = {
    "1": ("New", False),
    "2": ("Waiting on contact", False),
    "3": ("Waiting on us", False),
    "4": ("Closed", True),
}
TASK_STATUSES = {"NOT_STARTED", "IN_PROGRESS", "WAITING", "COMPLETED", "DEFERRED"}
MAX_BODY = 65_536
_CONTACTS = "crm.objects.contacts"
_CHANNELS = "conversations.custom_channels"


class Problem(Exception):
    """An answer that is an error, in HubSpot's form."""

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
#: What ``gofax-relay connectors setup`` makes in a real account.
PREPARED = {
    "contacts": (
        Property(name="sms_relay_phone", unique=True),
        Property(name="sms_opted_out", type="bool", field_type="booleancheckbox"),
    ),
    "tickets": (Property(name="sms_relay_conversation", unique=True),),
}


def definitions(kind: str, *, prepared: bool) -> dict[str, Property]:
    """Return the properties that objects of *kind* have in the account."""
    found = [Property(name=name) for name in _WRITABLE[kind]]
    if kind == "contacts":
        computed = [name for pair in CALCULATED.values() for name in pair]
        found += [Property(name=name, read_only=True) for name in computed]
    if prepared:
        found += PREPARED.get(kind, ())
    return {each.name: each for each in found}


def authorize() -> None:
    """Turn away whoever has no valid token, or one without the scope for this call."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or not token or token == REVOKED:
        message = "Authentication credentials not found. This API supports OAuth 2.0"
        raise Problem(401, "INVALID_AUTHENTICATION", message)
    needed = _scope_for(request.method, request.path)
    if token == UNSCOPED:
        token = SCOPED
    if needed and token.startswith(SCOPED) and needed not in token[len(SCOPED) :].split(","):
        required = {
            "message": "One or more of the following scopes are required.",
            "context": {"requiredGranularScopes": [needed]},
        }
        message = "This app hasn't been granted all required scopes to make this call."
        raise Problem(403, "MISSING_SCOPES", message, errors=[required])


def _scope_for(method: str, path: str) -> str:
    reads = method == "GET" or path.endswith(("/search", "/batch/read"))
    if "/custom-channels/" in path:
        return f"{_CHANNELS}.{'read' if reads else 'write'}"
    if re.search(r"/(tickets|pipelines)\b", path) and "/associations/" not in path:
        return "tickets"
    if "/properties/" in path and not reads:
        return "crm.schemas.contacts.write"
    if "/crm/" in path:
        return f"{_CONTACTS}.{'read' if reads else 'write'}"
    return ""


def asked_for() -> dict[str, Any]:
    """Return the JSON object that was sent."""
    asked = request.get_json(silent=True)
    if not isinstance(asked, dict):
        raise invalid("Invalid input JSON")
    return asked


def required(asked: Mapping[str, Any], *names: str) -> None:
    """Refuse what lacks a field that the API's description calls required."""
    missing = [name for name in names if name not in asked]
    if missing:
        raise invalid(f"Some required fields were not set: [{', '.join(missing)}]")


def inputs_of(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the inputs of a batch."""
    inputs: list[dict[str, Any]] = asked.get("inputs", [])
    if not 0 < len(inputs) <= 100:
        raise invalid("A batch takes 1 to 100 inputs")
    return inputs


def values_of(asked: Mapping[str, Any], known: Mapping[str, Property]) -> dict[str, str]:
    """Return the property values to write, if they may be written."""
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
    """Refuse values that an object of *kind* cannot be made with."""
    checks = {
        "communications": _validate_communication,
        "tickets": _validate_ticket,
        "tasks": _validate_task,
    }
    if kind in checks:
        checks[kind](values)


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
    """Make the refusal of a whole request."""
    return Problem(400, "VALIDATION_ERROR", message)


def invalid_value(name: str, code: str, said: str) -> Problem:
    """Make the refusal of one property's value."""
    detail = {"isValid": False, "message": said, "error": code, "name": name}
    error = {"message": said, "code": code, "context": {"propertyName": [name]}}
    message = f"Property values were not valid: {json.dumps([detail])}"
    return Problem(400, "VALIDATION_ERROR", message, errors=[error])


def not_found(what: str = "resource not found") -> Problem:
    """Make the answer to an id that nothing has."""
    return Problem(404, "OBJECT_NOT_FOUND", what)


def batch(results: list[Any], *, missing: Iterable[str] = ()) -> tuple[dict[str, Any], int]:
    """Answer a batch, with what was not there as errors of its own."""
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
    """Return a filter of a search, if HubSpot could use it."""
    if asked.get("propertyName") not in known:
        raise invalid(f'There was a problem with the request: no "{asked.get("propertyName")}"')
    if asked.get("operator") not in {"EQ", "IN", "CONTAINS_TOKEN"}:
        raise invalid("There was a problem with the request: operator")
    return asked


def is_found(values: Mapping[str, str], groups: Iterable[Mapping[str, Any]]) -> bool:
    """Say whether one of the *groups* fits."""
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
    """Fill in what HubSpot makes of a phone number, or nothing if it cannot read it."""
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
