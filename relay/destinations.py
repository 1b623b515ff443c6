"""The destinations of a config, each with its connector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from connectors.base import Connector, Disclosure, Event
from connectors.http import Http
from relay.config import installed
from relay.config.model import Config, DestinationConfig
from relay.rules.pages import event_page
from relay.store.values import Connection
from relay.telling.metrics import DestinationMetrics, Metrics


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


def disclosures(config: Config) -> Mapping[str, Disclosure | None]:
    """Return what the connector of each destination says that it gives away."""
    return {
        name: installed.find(each.connector).discloses(each.options)
        for name, each in config.destinations.items()
    }


def build(config: Config, metrics: Metrics | None = None) -> Mapping[str, Destination]:
    """Make the connector of every destination."""
    metrics = metrics or Metrics()
    return {
        name: Destination(
            name=name,
            settings=settings,
            connector=installed.find(settings.connector)(
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
        if each.on_ambiguous == "retry" and installed.find(each.connector).looks_first
    )


def _connection(config: Config, name: str | None) -> Connection | None:
    if name is None:
        return None
    sharing = (own for own, each in config.destinations.items() if each.connection == name)
    return Connection(name=f"connection {name}", destinations=tuple(sorted(sharing)))
