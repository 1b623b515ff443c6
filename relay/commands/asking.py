"""Asks the connectors of destinations, and prints their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from connectors.base import Connector
from relay.acts import trying
from relay.commands.tables import print_lines
from relay.destinations import Destination


def all_say(destinations: Mapping[str, Destination], ask: Callable[[Connector[Any]], str]) -> bool:
    """Ask the connector of each destination, and return whether all went well."""
    good = True
    for name, destination in destinations.items():
        try:
            answer = trying.ask(name, destination.connector, ask)
        finally:
            destination.connector.close()
        print_lines([f"{'✓' if answer.is_good else '✗'} {name}: {answer.said}"])
        good = good and answer.is_good
    return good
