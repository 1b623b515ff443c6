"""Connectors by entry point, destinations by config; ours come in by the same door as others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel

from connectors.base import Connector, Disclosure, Event
from connectors.http import Http
from relay.config.model import Config, DestinationConfig
from relay.rules.pages import event_page
from relay.store.values import Connection
from relay.telling.metrics import DestinationMetrics, Metrics

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """A destination with its connector, ready to deliver."""

    name: str
    settings: DestinationConfig
    connector: Connector[Any]
    #: The destinations that share our rate; None: nobody else does.
    connection: Connection | None = None
    #: Where its attempts are counted.
    metrics: DestinationMetrics
    #: The console's address as people reach it; None: nothing may link to it.
    console: str | None = None

    def linked(self, event: Event) -> Event:
        """Return *event* as the connector gets it: with its page, if people can reach that."""
        if self.console is None:
            return event
        return replace(event, url=f"{self.console}{event_page(event.id)}")


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


def installed(*, only: str | None = None) -> Sequence[Installed]:
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


def disclosures(config: Config) -> Mapping[str, Disclosure | None]:
    """Return what the connector of each destination says that it gives away."""
    return {
        name: find(each.connector).discloses(each.options)
        for name, each in config.destinations.items()
    }


def build(config: Config, metrics: Metrics | None = None) -> Mapping[str, Destination]:
    """Make the connector of every destination."""
    metrics = metrics or Metrics()
    return {
        name: Destination(
            name=name,
            settings=settings,
            connector=find(settings.connector)(
                settings.options,
                http=Http(
                    allow=config.outbound.allow,
                    default_deadline=settings.deadline.total_seconds(),
                ),
            ),
            connection=_connection(config, settings.connection),
            metrics=metrics.of_destination(name),
            console=config.admin.url if config.admin else None,
        )
        for name, settings in config.destinations.items()
    }


def looking(config: Config) -> frozenset[str]:
    """Return the destinations that, when in doubt, look before they write, and ask nobody."""
    return frozenset(
        name
        for name, each in config.destinations.items()
        if each.on_ambiguous == "retry" and find(each.connector).looks_first
    )


def _connection(config: Config, name: str | None) -> Connection | None:
    if name is None:
        return None
    sharing = (own for own, each in config.destinations.items() if each.connection == name)
    return Connection(name=f"connection {name}", destinations=tuple(sorted(sharing)))


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
