"""A YAML file as plain values with their lines, and with references to secrets filled in."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

#: The place of a value: keys and positions from the top.
Where = tuple[str | int, ...]

_REFERENCE = re.compile(r"\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
# As integers, phone numbers and account ids would lose their plus or leading zeros.
_NO_QUANTITY = re.compile(r"\+[0-9]+|0[0-9]+")
# YAML may take an unquoted password for a name.
_NAMES = re.compile(r"(alias|anchor|tag|tag handle) ['\"].*", re.DOTALL)


#: The variable that names the file, and the file's default name.
VARIABLE, FILE = "GOFAX_RELAY_CONFIG", "config.yaml"


#: The variable in which systemd names the folder of a service's credentials.
CREDENTIALS = "CREDENTIALS_DIRECTORY"
#: What most often lacks where a credential does.
_UNIT = "a unit of systemd needs LoadCredential={}, and then a restart, not a reload"


def config_path() -> Path:
    """Return the path of the config from the environment."""
    return Path(os.environ.get(VARIABLE) or FILE)


HALF = "half of a surrogate pair: write the character itself, or both halves"


@dataclass(frozen=True, order=True, slots=True)
class Fault:
    """One thing wrong with a file, and where."""

    line: int
    where: Where
    message: str

    def __str__(self) -> str:
        return f"{written(self.where)}: {self.message}" if self.where else self.message


class ConfigError(Exception):
    """The file cannot be used. Holds every fault, not only the first."""

    def __init__(self, path: Path, faults: Sequence[Fault]) -> None:
        self.path = path
        self.faults = sorted(set(faults), key=lambda fault: (fault.line, str(fault)))
        super().__init__("\n".join(f"{path}:{fault.line}: {fault}" for fault in self.faults))


@dataclass(slots=True)
class Document:
    """The values of a YAML file, the line of each, and the faults found in reading it."""

    path: Path
    values: Any = None
    lines: dict[Where, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    #: Values that came from a variable (None) or a file, and not from the document itself.
    references: dict[Where, Path | None] = field(default_factory=dict)
    #: Whether the value of a place may be missing.
    may_lack: Callable[[Where], bool] = lambda where: False
    #: The places whose values are missing and were left out.
    left_out: set[Where] = field(default_factory=set)
    _unfilled: set[Where] = field(default_factory=set)

    def fault(self, where: Where, message: str) -> None:
        """Record a fault at *where*."""
        if where not in self._unfilled:
            self._note(where, message)

    def unfilled(self, where: Where, message: str) -> None:
        """Record that *where* has no value, so that nothing else about it is reported."""
        self._note(where, message)
        self._unfilled.add(where)

    def missing(self, where: Where, message: str) -> None:
        """Record that the value to which *where* refers is missing; leave it out if it may be."""
        if self.may_lack(where):
            self.left_out.add(where)
        else:
            self.unfilled(where, message)

    def is_filled(self, where: Where) -> bool:
        return where not in self._unfilled and where not in self.left_out

    def lacks(self, where: Where) -> bool:
        """Return whether *where* or anything in it was left out."""
        return any(each[: len(where)] == where for each in self.left_out)

    def at(self, where: Where, message: str) -> Fault:
        """Return a remark about *where* with its line."""
        known = where
        while known and known not in self.lines:
            known = known[:-1]
        return Fault(self.lines.get(known, 1), where, message)

    def _note(self, where: Where, message: str) -> None:
        self.faults.append(self.at(where, message))


def read(
    path: Path,
    *,
    environ: Mapping[str, str] | None = None,
    may_lack: Callable[[Where], bool] = lambda where: False,
) -> Document:
    """Read *path* with references filled in: ``${NAME}``, ``file:`` and ``credential:``.

    A place that *may_lack* its value gets a random one if what it refers to is missing. Raises
    :class:`ConfigError` if the file is missing or is not YAML.
    """
    document = Document(path, may_lack=may_lack)
    text = _text(path)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            reader = _Reader(document, loader, os.environ if environ is None else environ)
            document.values = reader.value(node, ())
    except yaml.YAMLError as error:
        raise ConfigError(path, [_not_yaml(error, text)]) from error
    except RecursionError as error:
        raise ConfigError(path, [Fault(1, (), "not YAML: nested too deeply")]) from error
    return document


def secret_from(reference: str) -> str:
    """Return what the variable *reference* holds, or that of ``file:PATH``, ``credential:NAME``.

    Raises ValueError if there is no such variable, file or credential.
    """
    if reference.startswith("file:"):
        return _read("file", Path(reference.removeprefix("file:")))
    if reference.startswith("credential:"):
        name = reference.removeprefix("credential:")
        return _read("credential", _credential(name, os.environ))
    value = os.environ.get(reference)
    if not value:
        state = "not set" if value is None else "set but empty"
        raise ValueError(f"environment variable {reference} is {state}")
    return value


def written(where: Where) -> str:
    """Write a place as people would: ``routes[2].to``."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in where]
    return "".join(parts).removeprefix(".")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = "; config.example.yaml shows one" if isinstance(error, FileNotFoundError) else ""
        fault = Fault(1, (), f"cannot be read: {_reason(error)}{hint}")
        raise ConfigError(path, [fault]) from error


def _credential(name: str, environ: Mapping[str, str]) -> Path:
    """Return the file of a credential. Raises ValueError if there can be none."""
    if name in ("", ".", "..") or "/" in name:
        raise ValueError("write credential:NAME, with the name that the unit gives it")
    folder = environ.get(CREDENTIALS)
    if not folder:
        raise ValueError(
            f"credential {name} is not here: systemd sets {CREDENTIALS} for a unit with "
            f"LoadCredential={name}:PATH"
        )
    return Path(folder) / name


def _read(what: str, path: Path) -> str:
    """Return what a file says. Raises ValueError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except FileNotFoundError as error:
        hint = f"; {_UNIT.format(path.name)}" if what == "credential" else ""
        raise ValueError(f"{what} {path} cannot be read: {_reason(error)}{hint}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{what} {path} cannot be read: {_reason(error)}") from error


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= each <= "\udfff" for each in text)


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or "not UTF-8 text"


def _not_yaml(error: yaml.YAMLError, text: str) -> Fault:
    """Return the line and the reason without quoting the file, which may hold secrets."""
    if isinstance(error, yaml.MarkedYAMLError):
        line = error.problem_mark.line if error.problem_mark else 0
        hint = r"\1; put a value that begins with * & ! or % in quotes"
        return Fault(line + 1, (), "not YAML: " + _NAMES.sub(hint, error.problem or ""))
    line = text.count("\n", 0, getattr(error, "position", 0))
    return Fault(line + 1, (), f"not YAML: {getattr(error, 'reason', 'unreadable')}")


@dataclass(frozen=True, slots=True)
class _Reader:
    document: Document
    loader: yaml.SafeLoader
    environ: Mapping[str, str]
    #: A mapping's own keys, before PyYAML adds the merged ones to its node.
    own_keys: dict[int, list[str]] = field(default_factory=dict)

    def value(self, node: yaml.Node, where: Where) -> Any:
        self.document.lines.setdefault(where, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*where, i)) for i, each in enumerate(node.value)]
        value = self._scalar(node, where)
        if not isinstance(value, str):
            return value
        joined = self._joined(value, where)
        return None if joined is None else self._filled_in(joined, where)

    def _joined(self, text: str, where: Where) -> str | None:
        """Join pairs of surrogates, in which JSON writes characters such as emoji."""
        if _is_unicode(text):
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self.document.unfilled(where, HALF)
            return None

    def _scalar(self, node: yaml.Node, where: Where) -> Any:
        if node.tag == "tag:yaml.org,2002:int" and _NO_QUANTITY.fullmatch(node.value):
            return node.value
        try:
            return self.loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):
            # PyYAML leaves some values to Python's types, such as the 45th day of a month.
            self.document.unfilled(where, "this value cannot be read; put it in quotes")
            return None

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        own = self.own_keys.setdefault(
            id(node), [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        )
        self.loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, where)
            place = (*where, key)
            if own.count(key) > 1 and key in found:
                self.document.faults.append(
                    Fault(key_node.start_mark.line + 1, place, "this key is given twice")
                )
            self.document.lines[place] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, place)
        return found

    def _key(self, node: yaml.Node, where: Where) -> str:
        key = str(node.value)
        shown = key.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self.document.lines.setdefault((*where, shown), node.start_mark.line + 1)
        return self._joined(key, (*where, shown)) or shown

    def _filled_in(self, text: str, where: Where) -> str:
        kind, _, name = text.partition(":")
        if kind in ("file", "credential") and not name.startswith("//"):
            filled = self._contents(kind, self._substituted(name, where), where)
        else:
            filled = self._substituted(text, where)
        # Nobody can guess it: nothing is ever let in by a secret that is missing.
        return secrets.token_urlsafe(32) if where in self.document.left_out else filled

    def _substituted(self, text: str, where: Where) -> str:
        filled = _REFERENCE.sub(lambda found: self._variable(found, where), text)
        found = _REFERENCE.search(text)
        if found and not filled and found[2] is None and self.document.is_filled(where):
            self.document.missing(where, f"environment variable {found[1]} is set but empty")
        return filled

    def _variable(self, found: re.Match[str], where: Where) -> str:
        name, default = found[1], found[2]
        if name is None:
            self.document.unfilled(
                where, "write ${NAME} or ${NAME:-default} for an environment variable"
            )
            return ""
        value = self.environ.get(name)
        self.document.references[where] = None
        if value is not None and not _is_unicode(value):
            self.document.unfilled(where, f"environment variable {name} is not UTF-8 text")
            return ""
        if value is None and default is None:
            self.document.missing(where, f"environment variable {name} is not set")
            return ""
        # As in a shell, the default also replaces an empty variable.
        return value or default or ""

    def _contents(self, kind: str, name: str, where: Where) -> str:
        if not self.document.is_filled(where):
            return ""
        try:
            path = self._file(kind, name.strip())
            self.document.references[where] = path
            return _read(kind, path)
        except ValueError as error:
            self.document.missing(where, str(error))
            return ""

    def _file(self, kind: str, name: str) -> Path:
        if kind == "credential":
            return _credential(name, self.environ)
        return self.document.path.parent / name
