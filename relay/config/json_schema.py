"""The JSON Schema of the config file, for editors: our keys and those of every connector."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import CoreSchema, PydanticSerializationError, core_schema

from connectors.base import Connector
from relay.config.model import Config
from relay.rules.units import RateLimit, written

Json = dict[str, Any]

#: A reference may replace any scalar; it is filled in before values are checked.
REFERENCE: Json = {"type": "string", "pattern": r"\$\{[A-Za-z_]|^(file|credential):"}
#: Keywords that a text with a reference does not satisfy.
_NARROW = {"pattern", "enum", "const", "minLength", "maxLength", "format"}


def schema(connectors: Mapping[str, type[Connector[Any]] | None]) -> Json:
    """Describe the file. A connector that could not be imported (None) allows any options."""
    models = {name: found.Options for name, found in connectors.items() if found}
    refs, shared = models_json_schema(
        [(Config, "validation"), *((model, "validation") for model in models.values())],
        schema_generator=_Generator,
    )
    definitions: dict[str, Json] = shared["$defs"]
    config = definitions.pop("Config")
    definitions.pop("BaseModel", None)
    options = {
        name: refs[model, "validation"]["$ref"].rpartition("/")[2]
        for name, model in models.items()
    }
    _describe_destinations(definitions, connectors, options)
    _loosen_routes(definitions)
    found: Json = _with_references({**config, "$defs": definitions})
    return {"$schema": GenerateJsonSchema.schema_dialect, **found, "title": "gofax-relay"}


class _Generator(GenerateJsonSchema):
    """Writes defaults as the file does, and no titles that repeat names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> Json:
        return {"type": "string"}

    def handle_invalid_for_json_schema(self, schema: CoreSchema, error_info: str) -> Json:
        return {}  # such as a function, which only the model can check

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Json:
        default = schema.get("default")
        found: Json = self.generate_inner(schema["schema"])
        if default is None or isinstance(default, BaseModel):
            return found
        try:
            return {**found, "default": self.encode_default(_as_written(default))}
        except PydanticSerializationError:
            return found

    def generate_inner(self, schema: CoreSchema) -> Json:
        found = super().generate_inner(schema)
        for constraint in ("gt", "ge", "lt", "le"):
            found.pop(constraint, None)  # they limit times, which JSON Schema cannot express
        return found


def _as_written(default: Any) -> Any:
    """Write *default* as people would: ``25s`` for a time."""
    if isinstance(default, timedelta):
        return written(default)
    if isinstance(default, RateLimit):
        return str(default)
    if isinstance(default, BaseModel):
        return default.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(default, tuple):
        return [_as_written(each) for each in default]
    return default


def _describe_destinations(
    definitions: dict[str, Json],
    connectors: Mapping[str, type[Connector[Any]] | None],
    options: Mapping[str, str],
) -> None:
    """Let each destination take its connector's options beside the common keys."""
    destination = definitions["DestinationConfig"]
    common = destination["properties"]
    del common["options"]
    common["connector"] |= {"enum": sorted(connectors)}
    destination["required"] = ["connector"]
    # The branch of the connector allows further keys.
    del destination["additionalProperties"]
    for definition in set(options.values()):
        definitions[definition].setdefault("properties", {}).update(dict.fromkeys(common, True))
    destination["allOf"] = [
        {
            "if": {"properties": {"connector": {"const": name}}, "required": ["connector"]},
            "then": {"$ref": f"#/$defs/{definition}"},
        }
        for name, definition in sorted(options.items())
    ]


def _loosen_routes(definitions: dict[str, Json]) -> None:
    """Let the file leave out names of routes, and write a list of one as its item."""
    definitions["Route"]["required"].remove("name")
    when = definitions["When"]
    # Written metadata.KEY, for any key.
    when["properties"].pop("metadata")
    one = {"type": ["string", "integer"]}
    when["patternProperties"] = {
        r"^metadata\..+$": _either([one, {"type": "array", "items": one, "minItems": 1}])
    }
    for name, condition in when["properties"].items():
        kinds = [kind for kind in condition.pop("anyOf", []) if kind != {"type": "null"}]
        items = kinds[0].get("items", {}) if kinds else {}
        if "$ref" not in items and items:
            kinds = [one, {"type": "array", "items": one, "minItems": 1}]
        when["properties"][name] = condition | _either(kinds)


def _either(kinds: list[Json]) -> Json:
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {}


def _with_references(node: Any) -> Any:
    """Let every scalar also be a reference."""
    if isinstance(node, list):
        return [_with_references(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "if" in node:
        return node
    if node.get("type") not in ("integer", "number", "boolean", "string"):
        return {key: _with_references(value) for key, value in node.items()}
    if node["type"] == "string" and not node.keys() & _NARROW or node.get("format") == "password":
        return node
    about = {key: node[key] for key in ("description", "default") if key in node}
    rest = {key: value for key, value in node.items() if key not in about}
    return about | {"anyOf": [rest, REFERENCE]}
