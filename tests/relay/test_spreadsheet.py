"""Cells of a spreadsheet: what people write is no formula."""

from __future__ import annotations

import pytest

from relay.shapes.spreadsheet import cell


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "@SUM(1)",
        "-1+1|cmd",
        "+1+A1",
        "\t=1+1",
        " =1+1",
        "\u3000=1",
        "\uff1d1+1",
        "\uff0bA1",
    ],
)
def test_a_formula_is_a_text(text: str) -> None:
    assert cell(text).startswith("'")


@pytest.mark.parametrize(
    "text", ["", "hello = goodbye", "+61 400 000 001", "-5", " see you", "(=1)"]
)
def test_what_is_none_stays_as_it_is(text: str) -> None:
    assert cell(text) == text
