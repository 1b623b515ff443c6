"""The description of the API by OpenAPI 3.1, made from the code once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask_openapi3.openapi import OpenAPI

ABOUT = """\
What the console shows and does, for programs. Every call needs a token:
`Authorization: Bearer TOKEN`. Lists come a page at a time: `next` is the cursor of the next page.
Errors are problem details (RFC 9457); their `errors` name the fields at fault.
"""


def complete(app: OpenAPI) -> None:
    """Make the description, before the first call asks for it."""
    described = app.api_doc
    described["info"]["description"] = ABOUT
    described["servers"] = [{"url": "/"}]
    for operation in operations(described):
        for parameter in operation.get("parameters", ()):
            _say_plainly(parameter)


def operations(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the description says of each call."""
    for item in described["paths"].values():
        yield from item.values()


def _say_plainly(parameter: dict[str, Any]) -> None:
    """Leave out null: a parameter that has no value is not there."""
    schema = parameter["schema"]
    kinds = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema |= kinds[0]
    if schema.get("default", ...) is None:
        del schema["default"]
