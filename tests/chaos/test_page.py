"""The page on reliability names tests and options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"tests/[\w/]+\.py", PAGE))))
def test_each_test_that_the_page_names_exists(path: str) -> None:
    assert (ROOT / path).is_file()


def test_the_options_that_the_page_names_exist(pytestconfig: pytest.Config) -> None:
    named = set(re.findall(r"--(chaos-[a-z]+)", PAGE))

    assert named == {"chaos-seed", "chaos-seeds", "chaos-stage"}
    for option in named:
        pytestconfig.getoption(f"--{option}")  # raises for what is no option
