"""A package with a connector, ready to be turned into a real one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 40
#: Kinds of systems that a package can start from, each a folder of texts; docs/recipes.md.
KINDS = ("note", "chat", "ticket", "webhook")
#: File of the package → file of its text; @kind@ is the folder of the kind.
PARTS = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "@kind@/README.md",
    ".gitignore": "gitignore",
    ".github/workflows/tests.yml": "tests.yml",
    "src/@module@/__init__.py": "@kind@/connector.py",
    "src/@module@/py.typed": None,
    "src/@module@/stand_in.py": "@kind@/stand_in.py",
    "src/@module@/suite.py": "@kind@/suite.py",
    "tests/test_@word@.py": "@kind@/test_connector.py",
}


class Refusal(Exception):
    """The package cannot be written; the message says why."""


def package(name: str, *, like: str = KINDS[0]) -> Mapping[str, str]:
    """Return the texts of a package for connector *name*, by path.

    *like*: one of :data:`KINDS`. Raises :class:`Refusal`.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise Refusal(
            f'"{name}" cannot name a connector: write lower-case letters and digits, with '
            f"single hyphens inside, at most {LONGEST} in all, such as acme or acme-crm"
        )
    words = _words(name)
    kept = files(__name__) / "package"
    return {
        _filled(path, words): _filled(
            (kept / f"{part.replace('@kind@', like)}.in").read_text("utf-8"), words
        )
        if part
        else ""
        for path, part in PARTS.items()
    }


def write(name: str, folder: Path, *, like: str = KINDS[0]) -> Sequence[Path]:
    """Write a package for connector *name* into *folder*, which must be new or empty."""
    texts = package(name, like=like)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise Refusal(f"{folder} exists and is not empty")
        for path, text in texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refusal(f"{folder}: {error.strerror}") from error
    return [folder / path for path in texts]


def _words(name: str) -> Mapping[str, str]:
    """Return the forms of *name* for code, prose and paths, by placeholder."""
    word = name.replace("-", "_")
    return {
        "@name@": name,
        "@word@": word,
        "@module@": f"gofax_relay_{word}",
        "@TOKEN@": f"{word.upper()}_TOKEN",
        "@URL@": f"{word.upper()}_URL",
        "@Class@": "".join(part.capitalize() for part in name.split("-")),
    }


def _filled(text: str, words: Mapping[str, str]) -> str:
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text
