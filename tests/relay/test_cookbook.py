"""docs/cookbook.md: each recipe is a config, and takes each message where its table says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
import yaml
from gofax import EXAMPLE

from relay.config.installed import find
from relay.config.load import load
from relay.config.model import Config
from relay.intake import Intake
from relay.rules.sentiment import vader
from relay.store.values import Request

PAGE = (Path(__file__).parents[2] / "docs/cookbook.md").read_text(encoding="utf-8")
ABOUT, *RECIPES = re.split(r"^## ", PAGE, flags=re.MULTILINE)
SYSTEMS = re.findall(r"^```yaml\n(.*?)^```", ABOUT, re.MULTILINE | re.DOTALL)[0]
MONDAY = "2026-11-30 10:00"
STATUS = {"Recipient": "61400000000", "ID": "52336014", "Success": "True", "Message": "sent"}


@dataclass(frozen=True)
class Case:
    """A row of a table: what the page changes in a message, and where it goes."""

    recipe: str
    routes: str
    changes: Mapping[str, Any]
    goes_to: list[str]

    def __str__(self) -> str:
        return f"{self.recipe}: {json.dumps(self.changes, default=str)}"


def cases() -> list[Case]:
    found = []
    for recipe in RECIPES:
        [routes] = re.findall(r"^```yaml\n(.*?)^```", recipe, re.MULTILINE | re.DOTALL)
        for message, targets in re.findall(r"^\| (`.+`) \| (.+) \|$", recipe, re.MULTILINE):
            changes: dict[str, Any] = {}
            for each in re.findall(r"`([^`]+)`", message):
                changes |= yaml.load(each, yaml.BaseLoader) if "null" not in each else {
                    each.partition(":")[0]: None}  # fmt: skip
            goes_to = [] if targets == "nobody" else targets.split(", ")
            case = Case(recipe.partition("\n")[0], routes, changes, goes_to)
            found.append(case)
    return found


@cache
def config_of(text: str, folder: Path) -> Config:
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "https://example.com/a-secret-of-it")
    return load(file, find_connector=find, environ=environ)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cookbook")


def test_there_are_twelve_recipes_with_at_least_two_messages_each() -> None:
    by_recipe: dict[str, list[Case]] = {}
    for case in cases():
        by_recipe.setdefault(case.recipe, []).append(case)

    assert len(by_recipe) == len(RECIPES) == 12
    assert [name for name, each in by_recipe.items() if len(each) < 2] == []


@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_message_goes_where_the_page_says(case: Case, folder: Path) -> None:
    config = config_of(SYSTEMS + case.routes, folder)
    changes = dict(case.changes)
    name = changes.pop("endpoint", "gofax")
    at = datetime.fromisoformat(changes.pop("received", MONDAY))
    at = at.replace(tzinfo=ZoneInfo("Australia/Sydney")).astimezone(UTC)
    [endpoint] = [each for each in config.endpoints if each.name == name]
    is_form = endpoint.format == "form"
    body = (STATUS if is_form else EXAMPLE) | changes
    raw = urlencode(body).encode() if is_form else json.dumps(body).encode()

    intake = Intake.of(config, endpoint, judge=vader() if config.sentiment else None)
    request = Request(
        id="req_1", at=at, endpoint=name, method="POST", remote=None, headers={},
    )  # fmt: skip
    arrival = intake.arrival(request, raw, charset=None)

    assert list(arrival.match.destinations) == case.goes_to
