"""The page on HubSpot says what the options say, and shows a picture that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from hubspot_portal import Portal, deliver
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from connectors.hubspot.options import HubSpotOptions
from connectors.testing import sample_event

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "hubspot.md"


def options(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every option with its full name, those of nested mappings behind their own."""
    for name, field in model.model_fields.items():
        yield f"{before}{name}", field
        for each in (field.annotation, *get_args(field.annotation)):
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from options(each, f"{before}{name}.")


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
    if field.default in (None, (), {}) or isinstance(field.default, BaseModel):
        return "none"
    said = field.default
    words = ", ".join(said) if isinstance(said, tuple) else str(said)
    return "`" + words.replace("\n", "\\n").replace("|", "\\|") + "`"


#: What the page says of a delivery, the options that it needs, and its requests and searches.
DELIVERIES = [
    ("known conversation", {}, "known", (1, 0)),
    ("new customer", {}, "new", (3, 1)),
    ("known conversation, open ticket", {"ticket": {}}, "known", (3, 0)),
    ("new customer, new ticket", {"ticket": {}}, "new", (6, 1)),
    ("known conversation, open ticket and task", {"ticket": {}, "task": {}}, "known", (5, 0)),
    ("new customer, new ticket and task", {"ticket": {}, "task": {}}, "new", (8, 1)),
]


def requests_table(deliveries: list[tuple[str, dict[str, Any], str, tuple[int, int]]]) -> str:
    """Write what deliveries cost as the page does."""
    rows = ["| delivery | requests | searches |", "|---|---|---|"]
    for name, _, _, (requests, searches) in deliveries:
        rows.append(f"| {name} | {requests} | {searches} |")
    return "\n".join(rows)


def test_the_table_of_requests_is_what_deliveries_make(portal: Portal) -> None:
    page = PAGE.read_text(encoding="utf-8")
    measured = []
    for number, (name, options, kind, _) in enumerate(DELIVERIES):
        connector = portal.connector(**options)
        customer = f"+6140000000{number}"
        event = sample_event(
            customer=customer, sender=customer, conversation=f"{customer}~+61700000000"
        )
        thread = None
        if kind == "known":
            thread = deliver(connector, event).thread
            # Once in ten minutes the stages of the pipeline are read.
            deliver(connector, event, key="key-2", thread=thread)
        portal.calls.clear()
        deliver(connector, event, key="key-3", thread=thread)
        searches = sum(call.endswith("/search") for call in portal.calls)
        measured.append((name, options, kind, (len(portal.calls) - searches, searches)))

    assert requests_table(measured) in page
    assert measured == DELIVERIES


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
