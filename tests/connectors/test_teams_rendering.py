"""Cards in a browser, drawn by Microsoft's renderer: nothing that strangers write becomes more."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import render_cards
from render_cards import Drawn

REQUIRED = os.environ.get("GOFAX_TEST_REQUIRE", "").split(",")
#: A card that escapes nothing and is too wide: what is looked for is found where it is.
CARELESS = {
    "type": "AdaptiveCard",
    "version": "1.4",
    "body": [
        {"type": "TextBlock", "text": "[x](https://evil.example) **b**"},
        {"type": "ColumnSet", "columns": [{"type": "Column", "width": "2000px", "items": []}]},
    ],
}


def missing(what: str, reason: str) -> None:
    (pytest.fail if what in REQUIRED else pytest.skip)(f"needs {what}: {reason}")


def draw(folder: Path) -> Mapping[str, Drawn]:
    for program in ("chromium", "npm"):
        if shutil.which(program) is None:
            missing(program, "it is not installed")
    try:
        render_cards.fetched(folder)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        missing("npm", "its registry does not give out the renderer")
    made = render_cards.built() | {"careless": CARELESS}
    file = folder / "cards.html"
    file.write_text(render_cards.page(made, folder, theme="light"), encoding="utf-8")
    return {
        name: Drawn(text=seen(card.text), links=card.links, overflow=card.overflow)
        for name, card in render_cards.drawn(file).items()
    }


def seen(text: str) -> str:
    """Return *text* as eyes see it: without empty lines and what is invisible."""
    for invisible in "\u2060\u2068\u2069":
        text = text.replace(invisible, "")
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())


# One test, so that the workers of a parallel run need not each fetch and draw.
@pytest.mark.slow
def test_cards_look_as_they_should(tmp_path: Path) -> None:
    drawn = dict(draw(tmp_path))

    careless = drawn.pop("careless")
    assert len(careless.links) == 1
    assert careless.overflow > 0
    assert "**" not in careless.text

    assert set(drawn) == set(render_cards.SAMPLES)
    for name, card in drawn.items():
        assert not card.links, f"{name}: {card.links}"
        assert card.overflow == 0, f"{name}: {card.overflow} px"
        assert card.text.endswith("\nOpen in gofax-relay"), name

    hostile = render_cards.SAMPLES["hostile text"][0]["body"]
    assert hostile in drawn["hostile text"].text
    assert "[x](https://evil.example) <at>A</at> **5**" in drawn["hostile numbers"].text
    assert "To\nhttps://evil.example" in drawn["hostile numbers"].text
    assert "Hi, is my order 1234 ready?\nThanks, Kim" in drawn["normal"].text
    assert "Time\n2025-12-04 00:24:07 UTC" in drawn["normal"].text
    assert "שלום!\nthanks" in drawn["from the right"].text
    assert "\nAnn Example\n" in drawn["mention"].text
    assert "Plan\nGold_*_\nSydney\nThu 04 Dec 11:24" in drawn["own lines"].text
