"""What commands say about a file that is newer than what runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import eventually

from relay import migrations
from relay.cli import cli
from relay.config import installed
from relay.config.load import load
from relay.node import Heartbeat
from relay.store.nodes import Nodes

CONFIG = """\
store: sqlite:///relay.db
endpoints: [{{path: /in, allow_unsigned: true}}]
destinations: {{flow: {{connector: webhook, url: "https://example.com/flow"}}}}
routes: [{{name: {name}, to: [flow]}}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """A file that a node on this machine has read."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(name="all"))
    read = load(path, find_connector=installed.find)
    with closing(migrations.opened(read)) as database:
        heartbeat = Heartbeat(database, name="web-1", role="web", config=read)
        heartbeat.start()
        eventually(Nodes(database).nodes)
        yield path
        heartbeat.close()


def edit(path: Path) -> None:
    path.write_text(CONFIG.format(name="most"))
    later = time.time() + 2
    os.utime(path, (later, later))


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--config", str(config)])


def test_a_file_that_runs_changes_nothing(config: Path) -> None:
    said = run(config, "check", "--diff")

    assert (said.exit_code, said.stderr) == (0, "")
    assert said.stdout.startswith("web-1: config ")
    assert "nothing changes" in said.stdout
    assert "was changed" not in run(config, "doctor").stdout


def test_the_difference_is_shown(config: Path) -> None:
    edit(config)

    first, *rest = run(config, "check", "--diff").stdout.splitlines()

    assert (first.startswith("web-1: config "), " → " in first) == (True, True)
    assert rest == ['  routes[0].name: "all" → "most"']


@pytest.mark.parametrize("command", [("explain", "m1"), ("resend", "m1"), ("replay", "m1")])
def test_commands_that_speak_of_routes_say_so(config: Path, command: tuple[str, ...]) -> None:
    assert "was changed" not in run(config, *command).stderr
    edit(config)

    said = run(config, *command).stderr

    assert "note: config.yaml was changed" in said
    assert "web-1 runs an older one: gofax-relay check --diff" in said


def test_the_doctor_says_so(config: Path) -> None:
    edit(config)

    assert "web-1 runs an older one" in run(config, "doctor").stdout
