"""The command that validates the config and describes what it does."""

from __future__ import annotations

import json
import sys

import click

from relay import destinations
from relay.clock import wall
from relay.commands import sample as samples
from relay.commands.asking import all_say
from relay.commands.options import (
    FAILED,
    USAGE,
    existing,
    loaded_option,
    require_certificate,
)
from relay.commands.output import print_json
from relay.commands.running import changes
from relay.commands.tables import print_lines
from relay.config import installed, json_schema
from relay.config.document import ConfigError, Document
from relay.config.model import Config
from relay.config.store_urls import without_password
from relay.config.warnings import warnings
from relay.shapes.privacy import markdown
from relay.shapes.privacy import privacy as privacy_of
from relay.shapes.sample import sample_json, shown
from relay.shapes.words import count
from relay.store import StoreUnavailable
from relay.store.connect import file_of
from relay.store.nodes import Nodes
from relay.store.sqlite_file import NotAStore, require_ours
from relay.telling import channels


def _print_schema(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    found = installed.connectors()
    for each in found:
        if each.fault:
            click.echo(f"{each.fault} (its options are left open)", err=True)
    described = json_schema.schema({each.name: each.connector for each in found})
    click.echo(json.dumps(described, indent=2, ensure_ascii=False))
    context.exit()


@click.command()
@loaded_option
@click.option("--live", is_flag=True, help="Ask each destination whether its credentials work.")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of the file, for editors.",
)
@click.option("--diff", is_flag=True, help="Show what a reload would change, and exit.")
@click.option(
    "--sample",
    metavar="FILE|ID",
    help="Show what would be sent for a body in FILE, or for a stored event or refused request; "
    "nothing is sent.",
)
@click.option("--endpoint", help="With --sample FILE: the endpoint that it came to.")
@click.option(
    "--privacy",
    is_flag=True,
    help="Print, as Markdown, what is kept of customers for how long, and what goes to whom.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="With --sample or --privacy: print one JSON object."
)
def check(
    loaded: tuple[Config, Document],
    live: bool,
    diff: bool,
    sample: str | None,
    endpoint: str | None,
    privacy: bool,
    as_json: bool,
) -> None:
    """Validate the config and print what each route would do.

    With --sample, print every card, mail, ticket, timeline entry and webhook body that an event
    would make, and end with 1 if a destination would refuse it.

    \b
    Examples: gofax-relay check
              gofax-relay check --live
              gofax-relay check --diff
              gofax-relay check --sample message.json
              gofax-relay check --sample evt_0193a1b2
              gofax-relay check --privacy > privacy.md
              gofax-relay check --schema > config.schema.json
    """
    config, document = loaded
    if sample is None and endpoint is not None:
        raise click.UsageError("--endpoint goes with --sample")
    if sample is None and not privacy and as_json:
        raise click.UsageError("--json goes with --sample or --privacy")
    if privacy:
        if live or diff or sample is not None:
            raise click.UsageError("--privacy goes with none of --live, --diff and --sample")
        found = privacy_of(config, destinations.disclosures(config))
        if as_json:
            print_json(found)
        else:
            print_lines(markdown(found).splitlines())
        return
    if sample is not None:
        if live or diff:
            raise click.UsageError("--sample goes with neither --live nor --diff")
        _show_sample(config, sample, endpoint=endpoint, as_json=as_json)
        return
    if diff:
        print_lines(changes(config, Nodes(existing(config)).nodes()))
        return
    try:
        _require_store(config, document)
        require_certificate(config, document)
    except ConfigError as error:
        click.echo(error, err=True)
        sys.exit(USAGE)
    if config.alerts:
        _require_channels(config, document)
    print_lines(plan(config).splitlines())
    print_lines(
        f"warning: {document.path}:{warning.line}: {warning}"
        for warning in warnings(config, document, now=wall())
    )
    if live and not all_say(destinations.build(config), lambda connector: connector.check()):
        sys.exit(FAILED)


def _require_store(config: Config, document: Document) -> None:
    """Make sure that no other file has the store's name. Raises :class:`ConfigError`."""
    file = file_of(config.store)
    if file is None:
        return
    try:
        require_ours(file)
    except NotAStore as error:
        fault = document.at(("store",), f"{config.store_name}: {error}")
        raise ConfigError(document.path, [fault]) from error
    except StoreUnavailable:
        pass  # A config may be checked by a user without access to the store.


def _show_sample(config: Config, name: str, *, endpoint: str | None, as_json: bool) -> None:
    read = samples.read(config, name, endpoint=endpoint)
    found = shown(config, read)
    if as_json:
        print_json(sample_json(config, read, found))
    else:
        print_lines(samples.lines(config, read, found))
    if any(each.refused is not None for each in found):
        sys.exit(FAILED)


def _require_channels(config: Config, document: Document) -> None:
    """End if Apprise cannot use a URL; it is asked here alone, since that takes a second."""
    found = [
        document.at(("alerts", number, "url"), said)
        for number, channel in enumerate(config.alerts)
        if (said := channels.fault(config, channel))
    ]
    if found:
        click.echo(ConfigError(document.path, found), err=True)
        raise click.exceptions.Exit(USAGE)


def plan(config: Config) -> str:
    """Return what the config does, endpoint by endpoint and route by route."""
    encrypted = f" with TLS, and shows {config.tls.cert}" if config.tls else ""
    lines = [f"store {config.store_name}", f"listens on {config.server.listen}{encrypted}"]
    if config.engine.celery:
        broker = config.engine.celery.broker.get_secret_value()
        lines.insert(1, f"engine celery, told by {without_password(broker)}")
    lines.append(f"keeps events for {config.kept}")
    for each in config.endpoints:
        lines.append(f"endpoint {each.path}: {each.guard}")
        lines += [f"  {said}" for said in each.fingerprints]
    for name, destination in config.destinations.items():
        pace = f", at most {destination.limit}" if destination.limit else ""
        if destination.connection:
            pace += f" on connection {destination.connection}"
        lines.append(f"destination {name}: {destination.connector}{pace}")
    if (open_ := config.business_hours) is not None:
        days = ", ".join(f"{names} {' and '.join(each)}" for names, each in open_.days.items())
        closed = f", {count(len(open_.holidays), 'holiday', 'holidays')}" * bool(open_.holidays)
        lines.append(f"business hours {days} ({open_.time_zone or config.time_zone}){closed}")
    lines += [f"alerts to {each.name}" for each in config.alerts]
    for route in config.routes:
        when = route.when.model_dump(by_alias=True, exclude_none=True)
        lines.append(
            f"route {route.name}: {json.dumps(when) if when else 'every event'}"
            f" → {', '.join(route.to)}{' (stop)' if route.stop else ''}"
        )
    if not config.routes:
        lines.append("no routes: events are stored, but not delivered")
    unused = set(config.destinations) - {name for route in config.routes for name in route.to}
    lines += [f"note: no route leads to {name}" for name in sorted(unused)]
    return "\n".join(lines)
