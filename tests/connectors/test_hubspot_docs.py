"""The page on HubSpot says what the options say, and shows a picture that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from connectors.hubspot.options import HubSpotOptions

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "hubspot.md"


def options(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every option with its full name, those of nested mappings behind their own."""
    for name, field in model.model_fields.items():
        yield f"{before}{name}", field
        inner = get_args(field.annotation) if _is_union(field.annotation) else ()
        for each in inner:
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from options(each, f"{before}{name}.")


def _is_union(annotation: Any) -> bool:
    return isinstance(annotation, UnionType)


def table() -> str:
    """Write the options as the page does."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for name, field in options(HubSpotOptions):
        meaning = (field.description or "").rstrip(".")
        rows.append(f"| `{name}` | {default_of(field)} | {meaning} |")
    return "\n".join(rows)


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default in (None, ()):
        return "none"
    said = field.default
    words = ", ".join(said) if isinstance(said, tuple) else str(said)
    return "`" + words.replace("\n", "\\n").replace("|", "\\|") + "`"


def test_the_table_of_options_is_that_of_the_model() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert table() in page, f"put this table into docs/hubspot.md:\n{table()}"


def test_its_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))

    assert pictures == ["images/hubspot.png"]
    assert 10_000 < (PAGE.parent / pictures[0]).stat().st_size < 150_000


def test_its_yaml_configures_destinations() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    written = [yaml.safe_load(block)["destinations"] for block in blocks]
    destinations = [each for block in written for each in block.values()]

    assert len(destinations) >= 3
    for each in destinations:
        assert each.pop("connector") == "hubspot"
        HubSpotOptions.model_validate(each)


def test_the_example_shows_the_keys_of_nested_options() -> None:
    example = (ROOT / "config.example.yaml").read_text(encoding="utf-8")
    block = example[example.index("  crm:") : example.index("  helpdesk:")]

    keys = {name.rpartition(".")[2] for name, _ in options(HubSpotOptions)}
    assert not {key for key in keys if not re.search(rf"(?m)^ +#? *{key}:", block)}
