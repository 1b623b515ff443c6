"""The command that lists the calls to our endpoints, accepted or refused."""

from __future__ import annotations

import click

from relay.commands import output
from relay.commands.options import config_option, json_option, limit_option, queries_of
from relay.config.model import Config


@click.command()
@config_option
@json_option
@limit_option
def requests(config: Config, as_json: bool, limit: int | None) -> None:
    """List every call to an endpoint, accepted or refused, oldest first.

    \b
    Examples: gofax-relay requests --limit 20
              gofax-relay requests --json | grep '"status":401'
    """
    output.show_requests(queries_of(config), as_json=as_json, limit=limit)
