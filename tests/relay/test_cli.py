"""The command line as a whole: what it imports, and that every command can be found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from relay.cli import COMMANDS, cli

CONFIG = """\
endpoints: [{path: /webhooks/gofax, signing_secrets: [secret]}]
destinations: {chat: {connector: webhook, url: "https://chat.example/"}}
routes: [{name: all, to: [chat]}]
"""


def python(code: str, *, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run *code* in a process of its own, which has imported nothing yet."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd=folder
    )


def test_asking_for_the_version_imports_no_database_and_no_sdk() -> None:
    ask = (
        "import sys\nfrom relay.cli import cli\n"
        "try:\n    cli(['--version'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'sqlalchemy', 'alembic', 'pydantic', 'requests', 'flask', 'hubspot', 'zenpy',\n"
        "         'structlog', 'rich', 'yaml', 'phonenumbers'}\n"
        "print('imported:', *sorted(heavy & set(sys.modules)))\n"
    )
    run = python(ask)

    assert run.stdout.splitlines()[1:] == ["imported:"]


def test_a_command_that_only_looks_does_not_load_what_serving_needs() -> None:
    ask = (
        "import importlib, sys\n"
        "heavy = {'alembic', 'psycopg', 'flask', 'granian', 'celery', 'hubspot', 'zenpy',\n"
        "         'sqlalchemy.dialects.postgresql', 'relay.processes', 'relay.api'}\n"
        "for name in ('events', 'inspect', 'requests', 'recover', 'doctor', 'explain'):\n"
        "    importlib.import_module(f'relay.commands.{name}')\n"
        "    if loaded := heavy & set(sys.modules):\n"
        "        sys.exit(f'{name}: {sorted(loaded)}')\n"
    )
    run = python(ask)

    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_listing_events_loads_what_it_shows_and_little_else(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    ask = (
        "import sys\nfrom relay.cli import cli\n"
        "try:\n    cli(['events'])\nexcept SystemExit as end:\n    assert end.code == 1\n"
        "heavy = {'requests', 'urllib3', 'jinja2', 'prometheus_client', 'phonenumbers',\n"
        "         'rich.console', 'connectors.http', 'connectors.webhook', 'relay.destinations',\n"
        "         'relay.acts', 'relay.intake', 'relay.rules.problems', 'relay.rules.recovery',\n"
        "         'relay.store.accept', 'relay.store.claim', 'relay.store.recover',\n"
        "         'relay.store.nodes', 'relay.store.health', 'relay.store.lanes'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
        "print(sum(name.startswith('relay.') for name in sys.modules) <= 70)\n"
    )
    run = python(ask, folder=tmp_path)

    assert run.stdout == "\nTrue\n"
    assert "no store yet" in run.stderr


def test_serving_loads_no_more_than_the_config_asks_for() -> None:
    ask = (
        "import sys, relay.commands.serve, relay.processes.supervisor\n"
        "unasked = {'alembic', 'psycopg', 'celery', 'hubspot', 'zenpy', 'pymsteams', 'apprise',\n"
        "           'sqlalchemy.dialects.postgresql', 'flask_openapi3', 'flask_wtf', 'argon2',\n"
        "           'vaderSentiment', 'relay.api', 'relay.console', 'relay.store.recover',\n"
        "           'connectors.sandbox'}\n"
        "print(*sorted(unasked & set(sys.modules)))\n"
    )
    run = python(ask)

    assert (run.stdout, run.stderr) == ("\n", "")


def test_what_children_need_is_loaded_while_the_store_is_made_ready(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    ask = (
        "import sys, relay.commands.serve\n"
        "from pathlib import Path\n"
        "from relay import processes\n"
        "from relay.config import installed\n"
        "from relay.config.load import load\n"
        "needed = {'flask', 'granian', 'phonenumbers', 'relay.app', 'relay.worker',\n"
        "          'relay.console'}\n"
        "print(*needed & set(sys.modules))\n"
        "config = load(Path('config.yaml'), find_connector=installed.find)\n"
        "processes.imported('serve', config)\n"
        "print(*needed - set(sys.modules))\n"
    )
    run = python(ask, folder=tmp_path)

    assert (run.stdout, run.stderr) == ("\n\n", "")


@pytest.mark.parametrize(
    ("command", "unused"),
    [("serve", {"rich"}), ("events", {"rich.console", "rich.table", "rich.text", "pygments"})],
)
def test_of_rich_only_what_counts_cells_is_loaded_for_tables(
    command: str, unused: set[str]
) -> None:
    ask = (
        "import sys\nfrom relay.cli import cli\n"
        f"try:\n    cli(['{command}', '--help'])\nexcept SystemExit as end:\n"
        "    assert end.code == 0\n"
        f"assert 'structlog.dev' in sys.modules\nprint(*sorted({unused} & set(sys.modules)))\n"
    )
    run = python(ask)

    assert (run.stdout.splitlines()[-1], run.stderr) == ("", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_name_is_that_of_a_command(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)

    assert command is not None
    assert command.name == name


def test_an_unknown_command_is_none() -> None:
    assert cli.get_command(click.Context(cli), "no-such") is None


def test_the_help_shows_whole_sentences() -> None:
    for command in ([], ["users"], ["alerts"], ["secrets"]):
        shown = CliRunner().invoke(cli, [*command, "--help"], terminal_width=80).output

        assert "..." not in shown.split("Commands:")[1]
        assert max(map(len, shown.splitlines())) <= 80


def test_a_misspelt_command_is_told_the_nearest_one() -> None:
    near = CliRunner().invoke(cli, ["serv"])
    far = CliRunner().invoke(cli, ["frobnicate"])

    assert (near.exit_code, far.exit_code) == (2, 2)
    assert "No such command 'serv'. Did you mean serve?" in near.output
    assert "Did you mean" not in far.output
