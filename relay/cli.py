"""The command ``gofax-relay``: its commands, and how they fail."""

from __future__ import annotations

import sys

import click

from relay.commands.archive import archive
from relay.commands.check import check
from relay.commands.connectors import connectors
from relay.commands.demo import demo
from relay.commands.doctor import doctor
from relay.commands.inspect import events, explain, nodes
from relay.commands.maintain import erase, migrate, prune
from relay.commands.migrate_store import migrate_store
from relay.commands.options import FAILED
from relay.commands.recover import dead, pause, replay, resend, resume, settle
from relay.commands.requests import requests
from relay.commands.serve import sandbox, serve, web, work
from relay.store import StoreUnavailable


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="gofax-relay")
def cli() -> None:
    """Receive GoFax SMS events and deliver them to HubSpot, Zendesk and Microsoft Teams.

    \b
    Try it:            gofax-relay demo
    Check a config:    gofax-relay check --config config.yaml
    Run it:            gofax-relay serve --config config.yaml
    What came in:      gofax-relay events
    Why (not):         gofax-relay explain MESSAGE_ID
    What stopped:      gofax-relay dead --group
    """


for _command in (
    demo, serve, web, work, sandbox, check, connectors,
    events, requests, explain, nodes, doctor,
    dead, resend, replay, settle, pause, resume,
    prune, erase, archive, migrate, migrate_store,
):  # fmt: skip
    cli.add_command(_command)


def main() -> None:
    """Run the command line; a store that is away is one line, not a stack trace."""
    try:
        cli()
    except StoreUnavailable as error:
        click.echo(f"error: the store cannot be used: {error}", err=True)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
