"""What HubSpot's API accepts, and how it says no."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import phonenumbers
from flask import request
from flask.typing import ResponseReturnValue

UNIQUE_PROPERTY = "sms_relay_phone"
REVOKED, UNSCOPED = "revoked", "unscoped"
#: The owner that the account has.
OWNER_ID = "501"
CALCULATED = {
    "phone": ("hs_calculated_phone_number", "hs_searchable_calculated_phone_number"),
    "mobilephone": ("hs_calculated_mobile_number", "hs_searchable_calculated_mobile_number"),
}
#: What callers may write.
WRITABLE = {
    "contacts": {
        *("firstname", "lastname", "email", "company", "lifecyclestage", "hubspot_owner_id"),
        *("phone", "mobilephone", UNIQUE_PROPERTY),
    },
    "communications": {
        *("hs_communication_channel_type", "hs_communication_logged_from"),
        *("hs_communication_body", "hs_timestamp", "hubspot_owner_id"),
    },
}
READABLE = WRITABLE["contacts"] | {each for pair in CALCULATED.values() for each in pair}
MAX_BODY = 65_536


class Problem(Exception):
    """An answer that is an error, in HubSpot's form."""

    def __init__(self, status: int, category: str, message: str, **more: object) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, object] = {"status": "error", "message": message}
        self.body |= {"category": category, "correlationId": str(uuid.uuid4())} | more


def authorize() -> None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or not token or token == REVOKED:
        raise Problem(
            401, "INVALID_AUTHENTICATION", "Authentication credentials are missing or not valid."
        )
    if token == UNSCOPED:
        scopes = ["crm.objects.contacts.read", "crm.objects.contacts.write"]
        message = "The scopes needed for this call were not granted."
        raise Problem(403, "MISSING_SCOPES", message, context={"missingScopes": scopes})


def asked_for() -> dict[str, Any]:
    asked = request.get_json(silent=True)
    if not isinstance(asked, dict):
        raise invalid("Invalid input JSON")
    return asked


def inputs_of(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    inputs: list[dict[str, Any]] = asked.get("inputs", [])
    if not 0 < len(inputs) <= 100:
        raise invalid("A batch takes 1 to 100 inputs")
    return inputs


def values_of(asked: Mapping[str, Any], kind: str) -> dict[str, str]:
    values: dict[str, str] = asked.get("properties", {})
    for name in values:
        if name not in WRITABLE[kind]:
            raise invalid_value(name, "PROPERTY_DOESNT_EXIST", "does not exist")
    if values.get("hubspot_owner_id", OWNER_ID) != OWNER_ID:
        raise invalid_value("hubspot_owner_id", "INVALID_OWNER_ID", "names no owner")
    return values


def validate_communication(values: Mapping[str, str]) -> None:
    if values.get("hs_communication_channel_type") not in {"SMS", "WHATS_APP", "LINKEDIN_MESSAGE"}:
        raise invalid_value("hs_communication_channel_type", "INVALID_OPTION", "is no channel")
    if values.get("hs_communication_logged_from") != "CRM":
        raise invalid_value("hs_communication_logged_from", "INVALID_OPTION", "must be CRM")
    if len(values.get("hs_communication_body", "")) > MAX_BODY:
        raise invalid_value("hs_communication_body", "PROPERTY_VALUE_TOO_LONG", "is too long")
    try:
        datetime.fromisoformat(values.get("hs_timestamp", ""))
    except ValueError:
        raise invalid_value("hs_timestamp", "INVALID_DATE", "is missing or no time") from None


def invalid(message: str) -> Problem:
    return Problem(400, "VALIDATION_ERROR", message)


def invalid_value(name: str, code: str, what: str) -> Problem:
    message = f'Property values were not valid: "{name}" {what}'
    return Problem(400, "VALIDATION_ERROR", message, errors=[{"code": code, "in": name}])


def batch(results: list[Any], *, missing: Iterable[str] = ()) -> ResponseReturnValue:
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
        return answer
    return answer | {"numErrors": len(errors), "errors": errors}, 207


def filter_of(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    if asked.get("propertyName") not in READABLE:
        raise invalid(f'There was a problem with the request: no "{asked.get("propertyName")}"')
    if asked.get("operator") not in {"EQ", "IN", "CONTAINS_TOKEN"}:
        raise invalid("There was a problem with the request: operator")
    return asked


def is_found(values: Mapping[str, str], groups: Iterable[Mapping[str, Any]]) -> bool:
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
