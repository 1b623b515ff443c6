"""The commands about problems and channels, and what check and doctor say about them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay import migrations
from relay.cli import cli
from relay.rules.kinds import Kind
from relay.rules.problems import Finding
from relay.store import connect
from relay.store.problems import Problems

CONFIG = """\
store: sqlite:///relay.db
endpoints:
  - {path: /webhooks/gofax, allow_unsigned: true}
alerts:
  - url: json://example.com/a-token
  - {url: "%s", name: chat}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG % "json://example.com/b-token")
    return file


@pytest.fixture
def problems(config: Path) -> Iterator[Problems]:
    """The problems of its store: one open, about a destination."""
    with closing(connect(f"sqlite:///{config.parent}/relay.db")) as database:
        migrations.upgrade(database)
        problems = Problems(database)
        found = Finding(kind=Kind.FAILING, subject="crm", said="crm fails again and again")
        problems.judge([found], channels=lambda problem, change: ())
        yield problems


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--config", str(config)])


def test_open_problems_are_listed(config: Path, problems: Problems) -> None:
    (listed,) = run(config, "problems", "--json").stdout.splitlines()
    shown = run(config, "problems").stdout

    assert json.loads(listed)["kind"] == "failing"
    assert json.loads(listed)["state"] == "open"
    assert json.loads(listed)["docs"] == "docs/mending.md#failing"
    assert "crm fails again and again" in shown


@pytest.mark.parametrize("name", ["crm", "failing", "{id}", "{short}"])
def test_a_problem_is_acknowledged_by_any_of_its_names(
    config: Path, problems: Problems, name: str
) -> None:
    id_ = problems.unresolved()[0].id

    done = run(config, "problems", "ack", name.format(id=id_, short=id_[:16]), "--who", "ann")

    assert done.stdout == "acknowledged: crm fails again and again\n"
    assert problems.unresolved()[0].acknowledged_by == "ann"
    assert "acknowledged by ann" in run(config, "problems").stdout


def test_an_unknown_name_is_refused_and_nothing_acknowledged(
    config: Path, problems: Problems
) -> None:
    done = run(config, "problems", "ack", "crm", "nothing")

    assert done.exit_code == 1
    assert "no open problem has the id, subject or kind nothing" in done.stderr
    assert problems.unresolved()[0].acknowledged_by is None


def test_doctor_names_a_channel_that_fails(config: Path, problems: Problems) -> None:
    found = Finding(kind=Kind.HELD, subject="crm", said="so it is")
    problems.judge([found], channels=lambda problem, change: ["chat"])
    alerts = problems.claim("chat", node="a")
    problems.record(alerts, {alerts[0].seq: "no route to host"})

    said = run(config, "doctor").stdout

    assert "! alerts: alerts to chat cannot be sent: no route to host" in said


@pytest.mark.slow
def test_check_names_a_channel_that_apprise_cannot_use_without_its_secret(config: Path) -> None:
    config.write_text(CONFIG % "slack://hush-hush")

    done = run(config, "check")

    assert done.exit_code == 2
    assert "config.yaml:6: alerts[1].url: Apprise cannot use this URL" in done.stderr
    assert "hush" not in done.output


@pytest.mark.slow
def test_check_lists_the_channels(config: Path) -> None:
    done = run(config, "check")

    assert done.exit_code == 0, done.output
    assert "alerts to json-1\nalerts to chat\n" in done.stdout
    assert "token" not in done.output


def test_a_channel_that_is_not_there_is_named_with_those_that_are(config: Path) -> None:
    done = run(config, "alerts", "test", "mail")

    assert "no channel named mail (have: json-1, chat)" in done.stderr
