"""The page on Zendesk says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from options_table import table

from connectors.zendesk.connector import ZendeskOptions

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "zendesk.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def destinations() -> list[dict[str, Any]]:
    found = [yaml.safe_load(block)["destinations"].values() for block in BLOCKS]
    return [destination for each in found for destination in each]


def test_table_of_options_is_that_of_the_model() -> None:
    assert table(ZendeskOptions) in PAGE


@pytest.mark.parametrize("given", destinations())
def test_examples_are_valid(given: dict[str, Any]) -> None:
    assert given.pop("connector") == "zendesk"
    sign_in = {"subdomain": "acme", "client_id": "relay", "client_secret": "x"}
    if given.keys() & {"access_token", "email"}:
        sign_in = {"subdomain": "acme"}

    ZendeskOptions.model_validate(sign_in | given)


def test_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE)

    assert pictures
    assert all((DOCS / each).stat().st_size < 150_000 for each in pictures)
