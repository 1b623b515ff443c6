"""The commands that run the relay, together or in parts, and the stand-ins."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from connectors import sandbox as stand_ins
from relay import logs, processes
from relay.commands.options import config_option, loaded_option, opened
from relay.config.document import Document
from relay.config.model import Config
from relay.processes import PortTaken


@click.command()
@loaded_option
@click.option(
    "--watch", is_flag=True, help="Start again when config, secrets or connectors change."
)
def serve(loaded: tuple[Config, Document], watch: bool) -> None:
    """Run the receiver and the worker as processes of one command.

    \b
    Examples: gofax-relay serve --config /etc/gofax-relay/config.yaml
              gofax-relay serve --watch
    On SIGTERM, running attempts get 8 s; the leases of the rest run out.

    --watch is for those who write a config or a connector. It follows the config, the files that
    it names for secrets, and the Python files of its connectors outside site-packages.
    """
    config, document = loaded
    if watch:
        sys.exit(_watcher().run(document.path))
    sys.exit(processes.serve(_listening(config)))


@click.command()
@config_option
def web(config: Config) -> None:
    """Run the receiver without a worker.

    \b
    Example: gofax-relay web --config config.yaml
    """
    processes.run_web(_listening(config))


@click.command()
@config_option
def work(config: Config) -> None:
    """Run a worker without the receiver.

    \b
    Example: gofax-relay work --config config.yaml
    """
    _prepare(config)
    processes.run_worker(config)


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
    processes.run_until_stopped(server.serve_forever, server.shutdown)
    server.server_close()


def _listening(config: Config) -> Config:
    """Find out now whether the port is free, not when the processes run."""
    try:
        settled = processes.settle_port(config)
    except PortTaken as error:
        raise click.ClickException(str(error)) from error
    _prepare(settled)
    return settled


def _watcher() -> Any:
    """Return the module that watches files, which needs an extra."""
    try:
        return import_module("relay.commands.watch")
    except ModuleNotFoundError as error:
        needs = f'--watch needs {error.name}: pip install "gofax-relay[watch]"'
        raise click.ClickException(needs) from error


def _prepare(config: Config) -> None:
    logs.configure()
    opened(config).close()
