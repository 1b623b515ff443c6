"""``users`` and ``tokens``: who may sign in to the console, and what programs show to the API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from pydantic import TypeAdapter

from relay.acts import links
from relay.cli import cli
from relay.rules.access import Role, Scope
from relay.shapes.people import TokenJson, UserJson
from relay.store import Database, schema
from relay.store.actions import Act, Actions
from relay.store.people import Tokens, User, Users

Run = Callable[..., Result]

CONFIG = """\
store: sqlite:///relay.db
{admin}
endpoints:
  - {{path: /webhooks/gofax, allow_unsigned: true}}
"""
URL = "https://relay.example.com"


@pytest.fixture
def file(path: Path) -> Path:
    made = path.parent / "config.yaml"
    made.write_text(CONFIG.format(admin=f"admin: {{url: '{URL}'}}"))
    return made


@pytest.fixture
def run(file: Path) -> Run:
    """Run a command as somebody without a terminal."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--config", str(file)], input="")

    return run


@pytest.fixture
def users(database: Database) -> Users:
    return Users(database)


@pytest.fixture
def tokens(database: Database) -> Tokens:
    return Tokens(database)


def named(users: Users, name: str) -> User:
    found = users.named(name)
    assert found is not None
    return found


def of_link(users: Users, said: Result) -> User | None:
    """Return whom the printed link lets in."""
    (line,) = said.stdout.splitlines()
    assert line.startswith(f"{URL}/console/welcome/")
    return links.user_of(line.removeprefix(f"{URL}/console/welcome/"), users)


def actions(database: Database) -> list[tuple[str, str, str | None, str | None]]:
    """Return who did what, why and with what, oldest first."""
    found = [each.action for each in Actions(database).newest(limit=100)]
    return [(each.who, each.what, each.why, each.detail) for each in reversed(found)]


def everything(database: Database) -> list[object]:
    """Return all rows that these commands may change."""
    tables = (schema.users, schema.tokens, schema.actions)
    with database.reading() as db:
        return [tuple(row) for table in tables for row in db.execute(sa.select(table))]


# Users


def test_a_new_user_gets_a_link_to_the_address_that_people_reach(run: Run, users: Users) -> None:
    said = run("users", "add", "mary", "--role", "operator")

    assert (said.exit_code, said.stderr) == (0, "")
    assert of_link(users, said) == named(users, "mary")
    assert named(users, "mary").role is Role.OPERATOR
    assert named(users, "mary").password is None


def test_the_first_user_needs_neither_a_terminal_nor_a_relay_that_runs(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format(admin=f"admin: {{url: '{URL}'}}"))

    done = subprocess.run(
        [sys.executable, "-P", "-m", "relay.cli", "users", "add", "mary", "--role", "admin"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=60, start_new_session=True,
        env={"PATH": os.environ["PATH"], "GOFAX_RELAY_CONFIG": str(tmp_path / "config.yaml")},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{URL}/console/welcome/")
    assert len(done.stdout.splitlines()) == 1


def test_a_link_without_an_address_says_where_it_works(file: Path, run: Run) -> None:
    file.write_text(CONFIG.format(admin=""))

    said = run("users", "add", "mary", "--role", "viewer")

    assert said.stdout.startswith("http://127.0.0.1:8081/console/welcome/")
    assert "admin.url" in said.stderr


def test_a_secret_that_was_stolen_signs_nothing_any_more(
    run: Run, users: Users, database: Database
) -> None:
    link = run("users", "add", "mary", "--role", "admin")
    stolen = users.secret()

    said = run("users", "end-sessions", "--who", "ann", "--why", "a backup was stolen")

    assert said.stdout == "all sessions and one-time links are over\n"
    assert users.secret() != stolen
    assert of_link(users, link) is None
    assert actions(database)[-1] == ("ann", "end sessions", "a backup was stolen", "of all users")
    assert of_link(users, run("users", "link", "mary")) == named(users, "mary")


def test_users_are_listed_with_what_they_are(run: Run, users: Users, database: Database) -> None:
    for name, role in (("mary", "viewer"), ("bob@example.com", "admin")):
        run("users", "add", name, "--role", role)
    act = Act(who="mary", why=None, at=database.clock())
    assert users.choose_password(named(users, "mary"), "a hash", act)

    said = run("users", "list", "--json")
    shown = [json.loads(line) for line in said.stdout.splitlines()]

    for each in shown:
        assert TypeAdapter(UserJson).validate_python(each, strict=True) == each
    assert [(each["name"], each["role"], each["state"]) for each in shown] == [
        ("bob@example.com", "admin", "invited"),
        ("mary", "viewer", "active"),
    ]
    assert "a hash" not in said.stdout
    table = run("users").stdout
    assert "bob@example.com" in table
    assert "invited" in table


def test_without_users_it_says_how_to_make_one(run: Run, database: Database) -> None:
    assert "users add NAME --role admin" in run("users").output
    assert run("users", "--json").stdout == ""


def test_a_new_link_ends_the_old_one_the_password_and_all_sessions(
    run: Run, users: Users, database: Database
) -> None:
    first = run("users", "add", "mary", "--role", "viewer")
    act = Act(who="mary", why=None, at=database.clock())
    assert users.choose_password(named(users, "mary"), "a hash", act)
    before = named(users, "mary")

    again = run("users", "link", "mary", "--why", "password forgotten")

    assert of_link(users, first) is None
    assert of_link(users, again) == named(users, "mary")
    assert named(users, "mary").password is None
    assert named(users, "mary").epoch > before.epoch


def test_another_role_ends_sessions_and_links(run: Run, users: Users) -> None:
    first = run("users", "add", "mary", "--role", "viewer")

    said = run("users", "role", "mary", "--role", "admin")

    assert (said.exit_code, said.stdout) == (0, "mary is now admin\n")
    assert named(users, "mary").role is Role.ADMIN
    assert of_link(users, first) is None


def test_a_removed_user_is_gone_and_may_come_again(run: Run, users: Users) -> None:
    first = run("users", "add", "mary", "--role", "viewer")

    said = run("users", "remove", "mary")

    assert (said.exit_code, said.stdout) == (0, "mary is removed\n")
    assert users.named("mary") is None
    assert of_link(users, first) is None
    assert run("users", "add", "mary", "--role", "viewer").exit_code == 0


def test_each_change_is_in_the_audit_log(run: Run, database: Database) -> None:
    run("users", "add", "mary", "--role", "viewer", "--who", "ann", "--why", "new")
    run("users", "role", "mary", "--role", "admin", "--who", "ann")
    run("users", "link", "mary", "--who", "ann", "--why", "forgotten")
    run("users", "remove", "mary", "--who", "ann")
    run("tokens", "add", "bot", "--scope", "read", "--who", "ann", "--why", "reports")
    run("tokens", "remove", "bot", "--who", "ann")

    assert actions(database) == [
        ("ann", "add user", "new", "mary is viewer"),
        ("ann", "change role", None, "mary is now admin"),
        ("ann", "new link", "forgotten", "mary has to choose a password"),
        ("ann", "remove user", None, "mary"),
        ("ann", "add token", "reports", "bot: read"),
        ("ann", "remove token", None, "bot"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("users", "add", "mary", "--role", "viewer"), 1, "there is a user mary; a new link"),
        (("users", "add", "eve"), 2, "--role"),
        (("users", "add", "eve", "--role", "king"), 2, "'king'"),
        (("users", "add", "", "--role", "viewer"), 2, "is empty"),
        (("users", "add", "two words", "--role", "viewer"), 2, "letters, digits"),
        (("users", "add", "a/b", "--role", "viewer"), 2, "letters, digits"),
        (("users", "add", "e\u200bve", "--role", "viewer"), 2, "letters, digits"),
        (("users", "add", "x" * 101, "--role", "viewer"), 2, "at most 100"),
        (("users", "link", "eve"), 1, "no user eve: gofax-relay users list"),
        (("users", "role", "eve", "--role", "admin"), 1, "no user eve"),
        (("users", "remove", "eve"), 1, "no user eve"),
        (("users", "promote", "mary"), 2, "promote"),
        (("tokens", "add", "bot", "--scope", "read"), 1, "there is a token bot"),
        (("tokens", "add", "new"), 2, "--scope"),
        (("tokens", "add", "new", "--scope", "write"), 2, "'write'"),
        (("tokens", "add", "a b", "--scope", "read"), 2, "letters, digits"),
        (("tokens", "add", "new", "--scope", "read", "--for", "soon"), 2, "'soon'"),
        (("tokens", "add", "new", "--scope", "read", "--for", "0s"), 2, "more than 0s"),
        (("tokens", "remove", "eve"), 1, "no token eve: gofax-relay tokens list"),
    ],
)
def test_a_refusal_names_the_fault_and_changes_nothing(
    run: Run, database: Database, arguments: tuple[str, ...], code: int, said: str
) -> None:
    run("users", "add", "mary", "--role", "viewer")
    run("tokens", "add", "bot", "--scope", "read")
    before = everything(database)

    refused = run(*arguments)

    assert refused.exit_code == code, refused.output
    assert said in refused.stderr
    assert refused.stdout == ""
    assert everything(database) == before


@pytest.mark.parametrize("arguments", [("add", "eve", "--role", "viewer"), ("link", "mary")])
def test_where_there_is_no_console_nobody_is_invited_and_nobody_locked_out(
    file: Path, run: Run, database: Database, arguments: tuple[str, ...]
) -> None:
    run("users", "add", "mary", "--role", "viewer")
    before = everything(database)
    file.write_text(CONFIG.format(admin="admin: off"))

    said = run("users", *arguments)

    assert said.exit_code == 1
    assert "admin: off in the config" in said.stderr
    assert everything(database) == before


@pytest.mark.parametrize("command", ["users", "tokens"])
def test_without_a_store_it_says_so_and_makes_none(tmp_path: Path, command: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(admin=""))

    said = CliRunner().invoke(cli, [command, "--config", str(config)])

    assert said.exit_code == 1
    assert "no store yet" in said.stderr
    assert not (tmp_path / "relay.db").exists()


# Tokens


def test_a_token_is_shown_once_and_kept_as_a_digest(
    run: Run, tokens: Tokens, database: Database, path: Path
) -> None:
    said = run("tokens", "add", "reports", "--scope", "read", "--for", "90d")

    (shown,) = said.stdout.splitlines()
    now = database.clock()
    found = tokens.shown(shown, now=now)
    assert found is not None
    assert (found.name, found.scopes) == ("reports", {Scope.READ})
    assert found.expires_at is not None
    assert timedelta(days=89) < found.expires_at - now <= timedelta(days=90)
    for file in path.parent.glob(f"{path.name}*"):
        assert shown.encode() not in file.read_bytes()
    assert shown not in run("tokens", "list", "--json").output
    assert shown not in str(actions(database))


def test_what_may_act_may_look(run: Run, tokens: Tokens) -> None:
    run("tokens", "add", "bot", "--scope", "operate", "--scope", "admin")

    (found,) = tokens.all()
    assert found.scopes == set(Scope)


def test_a_token_as_json_has_what_its_bearer_shows(
    run: Run, tokens: Tokens, database: Database
) -> None:
    made = json.loads(run("tokens", "add", "bot", "--scope", "operate", "--json").stdout)

    found = tokens.shown(made.pop("token"), now=database.clock())
    assert found is not None
    assert TypeAdapter(TokenJson).validate_python(made, strict=True) == made
    assert (made["name"], made["scopes"]) == ("bot", ["operate", "read"])
    assert made["expires_at"] is None


def test_tokens_are_listed_with_what_they_may_and_until_when(
    run: Run, tokens: Tokens, database: Database
) -> None:
    run("tokens", "add", "bot", "--scope", "operate", "--who", "ann")
    old = database.clock() - timedelta(days=2)
    act = Act(who="ann", why=None, at=old)
    over = tokens.add("old", frozenset({Scope.READ}), act, expires_at=old + timedelta(days=1))
    assert over is not None

    listed = [json.loads(line) for line in run("tokens", "--json").stdout.splitlines()]
    table = {line.split()[0]: line for line in run("tokens").stdout.splitlines()}

    for each in listed:
        assert TypeAdapter(TokenJson).validate_python(each, strict=True) == each
    assert {each["name"]: each["created_by"] for each in listed} == {"bot": "ann", "old": "ann"}
    assert "never" in table["bot"]
    assert "expired" in table["old"]
    assert tokens.shown(over[1], now=database.clock()) is None


@pytest.mark.parametrize("by", ["name", "id"])
def test_a_revoked_token_opens_nothing(
    run: Run, tokens: Tokens, database: Database, by: str
) -> None:
    shown = run("tokens", "add", "bot", "--scope", "read").stdout.strip()
    (found,) = tokens.all()

    said = run("tokens", "remove", getattr(found, by))

    assert said.exit_code == 0
    assert tokens.all() == []
    assert tokens.shown(shown, now=database.clock()) is None


def test_without_tokens_it_says_how_to_make_one(run: Run, database: Database) -> None:
    assert "tokens add NAME --scope read" in run("tokens").output
