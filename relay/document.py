"""A YAML file as plain values that remember their lines, with references to secrets filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

#: Where a value stands: keys and positions from the top.
Where = tuple[str | int, ...]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True, order=True, slots=True)
class Fault:
    """One thing wrong with a file, and where."""

    line: int
    where: Where
    message: str

    def __str__(self) -> str:
        return f"{written(self.where)}: {self.message}" if self.where else self.message


class ConfigError(Exception):
    """The file cannot be used. Holds every fault that was found, not just the first."""

    def __init__(self, path: Path, faults: Sequence[Fault]) -> None:
        self.path = path
        self.faults = sorted(set(faults), key=lambda fault: (fault.line, str(fault)))
        super().__init__("\n".join(f"{path}:{fault.line}: {fault}" for fault in self.faults))


@dataclass(slots=True)
class Document:
    """What a YAML file says, the line of every value, and the faults met in reading it."""

    path: Path
    values: Any = None
    lines: dict[Where, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, where: Where, message: str) -> None:
        """Note that something at *where* is wrong."""
        known = where
        while known and known not in self.lines:
            known = known[:-1]
        self.faults.append(Fault(self.lines.get(known, 1), where, message))


def read(path: Path, *, environ: Mapping[str, str] | None = None) -> Document:
    """Read *path* with ``${NAME}``, ``${NAME:-default}`` and ``file:`` references filled in.

    Raises :class:`ConfigError` if there is no such file or it is not YAML.
    """
    document = Document(path)
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        hint = "; config.example.yaml shows one" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(path, [Fault(1, (), f"cannot be read: {reason}{hint}")]) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(path, [Fault(line, (), f"not YAML: {error.problem}")]) from error
    except yaml.YAMLError as error:
        raise ConfigError(path, [Fault(1, (), f"not YAML: {error}")]) from error
    if node is not None:
        document.values = _Reader(
            document, loader, os.environ if environ is None else environ
        ).value(node, ())
    return document


def written(where: Where) -> str:
    """Write a place as people do: ``routes[2].to``."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in where]
    return "".join(parts).removeprefix(".")


@dataclass(frozen=True, slots=True)
class _Reader:
    document: Document
    loader: yaml.SafeLoader
    environ: Mapping[str, str]

    def value(self, node: yaml.Node, where: Where) -> Any:
        self.document.lines.setdefault(where, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*where, i)) for i, each in enumerate(node.value)]
        value = self.loader.construct_object(node)
        return self._filled_in(value, where) if isinstance(value, str) else value

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        self.loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            place = (*where, key)
            if own.count(key) > 1 and key in found:
                self.document.faults.append(
                    Fault(key_node.start_mark.line + 1, place, "this key is given twice")
                )
            self.document.lines[place] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, place)
        return found

    def _filled_in(self, text: str, where: Where) -> str:
        if text.startswith("file:") and not text.startswith("file://"):
            return self._contents(text.removeprefix("file:"), where)
        return _VARIABLE.sub(lambda found: self._variable(found, where), text)

    def _variable(self, found: re.Match[str], where: Where) -> str:
        name, default = found[1], found[2]
        value = self.environ.get(name, default)
        if value is None:
            self.document.fault(where, f"environment variable {name} is not set")
            return "(not set)"
        return value

    def _contents(self, name: str, where: Where) -> str:
        path = self.document.path.parent / name.strip()
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            self.document.fault(where, f"file {path} cannot be read: {reason}")
            return "(not read)"
