"""docs/architecture.md names files, classes, functions and tables that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PATH = r"(?:relay|connectors|sender|tests|docs)/[\w/.-]*"


def _defined(path: Path) -> set[str]:
    """Return the functions, classes and constants of a module, and ``Class.method``."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {each.id for each in targets if isinstance(each, ast.Name)}
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{e.name}" for e in node.body if isinstance(e, ast.FunctionDef)}
    return names


def test_every_file_and_folder_exists() -> None:
    named = set(re.findall(PATH, PAGE))

    assert len(named) > 40
    assert [each for each in sorted(named) if not (ROOT / each).exists()] == []


def test_every_name_exists() -> None:
    named = set(re.findall(rf"`({PATH}): ([\w.]+)`", PAGE))

    assert len(named) > 30
    assert [each for each in sorted(named) if each[1] not in _defined(ROOT / each[0])] == []


def test_the_picture_has_every_room_of_the_relay() -> None:
    rooms = {
        each.name + ("/" if each.is_dir() else "")
        for each in (ROOT / "relay").iterdir()
        if each.is_dir() or each.suffix == ".py"
    } - {"__pycache__/", "__init__.py", "ids.py"}

    assert [each for each in sorted(rooms) if f"relay/{each}" not in PAGE] == []
