"""Reads HubSpot's JSON, in which any field may be missing or of another type."""

from __future__ import annotations

import json
import re
from typing import Any

from connectors.base import Transient

_ID = re.compile(r"[0-9]{1,20}")


def parsed(body: bytes) -> Any:
    """Return the JSON of an answer; None if it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def is_id(value: str) -> bool:
    """Return whether *value* can be the id of a record."""
    return _ID.fullmatch(value) is not None


def text(value: object, name: str) -> str | None:
    """Return a field as text; None if it is absent, empty or no plain value."""
    found = value.get(name) if isinstance(value, dict) else None
    if isinstance(found, bool) or not isinstance(found, str | int):
        return None
    return str(found) or None


def dicts(value: object, name: str) -> list[dict[str, Any]]:
    """Return the objects in a list, without anything else in it."""
    found = value.get(name) if isinstance(value, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def properties(record: object) -> dict[str, Any]:
    """Return the properties of a record."""
    found = record.get("properties") if isinstance(record, dict) else None
    return found if isinstance(found, dict) else {}


def new_id(record: object) -> str | None:
    """Return the id of a record that was just written; None if the answer names none."""
    found = text(record, "id")
    return found if found is not None and is_id(found) else None


def record_id(record: object) -> str:
    """Return the id of a record that was read. Raises Transient if the answer names none."""
    found = new_id(record)
    if found is None:
        raise Transient("answered with something else than a record")
    return found
