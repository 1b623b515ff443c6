"""What the commands have in common: their options, and how they get at the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from relay import migrations, registry
from relay.config import Config, load
from relay.document import ConfigError
from relay.migrations import SchemaTooNew
from relay.store import Database, Ledger, StoreUnavailable

FAILED, USAGE = 1, 2


class ConfigFile(click.ParamType[Config]):
    """A path to a config file that is read and checked as soon as it is given."""

    name = "file"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> Config:
        if isinstance(value, Config):
            return value
        try:
            return load(Path(value), find_connector=registry.find)
        except ConfigError as error:
            click.echo(error, err=True)
            raise click.exceptions.Exit(USAGE) from error


config_option = click.option(
    "--config",
    type=ConfigFile(),
    default="config.yaml",
    envvar="GOFAX_RELAY_CONFIG",
    show_default=True,
    show_envvar=True,
    help="The YAML file with endpoints, destinations and routes.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Only the newest so many.")


def opened(config: Config) -> Database:
    """Open the store, its tables brought up to date."""
    try:
        database = Database(config.store, reserve=config.disk_reserve)
        migrations.upgrade(database)
    except (SchemaTooNew, StoreUnavailable) as error:
        raise click.ClickException(f"{config.store}: {error}") from error
    return database


def ledger_of(config: Config) -> Ledger:
    """Return what shows the store of *config*."""
    return Ledger(opened(config))
