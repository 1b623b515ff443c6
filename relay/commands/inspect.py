"""The commands that show events, why they went where they did, and which nodes run."""

from __future__ import annotations

import click

from relay.clock import wall
from relay.commands import explain as explanation
from relay.commands import output
from relay.commands.explain import Circumstances
from relay.commands.options import (
    Text,
    existing,
    json_option,
    limit_option,
    queries_of,
    store_option,
)
from relay.commands.running import point_out_changes
from relay.commands.tables import failure, print_lines
from relay.config.model import Config
from relay.store import Queries
from relay.store.nodes import Nodes
from relay.store.search import Unknown


@click.command()
@store_option
@json_option
@limit_option
def events(config: Config, as_json: bool, limit: int | None) -> None:
    """List events with their deliveries, oldest first.

    \b
    Examples: gofax-relay events --limit 20
              gofax-relay events --json | tail -1
    """
    output.show_events(queries_of(config), as_json=as_json, limit=limit)


@click.command()
@click.argument("event", type=Text())
@store_option
@json_option
def explain(event: str, config: Config, as_json: bool) -> None:
    """Explain what happened to EVENT, and why.

    EVENT is the id or the messageId of an event, or the id of a delivery. The beginning of an id
    will do where no other begins so.

    \b
    Examples: gofax-relay explain abc123
              gofax-relay explain evt_0193a1b2c3d4… --json
    """
    database = existing(config)
    point_out_changes(config, database)
    queries = Queries(database)
    try:
        view = queries.event(event)
    except Unknown as error:
        raise failure(str(error)) from error
    if view is None:
        _explain_absence(event, config, queries, as_json=as_json)
        return
    around = Circumstances(
        now=wall(),
        destinations=config.destinations,
        pauses=queries.pauses(),
        pausers=queries.pausers(),
    )
    if as_json:
        output.print_json(explanation.as_json(view, around))
    else:
        print_lines(explanation.lines(view, around))


def _explain_absence(name: str, config: Config, queries: Queries, *, as_json: bool) -> None:
    purged = queries.purged(name, explanation.keys_of(name, config.endpoints))
    if purged is None:
        raise failure(explanation.unknown(name, queries.refused_with(name)))
    if as_json:
        output.print_json(explanation.purged_json(purged))
    else:
        print_lines(explanation.purged_lines(name, purged))


@click.command()
@store_option
@json_option
def nodes(config: Config, as_json: bool) -> None:
    """List the receivers and workers that use this store, and their leases.

    A killed node counts as silent after 20 s. Others take over its work when its leases run out,
    30 s after their last renewal. It is forgotten after a day.

    \b
    Examples: gofax-relay nodes
              gofax-relay nodes --json | grep '"state":"silent"'
    """
    output.show_nodes(Nodes(existing(config)).nodes(), as_json=as_json)
