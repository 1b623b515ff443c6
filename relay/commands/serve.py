"""The commands that run the relay, together or in parts."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from relay import logs, migrations, processes
from relay.commands.options import (
    FAILED,
    USAGE,
    config_path_option,
    loaded_option,
    opened,
    require_certificate,
)
from relay.config import installed
from relay.config.certificates import Unfit
from relay.config.document import ConfigError, Document
from relay.config.load import load_document
from relay.config.model import Config
from relay.migrations import Unusable
from relay.processes import NotTaken, PortTaken
from relay.store import StoreUnavailable

_trial_option = click.option(
    processes.TRIAL, is_flag=True, hidden=True, help="Try a start, and end."
)


@click.command()
@loaded_option
@click.option(
    "--watch", is_flag=True, help="Start again when config, secrets or connectors change."
)
@_trial_option
def serve(loaded: tuple[Config, Document], watch: bool, trial: bool) -> None:
    """Run the receiver and the worker as processes of one command.

    \b
    Examples: gofax-relay serve --config /etc/gofax-relay/config.yaml
              gofax-relay serve --watch
    On SIGTERM, running attempts get 8 s; the leases of the rest run out. SIGHUP and
    `gofax-relay reload` read the config again, and refuse no request meanwhile.

    --watch is for those who write a config or a connector. It follows the config, the files that
    it names for secrets, and the Python files of its connectors outside site-packages.
    """
    _, document = loaded
    if watch:
        sys.exit(_watcher().run(document.path))
    _run("serve", loaded, trial=trial)


@click.command()
@loaded_option
@_trial_option
def web(loaded: tuple[Config, Document], trial: bool) -> None:
    """Run the receiver without a worker.

    \b
    Example: gofax-relay web --config config.yaml
    SIGHUP and `gofax-relay reload` read the config again.
    """
    _run("web", loaded, trial=trial)


@click.command()
@loaded_option
@_trial_option
def work(loaded: tuple[Config, Document], trial: bool) -> None:
    """Run a worker without the receiver.

    \b
    Example: gofax-relay work --config config.yaml
    SIGHUP and `gofax-relay reload` read the config again.
    """
    _run("work", loaded, trial=trial)


@click.command()
@config_path_option
def reload(path: Path) -> None:
    """Make the running relay read its config again, and wait until the new one answers.

    \b
    Example: gofax-relay reload --config /etc/gofax-relay/config.yaml
    No request is refused meanwhile. Faults are printed, and what runs goes on as it was: exit
    code 1, as if nothing runs here. Run it after `pip install`, too: another version takes over.
    """
    try:
        answers = processes.ask_for_reload(path)
    except OSError as error:
        raise click.ClickException(f"no answer to the reload: {error}") from error
    if not answers:
        raise click.ClickException(f"nothing runs with {path} on this machine")
    for each in answers:
        said = each.faults or f"version {each.version}, config {each.config}"
        click.echo(f"{each.command} ({each.pid}): {said}", err=bool(each.faults))
    sys.exit(FAILED if any(each.faults for each in answers) else 0)


def _run(command: str, loaded: tuple[Config, Document], *, trial: bool) -> NoReturn:
    config, document = loaded
    if command != "work":
        try:
            require_certificate(config, document)
        except ConfigError as error:
            click.echo(error, err=True)
            sys.exit(USAGE)
    if trial:
        opened(config).close()
        processes.imported(command, config)
        sys.exit()
    try:
        code = processes.run(
            command,
            document.path,
            config,
            reread=partial(_reread, document.path, command),
            prepare=_prepare,
        )
    except (PortTaken, Unfit) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(code)


def _reread(path: Path, command: str, running: Config) -> Config:
    """Read the file again. Raises :class:`~relay.processes.NotTaken`."""
    try:
        config, document = load_document(path, find_connector=installed.find)
        if command != "work":
            require_certificate(config, document)
        if config.store != running.store:
            migrations.opened(config).close()
    except (ConfigError, Unusable, StoreUnavailable) as error:
        raise NotTaken(str(error)) from error
    return config


def _watcher() -> Any:
    """Return the module that watches files, which needs an extra."""
    try:
        return import_module("relay.commands.watch")
    except ModuleNotFoundError as error:
        needs = f'--watch needs {error.name}: pip install "gofax-relay[watch]"'
        raise click.ClickException(needs) from error


def _prepare(config: Config) -> AbstractContextManager[None]:
    # Of the parent, which a reload may tell to say more or less.
    logs.configure(level=config.logs.threshold, as_text=config.logs.as_text, is_final=False)
    # What moves a store to a new schema takes 8 MiB, which every process would hold for ever.
    return processes.apart(partial(_open_store, config))


def _open_store(config: Config) -> None:
    try:
        opened(config).close()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
