"""The command that runs the stand-ins."""

from __future__ import annotations

import click

from connectors import sandbox as stand_ins
from relay import logs
from relay.processes import run_until_stopped


@click.command()
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
    run_until_stopped(server.serve_forever, server.shutdown)
    server.server_close()
