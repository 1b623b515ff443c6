"""docs/teams.md says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from options_table import table

from connectors.teams.options import TeamsOptions

PAGE = (Path(__file__).parents[2] / "docs" / "teams.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
    return [re.sub(f"(?m)^{indent}", "", block) for indent, block in found]


def destinations() -> list[dict[str, Any]]:
    shown = [yaml.safe_load(block) for block in blocks("yaml")]
    return [each.get("destinations", each)["front-desk"] for each in shown]


def test_the_table_is_that_of_the_model() -> None:
    assert table(TeamsOptions) in PAGE


@pytest.mark.parametrize("given", destinations(), ids=str)
def test_what_it_configures_can_be_configured(given: dict[str, Any]) -> None:
    ours = {key: value for key, value in given.items() if key in TeamsOptions.model_fields}
    if "url" in ours:
        ours["url"] = "https://example.com/flow"

    TeamsOptions.model_validate(ours)

    assert set(given) - set(ours) <= {"connector", "connection", "on_ambiguous"}


def test_its_json_is_json() -> None:
    told, manifest = [json.loads(block) for block in blocks("json")]

    assert manifest["bots"][0]["botId"] == manifest["id"]
    assert set(told) == {"type", "attachments", "conversation"}


def test_its_picture_is_small() -> None:
    (name,) = re.findall(r"!\[[^]]+\]\((.*?)\)", PAGE)

    assert (Path(__file__).parents[2] / "docs" / name).stat().st_size < 150_000
