"""No regular expression of ours takes long over a text that was written for that purpose."""

from __future__ import annotations

import ast
import importlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("relay", "connectors", "sender")
METHODS = ("search", "sub", "findall", "finditer", "split", "match", "fullmatch")
#: A quadratic search of this many characters takes 40 ms of CPU or more, a linear one under 2 ms.
LENGTH = 8_000
LIMIT = 0.015
#: Modules whose patterns read the operator's own config, and nothing that came from elsewhere.
CONFIG_ONLY = ("relay.config.", "relay.rules.units")

Pattern = Any


def _uses() -> Iterator[tuple[str, Pattern, str]]:
    """Yield each use of a pattern: the module, the pattern and the method."""
    named: dict[str, Pattern] = {}
    calls: list[tuple[str, ast.Call]] = []
    for path in sorted(each for name in PACKAGES for each in (ROOT / name).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        source = path.read_text(encoding="utf-8")
        calls += [(module, e) for e in ast.walk(ast.parse(source)) if isinstance(e, ast.Call)]
        if "re.compile(" in source:
            found = vars(importlib.import_module(module)).items()
            named |= {name: each for name, each in found if isinstance(each, re.Pattern)}
    for module, call in calls:
        if not isinstance(call.func, ast.Attribute) or call.func.attr not in METHODS:
            continue
        holder = getattr(call.func.value, "id", getattr(call.func.value, "attr", ""))
        if holder == "re" and isinstance(call.args[0], ast.Constant):
            yield module, re.compile(call.args[0].value), call.func.attr
        elif holder in named:
            yield module, named[holder], call.func.attr


def _sample(parsed: Any) -> str:
    """Write a short text that the parsed pattern takes."""
    return "".join(_piece(code, value) for code, value in parsed)


def _piece(code: Any, value: Any) -> str:
    match code:
        case codes.LITERAL:
            return chr(value)
        case codes.NOT_LITERAL:
            return "b" if chr(value) == "a" else "a"
        case codes.ANY:
            return "a"
        case codes.IN:
            return _member(value)
        case codes.MAX_REPEAT | codes.MIN_REPEAT | codes.POSSESSIVE_REPEAT:
            least, _, inner = value
            return _sample(inner) * max(1, least)
        case codes.SUBPATTERN:
            return _sample(value[-1])
        case codes.ATOMIC_GROUP:
            return _sample(value)
        case codes.BRANCH:
            return _sample(value[1][0])
    return ""  # an anchor or a look-around


def _member(choices: Any) -> str:
    """Return one character of a class."""
    is_negated = choices[0][0] is codes.NEGATE
    return next(
        each
        for each in map(chr, (*range(0x21, 0x7F), *range(0x21), *range(0x7F, 0x3000)))
        if any(_holds(*choice, each) for choice in choices) != is_negated
    )


def _holds(code: Any, value: Any, character: str) -> bool:
    if code is codes.RANGE:
        return bool(value[0] <= ord(character) <= value[1])
    if code is codes.CATEGORY:
        kind = str(value).removeprefix("CATEGORY_")
        escape = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}[kind.removeprefix("NOT_")]
        return bool(re.match(escape, character)) != kind.startswith("NOT_")
    return code is codes.LITERAL and chr(value) == character


def _hostile(pattern: Pattern) -> Iterator[Any]:
    """Repeat each beginning of a text that *pattern* takes: each could be the start of one."""
    sample = _sample(parser.parse(pattern.pattern, pattern.flags))
    if isinstance(pattern.pattern, bytes):
        sample = sample.encode("latin-1")
    for length in range(1, len(sample) + 1):
        repeated = sample[:length] * (LENGTH // length)
        yield repeated
        yield repeated + sample[:0].join([sample, sample])


def _seconds(pattern: Pattern, method: str, text: Any) -> float:
    """Return the CPU time of one call, the better of two if the first was slow."""
    act = getattr(pattern, method)
    seconds = LIMIT + 1
    for _ in range(2):
        if seconds > LIMIT:
            started = time.thread_time()
            found = act(text[:0], text) if method == "sub" else act(text)
            if method == "finditer":
                list(found)
            seconds = time.thread_time() - started
    return seconds


def _slow_at(pattern: Pattern, method: str) -> Any:
    return next((t[:20] for t in _hostile(pattern) if _seconds(pattern, method, t) > LIMIT), None)


def test_a_quadratic_pattern_is_found() -> None:
    for pattern in ("[a-z]+-[0-9]{5}", "<[^>]*>", "<at>(.*?)</at>", rb"x+y"):
        assert _slow_at(re.compile(pattern), "search") is not None, pattern


def test_no_pattern_takes_longer_than_its_text_is_long() -> None:
    uses = {(each.pattern, how): (where, each) for where, each, how in _uses()}
    assert len(uses) > 60

    slow = {
        f"{where}: {pattern.pattern!r}.{method}": hit
        for (_, method), (where, pattern) in uses.items()
        if not where.startswith(CONFIG_ONLY) and (hit := _slow_at(pattern, method)) is not None
    }

    assert slow == {}
