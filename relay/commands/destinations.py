"""The command that shows how each destination stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from relay.commands.options import existing, json_option, store_option
from relay.commands.output import print_json
from relay.commands.tables import Column, print_table, table_time
from relay.config.model import Config
from relay.shapes.destinations import destination_json, why
from relay.store.overview import DestinationView, Overview

_COLUMNS = (
    Column(name="destination"),
    Column(name="state"),
    Column(name="since", extra=3),
    Column(name="backlog"),
    Column(name="oldest"),
    Column(name="a minute", extra=4),
    Column(name="last success", extra=1),
    Column(name="last error", extra=2),
    Column(name="why", least=20),
)


@click.command()
@store_option
@json_option
def destinations(config: Config, as_json: bool) -> None:
    """Show each destination: whether it is served, what waits for it, and what happened last.

    \b
    Examples: gofax-relay destinations
              gofax-relay destinations --json | grep '"state":"paused"'
    """
    database = existing(config)
    views = Overview(database).destinations(config.destinations, now=database.clock())
    if as_json:
        for view in views:
            print_json(destination_json(view))
    else:
        print_table(_COLUMNS, _rows(views), empty="the config names no destinations")


def _rows(views: Sequence[DestinationView]) -> Sequence[Mapping[str, str]]:
    return [
        {
            "destination": view.name,
            "state": view.state if view.pause is None else f"{view.state} ({view.pause.cause})",
            "since": table_time(view.pause.since if view.pause else None),
            "backlog": f"{view.backlog:,}",
            "oldest": table_time(view.oldest),
            "a minute": f"{view.rate:.1f}",
            "last success": table_time(view.last_success),
            "last error": table_time(view.last_error),
            "why": why(view),
        }
        for view in views
    ]
