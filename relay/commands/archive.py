"""The command for destinations that keep rows by day."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import click

from connectors.base import DeliveryError, Rolls
from relay import destinations
from relay.commands.groups import Group
from relay.commands.options import FAILED, config_option
from relay.commands.tables import print_lines
from relay.config.model import Config


@click.group(cls=Group)
def archive() -> None:
    """Maintain destinations that keep rows by day."""


@archive.command()
@config_option
@click.option("--destination", help="The destination to roll; default: all that can be rolled.")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Days, including today, that stay as they are.",
)
def roll(config: Config, destination: str | None, keep: int) -> None:
    """Turn each day's lines into one Parquet file, and remove the lines.

    \b
    Examples: gofax-relay archive roll
              gofax-relay archive roll --destination archive --keep 30
    """
    built = destinations.build(config)
    found = {
        name: each.connector
        for name, each in built.items()
        if isinstance(each.connector, Rolls) and destination in (None, name)
    }
    if not found:
        named = f'"{destination}"' if destination else "of connector archive"
        raise click.ClickException(f"the config has no destination {named} that can be rolled")
    good = _rolled(found, before=datetime.now(UTC).date() - timedelta(days=keep - 1))
    for each in built.values():
        each.connector.close()
    if not good:
        sys.exit(FAILED)


def _rolled(archives: Mapping[str, Rolls], *, before: date) -> bool:
    """Roll the closed days of each archive, and return whether all went well."""
    good = True
    for name, archive in archives.items():
        count = 0
        try:
            for count, said in enumerate(archive.roll(before=before), 1):  # noqa: B007
                print_lines([f"✓ {name}: {said}"])
        except DeliveryError as error:
            good = False
            print_lines([f"✗ {name}: {type(error).__name__.lower()}: {error}"])
            continue
        if not count:
            print_lines([f"✓ {name}: nothing to roll before {before}"])
    return good
