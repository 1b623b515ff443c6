"""One word per fact: no name in the code, and no sentence of the docs, brings back another."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for room in ("relay", "connectors") for path in (ROOT / room).rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "config.example.yaml", *sorted((ROOT / "docs").glob("*.md"))]

#: What names of classes and functions do not hold, and the word for it.
NAMES = {
    "desk": "recovery", "workbench": "recovery", "errand": "recovery", "remedy": "recovery",
    "ledger": "queries", "pile": "reason group", "manner": "options", "outlet": "destination",
    "plugin": "connector", "sink": "destination", "ringer": "notifier", "bell": "notifier",
    "upkeep": "pruning", "dlq": "dead", "requeue": "resend", "redeliver": "resend",
    "seat": "slot", "knock": "probe", "cooldown": "backoff", "publisher": "sender",
}  # fmt: skip
#: What the docs do not say.
WORDS = {
    "plugin": "connector", "DLQ": "dead", "dead letter queue": "dead delivery",
    "requeue": "resend", "redeliver": "resend", "reprocess": "replay",
}  # fmt: skip


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the classes and functions that a module defines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name


def parts(name: str) -> set[str]:
    """Return the words of a name, small and singular."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return {word.lower().removesuffix("s") for word in words}


def test_the_code_uses_the_words_of_the_glossary() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}: say {NAMES[word]}"
        for path in SOURCES
        for line, name in names(path)
        for word in sorted(parts(name) & NAMES.keys())
    ]

    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_docs_use_the_words_of_the_glossary(page: Path) -> None:
    wrong = [
        f"{page.name}:{number}: {word}: say {WORDS[word]}"
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        for word in WORDS
        if re.search(rf"\b{word}", line, re.IGNORECASE)
    ]

    assert wrong == []
