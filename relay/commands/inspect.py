"""The commands that show a conversation, why an event went where it did, and which nodes run."""

from __future__ import annotations

from collections.abc import Iterable

import click

from relay.clock import wall
from relay.commands import conversations, output
from relay.commands import explain as explanation
from relay.commands.filters import NumberEnd, text_option
from relay.commands.options import (
    Text,
    existing,
    hide_text_option,
    json_option,
    limit_option,
    queries_of,
    store_option,
)
from relay.commands.running import point_out_changes
from relay.commands.tables import Column, failure, print_lines, print_table, table_time
from relay.commands.times import shown_time
from relay.config.model import Config
from relay.rules.wording import Wording
from relay.shapes.events import spoken_json
from relay.shapes.explanation import Circumstances, explanation_json, keys_of, purged_json
from relay.shapes.nodes import node_json
from relay.store import Queries
from relay.store.nodes import Nodes, NodeView
from relay.store.search import Filter, Unknown

_NODES = (
    Column(name="role"),
    Column(name="name"),
    Column(name="host", extra=1),
    Column(name="version", extra=3),
    Column(name="started", extra=2),
    Column(name="last beat"),
    Column(name="leases"),
    Column(name="state"),
)
#: How many customers are listed where the last digits mean several.
LISTED = 5


@click.command()
@click.argument("number", type=NumberEnd())
@store_option
@json_option
@text_option
@limit_option
@hide_text_option
def conversation(
    number: str,
    config: Config,
    as_json: bool,
    wording: Wording | None,
    limit: int | None,
    hide_text: bool,
) -> None:
    """Show everything with one customer: texts and deliveries over all destinations, in order.

    NUMBER may have any form; the last digits will do where no other customer's end so.

    \b
    Examples: gofax-relay conversation '0412 345 678'
              gofax-relay conversation 345678 --limit 10
    """
    wanted = Filter(ending=number, wording=wording)
    views = list(queries_of(config).events(wanted, limit=limit))
    customers = sorted({view.event.customer or "" for view in views})
    if not views:
        which = " and these words" if wording else ""
        raise failure(
            f"no events with this customer{which}; gofax-relay prune may have removed them"
        )
    if len(customers) > 1:
        which = ", ".join(customers[:LISTED]) + (", …" if len(customers) > LISTED else "")
        raise failure(f"several customers' numbers end so: {which}")
    if as_json:
        for view in views:
            output.print_json(spoken_json(view))
    else:
        print_lines(conversations.lines(customers[0], views, hide_text=hide_text))


@click.command()
@click.argument("event", type=Text())
@store_option
@json_option
@hide_text_option
def explain(event: str, config: Config, as_json: bool, hide_text: bool) -> None:
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
    around = Circumstances.of(config, queries, now=wall(), show_time=shown_time)
    if as_json:
        output.print_json(explanation_json(view, around, hide_text=hide_text))
    else:
        print_lines(explanation.lines(view, around, hide_text=hide_text))


def _explain_absence(name: str, config: Config, queries: Queries, *, as_json: bool) -> None:
    purged = queries.purged(name, keys_of(name, config.endpoints))
    if purged is None:
        raise failure(explanation.unknown(name, queries.refused_with(name)))
    if as_json:
        output.print_json(purged_json(purged))
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
    _show_nodes(Nodes(existing(config)).nodes(), as_json=as_json)


def _show_nodes(nodes: Iterable[NodeView], *, as_json: bool) -> None:
    """Print the nodes that use the store, or did so lately."""
    if as_json:
        for view in nodes:
            output.print_json(node_json(view))
        return
    rows = [
        {
            "role": view.node.role if view.node else "",
            "name": view.name,
            "host": view.node.host if view.node else "",
            "version": view.node.version if view.node else "",
            "started": table_time(view.node.started_at) if view.node else "",
            "last beat": table_time(view.beat_at),
            "leases": str(view.leases or ""),
            "state": view.state,
        }
        for view in nodes
    ]
    print_table(_NODES, rows, empty="no nodes: neither receiver nor worker runs")
