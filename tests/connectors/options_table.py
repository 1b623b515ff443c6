"""The table of a connector's options that its page in docs/ shows.

``python tests/connectors/options_table.py connectors.zendesk.options:ZendeskOptions`` prints it.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def table(model: type[BaseModel]) -> str:
    """Describe every option of *model* in a row: its name, its default, its meaning."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for name, option in model.model_fields.items():
        cells = (f"`{name}`", _default(option), f"{option.description}{_choices(option)}")
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _default(option: FieldInfo) -> str:
    if option.is_required():
        return "required"
    default = option.get_default(call_default_factory=True)
    if default is None or default == {}:
        return "–"
    plain = default if isinstance(default, bool | int | float | str | list) else str(default)
    written = plain if isinstance(plain, str) else json.dumps(plain)
    return "`" + written.replace("\n", "\\n") + "`"


def _choices(option: FieldInfo) -> str:
    choices = [value for kind in _kinds(option.annotation) for value in get_args(kind)]
    return f" One of: {', '.join(f'`{each}`' for each in choices)}." if choices else ""


def _kinds(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return [annotation]
    return [kind for inner in get_args(annotation) for kind in _kinds(inner)]


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    sys.stdout.write(table(getattr(import_module(module), name)) + "\n")
