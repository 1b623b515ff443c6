"""Draws cards as Teams does: Microsoft's renderer with Teams' host config, in headless Chromium.

    python tests/connectors/render_cards.py FOLDER

writes ``light.png`` and ``dark.png`` into FOLDER, and prints what was found. The renderer, the
host configs and a Markdown parser come from npm into a temporary folder.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.teams import cards
from connectors.teams.cards import CardOptions
from connectors.testing import sample_event

#: Versions that were looked at.
PACKAGES = ("adaptivecards@3.0.6", "adaptivecards-designer@2.4.4", "markdown-it@14.1.0")
ANN = {"id": "ann@example.com", "name": "Ann Example"}
URL = "https://relay.example/console/events/evt_0193a0000000sample"

_ZALGO = (
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324A\u0334\u0335\u031c" * 3
)
_HOSTILE = (
    "**bold** _it_ # head\n- list\n1. one\n[click](https://evil.example) https://evil.example\n"
    "<at>Ann Example</at> <b>b</b> <img src=x onerror=alert(1)> <script>alert(1)</script>\n"
    "{{DATE(2026-01-01T00:00:00Z)}} ![x](https://evil.example/x.png) `code` &lt;b&gt; \\*"
)

#: Event, options and place of each card that is drawn.
SAMPLES: Mapping[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "normal": ({"body": "Hi, is my order 1234 ready?\nThanks, Kim"}, {}, False),
    "answer": ({"body": "Great, see you at 5 👍🏽", "sentiment": "positive"}, {}, True),
    "mention": (
        {"body": "Nobody called me back!", "sentiment": "negative"},
        {"mentions": [ANN]},
        False,
    ),
    "repeat": ({"body": "STOP", "keyword": "STOP"}, {}, False),
    "without text": ({"body": None}, {}, False),
    "long": ({"body": "All is well, and more than well. " * 60}, {}, False),
    "one word": ({"body": "W" * 300}, {}, False),
    "long link": ({"body": f"See https://shop.example/track?{'a1b2c3' * 30}"}, {}, False),
    "hostile text": ({"body": _HOSTILE}, {}, False),
    "hostile numbers": (
        {"sender": "[x](https://evil.example) <at>A</at> **5**", "customer": "<b>\u202e5</b>",
         "recipient": "https://evil.example", "message_id": "# [id](https://evil.example)"},
        {}, False,
    ),
    "from the right": ({"body": "مرحبا، أين طلبي رقم 1234؟\nשלום!\nthanks"}, {}, False),
    "override": ({"body": "paid \u202e001$ yadot\nnext line"}, {}, False),
    "accents": ({"body": f"{_ZALGO}\ncafe\u0301 Việt"}, {}, False),
    "emoji": ({"body": "👩‍👩‍👧‍👦 🇦🇺 👍🏽 ❤️ 🏳️‍🌈 1️⃣"}, {}, False),
    "own lines": (
        {"body": "Where are you?", "metadata": {"plan": "Gold_*_"}},
        {"title": "{{ customer }}", "facts": {
            "Plan": "**{{ metadata.plan }}**",
            "Sydney": '{{ time | date("%a %d %b %H:%M", "Australia/Sydney") }}',
        }},
        False,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a browser made of one card."""

    #: Every word that is to be seen, in order.
    text: str
    #: Addresses that a click would open, and pictures that were fetched.
    links: tuple[str, ...]
    #: Pixels by which something stands out of the card.
    overflow: int


def built() -> dict[str, cards.Json]:
    """Build the card of every sample."""
    made = {}
    for name, (changes, options, in_thread) in SAMPLES.items():
        event = sample_event(url=URL, **changes)
        activity = cards.activity(
            event,
            options=CardOptions.model_validate(options),
            repeat=name == "repeat",
            in_thread=in_thread,
        )
        made[name] = activity["attachments"][0]["content"]
    return made


def fetched(folder: Path) -> Path:
    """Put the packages from npm into *folder*. Raises CalledProcessError without a registry."""
    for package in PACKAGES:
        packed = subprocess.run(
            ["npm", "pack", "--silent", package],
            cwd=folder, check=True, capture_output=True, text=True, timeout=120,
        ).stdout.strip()  # fmt: skip
        with tarfile.open(folder / packed) as archive:
            archive.extractall(folder / package.partition("@")[0], filter="data")
    return folder


def page(made: Mapping[str, cards.Json], packages: Path, *, theme: str) -> str:
    """Write the page that draws *made* with the *theme* of Teams, light or dark."""
    library = _read(packages, "adaptivecards/package/dist/adaptivecards.min.js")
    markdown = _read(packages, "markdown-it/package/dist/markdown-it.min.js")
    hosts = "adaptivecards-designer/package/lib/hostConfigs"
    config = _read(packages, f"{hosts}/microsoft-teams-{theme}.json")
    given = json.dumps(made).replace("<", "\\u003c")
    return (
        f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><body class={theme}>"
        f"<script>{library}</script><script>{markdown}</script>"
        f"<script>const config = {config}, given = {given};{SCRIPT}</script>"
    )


def drawn(file: Path) -> dict[str, Drawn]:
    """Open *file* in Chromium and return what it found about each card."""
    dumped = _chromium("--virtual-time-budget=5000", "--dump-dom", file.as_uri())
    report = re.search(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    assert report, "the page did not come to its end"
    found = json.loads(html.unescape(report[1]))
    return {name: Drawn(**{**each, "links": tuple(each["links"])}) for name, each in found.items()}


def screenshot(file: Path, picture: Path) -> None:
    """Take a picture of *file* as Chromium shows it."""
    _chromium(f"--screenshot={picture}", "--window-size=1180,2000", file.as_uri())


def _chromium(*arguments: str) -> str:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            ["chromium", *flags, f"--user-data-dir={profile}", *arguments],
            check=True, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    return done.stdout


def _read(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8").replace("</script", "<\\/script")


#: A message in Teams breaks words that are wider than itself; its cards inherit that.
STYLE = """
body { margin: 12px; columns: 2; column-gap: 16px; font-family: 'Segoe UI', sans-serif; }
body.light { background: #f5f5f5; } body.dark { background: #1f1f1f; color: #ddd; }
figure { margin: 0 0 14px; break-inside: avoid; } figcaption { font-size: 11px; margin: 2px; }
.frame { border: 1px solid #8884; border-radius: 6px; overflow-wrap: anywhere; }
pre { display: none; }
"""
SCRIPT = """
const parser = window.markdownit({linkify: true});
AdaptiveCards.AdaptiveCard.onProcessMarkdown = (text, result) => {
  result.outputHtml = parser.render(text.replace(/<at>(.*?)<\\/at>/g, '**$1**'));
  result.didProcess = true;
};
const found = {};
for (const [name, card] of Object.entries(given)) {
  const drawing = new AdaptiveCards.AdaptiveCard();
  drawing.hostConfig = new AdaptiveCards.HostConfig(config);
  drawing.parse(card);
  const figure = document.createElement('figure');
  const frame = document.createElement('div');
  frame.className = 'frame';
  frame.append(drawing.render());
  const caption = document.createElement('figcaption');
  caption.textContent = name;
  figure.append(caption, frame);
  document.body.append(figure);
  const edge = frame.getBoundingClientRect().right;
  const rights = [...frame.querySelectorAll('*')].map(e => e.getBoundingClientRect().right);
  found[name] = {
    text: frame.innerText,
    links: [...frame.querySelectorAll('[href], [src], script, iframe')].map(e => e.outerHTML),
    overflow: Math.max(0, Math.round(Math.max(...rights) - edge)),
  };
}
const report = document.createElement('pre');
report.id = 'found';
report.textContent = JSON.stringify(found);
document.body.append(report);
"""


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        packages = fetched(Path(work))
        for theme in ("light", "dark"):
            file = packages / f"{theme}.html"
            file.write_text(page(built(), packages, theme=theme), encoding="utf-8")
            screenshot(file, folder.resolve() / f"{theme}.png")
        for name, card in drawn(file).items():
            sys.stdout.write(f"{name}: {len(card.links)} links, {card.overflow} px too wide\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
