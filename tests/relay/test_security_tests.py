"""The pages about security name tests that exist, and say honestly what does not hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECURITY = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ASVS = (ROOT / "docs" / "asvs.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (V\d+\.\d+\.\d+) \| ([12]) \| (.+?) \| (\S+) \| (.+?) \|$", re.MULTILINE)
NAMED = re.compile(r"`(test_[a-z0-9_]+)`")


def existing() -> set[str]:
    return {
        node.name
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_is_named_exists() -> None:
    named = set(NAMED.findall(SECURITY + ASVS))

    assert named - existing() == set()
    assert len(named) > 40


def test_every_threat_names_a_test() -> None:
    _, _, rest = SECURITY.partition("| who wants what |")
    rows = rest.split("\n\n")[0].splitlines()[2:]

    assert len(rows) > 12
    assert [row for row in rows if not NAMED.search(row)] == []


def test_the_list_has_each_requirement_once_in_order_with_a_mark_and_a_place() -> None:
    rows = ROW.findall(ASVS)
    ids = [tuple(map(int, name[1:].split("."))) for name, *_ in rows]

    assert ids == sorted(set(ids))
    assert len(rows) == len(re.findall(r"^\| V", ASVS, re.MULTILINE)) > 90
    assert {mark for *_, mark, _ in rows} == {"yes", "partly", "no", "host"}


def test_the_sums_are_those_of_the_list() -> None:
    marks = [mark for *_, mark, _ in ROW.findall(ASVS)]

    for mark in ("yes", "partly", "no", "host"):
        assert f"{marks.count(mark)} *{mark}*" in ASVS
