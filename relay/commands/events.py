"""The command that lists events with their deliveries."""

from __future__ import annotations

import click

from relay.commands import listings, mark_test
from relay.commands.filters import Format, listing
from relay.commands.options import Text, queries_of, store_option
from relay.commands.tables import print_lines
from relay.config.model import Config
from relay.store.search import Filter


@click.command()
@store_option
@click.option(
    "--mark-test",
    "test",
    type=Text(),
    metavar="ID",
    help="Say what to write under tests: to recognise events like this one; change nothing.",
)
@listing("accepted", "conflict", "stale", "probe")
def events(
    config: Config,
    test: str | None,
    which: Filter,
    format: Format,
    limit: int | None,
    follow: bool,
) -> None:
    """List events with their deliveries, oldest first.

    \b
    Examples: gofax-relay events --limit 20
              gofax-relay events --customer 345678 --since 2d
              gofax-relay events --text 'invoice overd' --limit 20
              gofax-relay events --state dead --csv > dead.csv
              gofax-relay events --follow --destination crm
              gofax-relay events --mark-test evt_0193a1
    """
    if "probe" in which.standings:
        click.echo(
            "note: a probe brings no event: gofax-relay requests --standing probe", err=True
        )
    queries = queries_of(config)
    if test is not None:
        if which != Filter() or follow or format != "table":
            raise click.UsageError("--mark-test takes no other option than --limit")
        print_lines(mark_test.lines(config, queries, test, among=limit or mark_test.AMONG))
        return
    if follow:
        listings.follow_events(queries, which, format=format, limit=limit)
    else:
        listings.show_events(queries, which, format=format, limit=limit)
