"""Commands that only look leave everything as it is, also where nothing is yet."""

from __future__ import annotations

from pathlib import Path

import psutil
import psycopg
import pytest
import servers
from click.testing import CliRunner, Result

from relay.cli import cli
from relay.config import installed
from relay.config.load import load
from relay.migrations import newest, opened

CONFIG = """\
store: sqlite:///relay.db
endpoints:
  - {path: /webhooks/gofax, signing_secrets: [%s]}
destinations:
  crm: {connector: hubspot, access_token: test}
routes:
  - {name: all, to: [crm]}
"""
SECRETS = ["a-secret-of-the-relay-no-1", "a-secret-of-the-relay-no-2"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG % SECRETS[0])
    return file


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--config", str(config)])


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(
    "command",
    [
        ("events",), ("requests",), ("explain", "m1"), ("nodes",), ("doctor",), ("dead",),
        ("dead", "--group"), ("resend", "m1"), ("replay", "m1"), ("prune", "--dry-run"),
        ("erase", "+61400000000", "--yes"), ("settle", "dlv_1", "--as", "dead"),
    ],
)  # fmt: skip
def test_a_command_that_needs_what_is_in_a_store_makes_none(
    config: Path, command: tuple[str, ...], options: tuple[str, ...]
) -> None:
    done = run(config, *command, *options)

    assert done.exit_code == 1
    assert "relay.db: no store yet: start gofax-relay serve" in done.stderr
    assert not done.stdout
    assert list(config.parent.iterdir()) == [config]


@pytest.mark.parametrize(
    "command",
    [
        ("events",), ("conversation", "+61400000000"), ("explain", "m1"), ("nodes",),
        ("requests",), ("dead",), ("resend", "m1"), ("settle", "dlv_1", "--as", "dead"),
        ("pause", "crm"), ("resume", "crm"), ("problems",), ("prune", "--dry-run"),
        ("users", "list"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_who_looks_after_a_store_may_do_so_while_a_destination_is_wrong(
    config: Path, command: tuple[str, ...]
) -> None:
    opened(load(config, find_connector=installed.find)).close()
    # Twice, because a pause says what it changed.
    _, good = [run(config, *command) for _ in range(2)]
    right = config.read_text()

    for wrong in ("connector: nope", "connector: hubspot, colour: blue"):
        config.write_text(right.replace("connector: hubspot", wrong))
        done = run(config, *command)

        assert (done.exit_code, done.output) == (good.exit_code, good.output)
        assert run(config, "check").exit_code == 2


@pytest.mark.parametrize(
    "command",
    [("events",), ("explain", "m1"), ("pause", "crm"), ("doctor",), ("users", "list")],
    ids=" ".join,
)
def test_a_command_closes_the_store_that_it_has_opened(
    config: Path, command: tuple[str, ...]
) -> None:
    opened(load(config, find_connector=installed.find)).close()

    run(config, *command)

    still_open = [Path(each.path) for each in psutil.Process().open_files()]
    assert [each.name for each in still_open if each.parent == config.parent] == []


@pytest.mark.parametrize(
    "command",
    [("pause", "--since", "2h"), ("resume", "crm"), ("resume", "--since", "2h")],
    ids=" ".join,
)
def test_a_pause_or_its_end_that_needs_a_store_makes_none(
    config: Path, command: tuple[str, ...]
) -> None:
    done = run(config, *command)

    assert done.exit_code == 1
    assert "relay.db: no store yet: start gofax-relay serve" in done.stderr
    assert list(config.parent.iterdir()) == [config]


@pytest.mark.parametrize(
    "command",
    [("pause",), ("pause", "nope"), ("pause", "crm", "nope"), ("pause", "crm", "--since", "2h")],
    ids=" ".join,
)
def test_a_pause_that_is_refused_makes_no_store(config: Path, command: tuple[str, ...]) -> None:
    done = run(config, *command)

    assert done.exit_code == 2, done.output
    assert list(config.parent.iterdir()) == [config]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("events",), "no store yet: start gofax-relay serve"),
        (("check", "--sample", "evt_1"), "evt_1: no such file, and there is no store yet"),
    ],
)
def test_a_command_that_only_looks_makes_no_tables_on_a_server(
    config: Path, server: None, command: tuple[str, ...], said: str
) -> None:
    with servers.new_database() as url:
        config.write_text(f"store: {url}\n{CONFIG.partition(chr(10))[2] % SECRETS[0]}")

        done = run(config, *command)

        with psycopg.connect(url) as db:
            tables = db.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            assert tables.fetchone() == (0,)
    assert done.exit_code == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("events",), ("requests",), ("nodes",), ("doctor",), ("dead",), ("prune", "--dry-run"),
        ("erase", "+61400000000", "--dry-run"), ("pause", "crm"), ("resume", "crm"),
        ("export", "+61400000000"),
        ("explain", "m1"), ("resend", "m1"), ("settle", "m1", "--as", "dead"), ("replay", "m1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, ""], ids=["not set", "empty"])
def test_a_command_that_works_on_the_store_needs_no_secrets(
    tmp_path: Path, path: Path, command: tuple[str, ...], value: str | None
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "endpoints: [{path: /a, signing_secrets: ['${GOFAX_ABSENT}']}]\n"
        "destinations: {crm: {connector: webhook, url: '${GOFAX_ABSENT}'}}\n"
    )
    environ = {"GOFAX_ABSENT": value}

    done = CliRunner().invoke(cli, [*command, "--config", str(file)], env=environ)
    checked = CliRunner().invoke(cli, ["check", "--config", str(file)], env=environ)

    # The doctor says that no worker runs.
    assert done.exit_code in (0, 1, 3), done.output
    assert "GOFAX_ABSENT" not in done.output
    said = "is not set" if value is None else "is set but empty"
    assert checked.exit_code == 2
    assert checked.output.count(f"environment variable GOFAX_ABSENT {said}") == 2


def test_migrate_says_when_it_has_no_statement_to_print(config: Path, path: Path) -> None:
    said = run(config, "migrate", "--sql").stdout

    assert said == (f"-- sqlite:///{path} has schema {newest()}: nothing to do\n")


def test_migrate_prints_statements_for_a_store_that_is_not_there(config: Path) -> None:
    said = run(config, "migrate", "--sql").stdout

    assert "CREATE TABLE events" in said and "nothing to do" not in said
    assert newest() in said
    assert list(config.parent.iterdir()) == [config]


@pytest.mark.parametrize(
    ("secrets", "said"),
    [(SECRETS[:1], "signed with its secret"), (SECRETS, "signed with any of 2 secrets")],
)
def test_check_says_in_a_sentence_how_an_endpoint_is_signed(
    config: Path, secrets: list[str], said: str
) -> None:
    config.write_text(CONFIG % ", ".join(secrets))

    assert f"endpoint /webhooks/gofax: json, {said}\n" in run(config, "check").stdout
