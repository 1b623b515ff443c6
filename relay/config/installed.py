"""The connectors that are installed, by entry point; ours come in by the same door as others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel

from connectors.base import Connector

GROUP = "gofax_relay.connectors"
#: Conformance suites of connectors, under the connectors' names.
SUITES = "gofax_relay.suites"


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """A connector that a package brings, usable or not."""

    name: str
    distribution: str
    version: str
    #: ``module:Class``.
    origin: str
    #: Its conformance suite: ``module:Class``, or a module whose classes are all suites; None if
    #: the package brings none.
    suite: str | None
    #: None if it cannot be loaded.
    connector: type[Connector[Any]] | None
    #: Why it cannot be used, and how to fix that.
    fault: str | None


def find(name: str) -> type[Connector[Any]]:
    """Return the connector class *name*. Raises LookupError, which says how to fix it."""
    entries = _entries().get(name, [])
    if not entries:
        have = ", ".join(sorted(_entries())) or "none"
        raise LookupError(f'no connector named "{name}" (installed: {have})')
    owners = sorted({_owner(entry) for entry in entries})
    if len(owners) > 1:
        raise LookupError(
            f'two packages have a connector named "{name}": {" and ".join(owners)}; remove one'
        )
    return _loaded(entries[0])


def connectors(*, only: str | None = None) -> Sequence[Installed]:
    """Load every connector, or *only* one; return them by name, with the fault of each."""
    names = sorted(_entries()) if only is None else [only]
    return [_installed(entry) for name in names for entry in _entries().get(name, [])]


def _installed(entry: EntryPoint) -> Installed:
    connector, fault = None, None
    try:
        connector = find(entry.name)
    except LookupError as error:
        fault = str(error)
    suites = [each for each in entry_points(group=SUITES, name=entry.name) if _same(each, entry)]
    return Installed(
        name=entry.name,
        distribution=_owner(entry),
        version=entry.dist.version if entry.dist else "?",
        origin=entry.value,
        suite=suites[0].value if suites else None,
        connector=connector,
        fault=fault,
    )


def _same(suite: EntryPoint, connector: EntryPoint) -> bool:
    return _owner(suite) == _owner(connector)


def package_of(name: str) -> str | None:
    """Return the top-level package or module of the connector *name*; None if there is none."""
    # Looked up again each time: it may have been installed since we started.
    modules = (entry.module for entry in entry_points(group=GROUP, name=name))
    return next((module.partition(".")[0] for module in modules), None)


@cache
def _entries() -> Mapping[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def _loaded(entry: EntryPoint) -> type[Connector[Any]]:
    try:
        loaded = entry.load()
    except ImportError as error:
        extra = f"{_owner(entry)}[{entry.name}]"
        raise LookupError(
            f'connector "{entry.name}" needs {error.name or error}: pip install "{extra}"'
        ) from error
    except AttributeError as error:
        raise LookupError(f'connector "{entry.name}": there is no {entry.value}') from error
    except Exception as error:  # whatever somebody else's module does when it is imported
        said = f"{type(error).__name__}: {error}"
        raise LookupError(
            f'connector "{entry.name}": {entry.value} cannot be imported: {said}'
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Connector)):
        raise LookupError(f'connector "{entry.name}": {entry.value} is not a Connector class')
    options = getattr(loaded, "Options", None)
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        raise LookupError(f'connector "{entry.name}": {entry.value} has no Options model')
    return loaded


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unknown package"
