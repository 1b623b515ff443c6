"""The commands ``gofax-relay connectors``: list, write, check and set up connectors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from relay import destinations, scaffold
from relay.commands.asking import all_say
from relay.commands.groups import Group
from relay.commands.options import FAILED, config_option
from relay.commands.output import print_json
from relay.commands.tables import print_lines
from relay.config import installed
from relay.config.installed import Installed
from relay.config.model import Config


@click.group(cls=Group)
def connectors() -> None:
    """List connectors, write new ones, and check them.

    \b
    Installed ones:  gofax-relay connectors list
    Write one:       gofax-relay connectors new acme
    Check it:        gofax-relay connectors test acme
    """


@connectors.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(as_json: bool) -> None:
    """List the installed connectors with their options.

    \b
    Examples: gofax-relay connectors list
              gofax-relay connectors list --json
    """
    found = installed.connectors()
    if as_json:
        for each in found:
            print_json(_as_json(each))
        return
    for each in found:
        print_lines(_lines(each))


@connectors.command()
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the package; default: gofax-relay-NAME here.",
)
@click.option(
    "--like",
    type=click.Choice(scaffold.KINDS),
    default=scaffold.KINDS[0],
    show_default=True,
    help="Kind of system to start from.",
)
def new(name: str, folder: Path | None, like: str) -> None:
    """Write a package with the connector NAME: code, stand-in, tests, CI and README.

    \b
    Examples: gofax-relay connectors new acme
              gofax-relay connectors new slack --like chat
    """
    taken = [each.distribution for each in installed.connectors(only=name)]
    if taken:
        raise click.ClickException(f"{taken[0]} has a connector named {name}; choose another name")
    folder = folder or Path(f"gofax-relay-{name}")
    try:
        written = scaffold.write(name, folder, like=like)
    except scaffold.Refusal as error:
        raise click.ClickException(str(error)) from error
    for path in written:
        click.echo(f"wrote {path}")
    click.echo(f"\nNow: cd {folder}\n     pip install -e '.[test]'\n     pytest")


@connectors.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("pytest_options", nargs=-1, type=click.UNPROCESSED)
def test(name: str, pytest_options: tuple[str, ...]) -> None:
    """Run the conformance suite of the connector NAME; further options go to pytest.

    \b
    Examples: gofax-relay connectors test hubspot
              gofax-relay connectors test acme -k C17 --junit-xml checks.xml
    """
    suite = _suite_file(name)
    if find_spec("pytest") is None:
        raise click.ClickException('the checks need pytest: pip install "pytest>=8.3"')
    # The working folder may have its own pytest settings, plug-ins and modules.
    own = ["-p", "connectors.testing.report", "-p", "no:cacheprovider", "-c", "/dev/null"]
    target = [suite, "--no-header", "-q", "-rN", "--tb=no"]
    command = [sys.executable, "-P", "-m", "pytest", *own, *target, *pytest_options]
    sys.exit(subprocess.run(command, check=False).returncode)


@connectors.command()
@click.argument("name")
@config_option
def setup(name: str, config: Config) -> None:
    """Create in each system what the connector NAME needs there.

    NAME may also be a destination.

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
    built = destinations.build(config.model_copy(update={"destinations": meant}))
    if not all_say(built, lambda connector: connector.setup()):
        sys.exit(FAILED)


def _suite_file(name: str) -> str:
    """Return the place of the suite of connector *name*: ``FILE`` or ``FILE::CLASS``."""
    if find_spec("pytest") is None:
        raise click.ClickException('the checks need pytest: pip install "gofax-relay[kit]"')
    try:
        installed.find(name)
    except LookupError as error:
        raise click.ClickException(str(error)) from error
    (found,) = installed.connectors(only=name)
    if found.suite is None:
        raise click.ClickException(
            f"{found.distribution} brings no suite for {name}: "
            f'add an entry point "{name}" in group {installed.SUITES}'
        )
    module, _, class_ = found.suite.partition(":")
    try:
        spec = find_spec(module)
    except ImportError as error:
        raise click.ClickException(f"{found.suite}: {error}") from error
    if spec is None or spec.origin is None:
        raise click.ClickException(f"{found.suite}: {found.distribution} has no such module")
    return f"{spec.origin}::{class_}" if class_ else spec.origin


def _lines(installed: Installed) -> Iterator[str]:
    yield f"{installed.name}  {installed.version}  from {installed.distribution}"
    if installed.fault:
        yield f"  cannot be used: {installed.fault}"
    for option in _options(installed):
        yield f"  {_in_words(option)}"


def _as_json(installed: Installed) -> dict[str, Any]:
    return {
        "name": installed.name,
        "version": installed.version,
        "distribution": installed.distribution,
        "class": installed.origin,
        "suite": installed.suite,
        "fault": installed.fault,
        "options": list(_options(installed)),
    }


def _options(installed: Installed) -> Iterator[dict[str, Any]]:
    """Describe each option of a connector; nothing if it cannot be imported."""
    model = installed.connector.Options if installed.connector else BaseModel
    for name, field in model.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        yield {
            "name": field.alias or name,
            "required": field.is_required(),
            "secret": "Secret" in str(field.annotation),
            "default": _plain(default),
            "description": field.description or "",
        }


def _plain(default: Any) -> Any:
    """Return *default* as JSON can hold it."""
    return to_jsonable_python(default, fallback=str)


def _in_words(option: dict[str, Any]) -> str:
    notes = ["required"] if option["required"] else []
    notes += ["secret"] if option["secret"] else []
    if option["default"] not in (None, "", [], {}):
        notes.append(f"default {json.dumps(option['default'], ensure_ascii=False)}")
    about = f" ({', '.join(notes)})" if notes else ""
    return f"{option['name']}{about}  {option['description']}".rstrip()
