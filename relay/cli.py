"""The command ``gofax-relay``: parse, build, call one function, set the exit code."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import click

from connectors import sandbox as stand_ins
from connectors.base import Rolls
from relay import destinations, logs, processes
from relay.clock import wall
from relay.commands import connectors, maintain, migrate_store, output, recover
from relay.commands import explain as explanation
from relay.commands.demo import Demo
from relay.commands.explain import Circumstances
from relay.commands.options import (
    FAILED,
    Words,
    config_option,
    json_option,
    limit_option,
    opened,
    queries_of,
)
from relay.config import json_schema
from relay.config.model import Config
from relay.processes import PortTaken
from relay.store import Queries, StoreUnavailable


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="gofax-relay")
def cli() -> None:
    """Receive GoFax SMS events and bring them to HubSpot, Zendesk and Microsoft Teams.

    \b
    Try it:            gofax-relay demo
    Check a config:    gofax-relay check --config config.yaml
    Run it:            gofax-relay serve --config config.yaml
    What came in:      gofax-relay events
    Why (not):         gofax-relay explain MESSAGE_ID
    What stopped:      gofax-relay dead --group
    """


cli.add_command(connectors.connectors)


@cli.command()
@config_option
def serve(config: Config) -> None:
    """Run receiver and worker as processes of one command.

    \b
    Example: gofax-relay serve --config /etc/gofax-relay/config.yaml
    SIGTERM gives running attempts 8 s and leaves the rest to their leases.
    """
    sys.exit(processes.serve(_listening(config)))


@cli.command()
@config_option
def web(config: Config) -> None:
    """Run the receiver without a worker.

    \b
    Example: gofax-relay web --config config.yaml
    """
    processes.run_web(_listening(config))


@cli.command()
@config_option
def work(config: Config) -> None:
    """Run a worker without the receiver.

    \b
    Example: gofax-relay work --config config.yaml
    """
    _prepare(config)
    processes.run_worker(config)


def _print_schema(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    found = destinations.installed()
    for each in found:
        if each.fault:
            click.echo(f"{each.fault} (its options are left open)", err=True)
    described = json_schema.schema({each.name: each.connector for each in found})
    click.echo(json.dumps(described, indent=2, ensure_ascii=False))
    context.exit()


@cli.command()
@config_option
@click.option("--live", is_flag=True, help="Ask each destination whether its credentials work.")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of the file, for editors, and stop.",
)
def check(config: Config, live: bool) -> None:
    """Validate the config and print what each route would do.

    \b
    Examples: gofax-relay check
              gofax-relay check --live
              gofax-relay check --schema > config.schema.json
    """
    click.echo(output.plan(config))
    if live and not output.check_live(destinations.build(config)):
        sys.exit(FAILED)


@cli.command()
@config_option
@json_option
@limit_option
def events(config: Config, as_json: bool, limit: int | None) -> None:
    """List events with their deliveries, oldest first.

    \b
    Examples: gofax-relay events --limit 20
              gofax-relay events --json | tail -1
    """
    output.show_events(queries_of(config), as_json=as_json, limit=limit)


@cli.command()
@config_option
@json_option
@limit_option
def requests(config: Config, as_json: bool, limit: int | None) -> None:
    """List every call to an endpoint, good or refused, oldest first.

    \b
    Examples: gofax-relay requests --limit 20
              gofax-relay requests --json | grep '"status": 401'
    """
    output.show_requests(queries_of(config), as_json=as_json, limit=limit)


@cli.command()
@click.argument("event", type=Words())
@config_option
@json_option
def explain(event: str, config: Config, as_json: bool) -> None:
    """Say what became of EVENT, and why: its id, its messageId, or the id of a delivery.

    \b
    Examples: gofax-relay explain abc123
              gofax-relay explain evt_0193a1b2c3d4… --json
    """
    queries = queries_of(config)
    view = queries.event(event)
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
        output.print_lines(explanation.lines(view, around))


def _explain_absence(name: str, config: Config, queries: Queries, *, as_json: bool) -> None:
    purged = queries.purged(name, explanation.keys_of(name, config.endpoints))
    if purged is None:
        raise click.ClickException(explanation.unknown(name, queries.refused_with(name)))
    if as_json:
        output.print_json(explanation.purged_json(purged))
    else:
        output.print_lines(explanation.purged_lines(name, purged))


@cli.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8090,
    show_default=True,
    help="Port; 0: any free one.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def sandbox(port: int, host: str) -> None:
    """Run local stand-ins of HubSpot, Zendesk and Teams.

    GET /records lists what they were given; GET / shows it as a page.

    \b
    Example: gofax-relay sandbox --port 8090
    """
    logs.configure()
    try:
        server = stand_ins.serve(host=host, port=port)
    except OSError as error:
        raise click.ClickException(f"{host}:{port}: {error.strerror}") from error
    click.echo(f"sandbox on http://{host}:{server.port}/")
    processes.run_until_stopped(server.serve_forever, server.shutdown)
    server.server_close()


@connectors.connectors.command()
@click.argument("name")
@config_option
def setup(name: str, config: Config) -> None:
    """Make in each system what connector NAME relies on there; NAME may be a destination too.

    \b
    Example: gofax-relay connectors setup hubspot
    """
    meant = {
        key: each for key, each in config.destinations.items() if name in (key, each.connector)
    }
    if not meant:
        raise click.ClickException(
            f"the config has no destination {name}, and none of connector {name}"
        )
    if not output.set_up(destinations.build(config.model_copy(update={"destinations": meant}))):
        sys.exit(FAILED)


@cli.group()
def archive() -> None:
    """Look after destinations that keep rows by day."""


@archive.command()
@config_option
@click.option("--destination", help="The one to roll; default: all that can be rolled.")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Days, today included, that stay as they are.",
)
def roll(config: Config, destination: str | None, keep: int) -> None:
    """Make one Parquet file of each day's lines, and remove the lines.

    \b
    Examples: gofax-relay archive roll
              gofax-relay archive roll --destination archive --keep 30
    """
    outlets = destinations.build(config)
    found = {
        name: outlet.connector
        for name, outlet in outlets.items()
        if isinstance(outlet.connector, Rolls) and destination in (None, name)
    }
    if not found:
        named = f'"{destination}"' if destination else "of connector archive"
        raise click.ClickException(f"the config has no destination {named} that can be rolled")
    good = output.roll(found, before=datetime.now(UTC).date() - timedelta(days=keep - 1))
    for outlet in outlets.values():
        outlet.connector.close()
    if not good:
        sys.exit(FAILED)


@cli.command()
@click.option("--once", is_flag=True, help="Exit when all is delivered.")
def demo(once: bool) -> None:
    """Run sandbox, relay and sample events in a temporary folder, on free ports.

    \b
    Examples: gofax-relay demo
              gofax-relay demo --once
    """
    sys.exit(Demo(say=click.echo).run(once=once))


for command in (
    maintain.nodes,
    maintain.migrate,
    migrate_store.migrate_store,
    recover.dead,
    recover.resend,
    recover.replay,
    recover.settle,
    recover.pause,
    recover.resume,
    maintain.prune,
    maintain.erase,
    maintain.doctor,
):
    cli.add_command(command)


def _listening(config: Config) -> Config:
    """Find out now whether the port can be had, not when the processes run."""
    try:
        settled = processes.settle_port(config)
    except PortTaken as error:
        raise click.ClickException(str(error)) from error
    _prepare(settled)
    return settled


def _prepare(config: Config) -> None:
    logs.configure()
    opened(config).close()


def main() -> None:
    """Run the command line; what nobody expected is one line, not a stack trace."""
    try:
        cli()
    except StoreUnavailable as error:
        click.echo(f"error: the store cannot be used: {error}", err=True)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
