"""Who may sign in to the console, and what programs show to the API."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import click

from relay.acts.links import link_for
from relay.commands.groups import ListingGroup
from relay.commands.options import (
    PERSON,
    Age,
    Text,
    existing,
    json_option,
    opened,
    store_option,
    with_options,
)
from relay.commands.output import print_json
from relay.commands.tables import Column, failure, print_lines, print_table, table_time
from relay.config.model import Config
from relay.rules.access import LONGEST_NAME, NAME, Role, Scope, scopes_of
from relay.shapes.people import state_of, token_json, user_json
from relay.store.actions import Act
from relay.store.database import Database
from relay.store.people import Token, Tokens, User, Users

_USERS = (
    Column(name="name"),
    Column(name="role"),
    Column(name="state"),
    Column(name="signed in"),
    Column(name="since", extra=1),
)
_TOKENS = (
    Column(name="name"),
    Column(name="scopes"),
    Column(name="expires"),
    Column(name="last used"),
    Column(name="made by", extra=1),
    Column(name="token", extra=2),
)


class Name(Text):
    """The name of a user or a token."""

    name = "name"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        if not re.fullmatch(NAME, text) or len(text) > LONGEST_NAME:
            most = f"at most {LONGEST_NAME}"
            self.fail(f"{text!r}: letters, digits and . _ @ + - alone, {most}", param)
        return text


role_option = click.option(
    "--role",
    type=click.Choice([each.value for each in Role]),
    required=True,
    help="viewer looks, operator also resends and pauses, admin does everything.",
)


@click.group(cls=ListingGroup)
def users() -> None:
    """Manage who may sign in to the console.

    \b
    Examples: gofax-relay users add mary --role operator
              gofax-relay users
    """


@users.command("list")
@store_option
@json_option
def list_users(config: Config, as_json: bool) -> None:
    """List the users. The default.

    \b
    Example: gofax-relay users list
    """
    found = Users(existing(config)).all()
    if as_json:
        for user in found:
            print_json(user_json(user))
        return
    rows = [
        {
            "name": user.name,
            "role": user.role,
            "state": state_of(user),
            "signed in": table_time(user.signed_in_at),
            "since": table_time(user.created_at),
        }
        for user in found
    ]
    print_table(_USERS, rows, empty="no users: gofax-relay users add NAME --role admin")


@users.command("add")
@click.argument("name", type=Name())
@store_option
@role_option
@with_options(*PERSON)
def add_user(name: str, config: Config, role: str, who: str, why: str | None) -> None:
    """Add a user, and print the link by which that person chooses a password.

    The link works once, for three days. It needs no terminal: whoever runs the command reads it.

    \b
    Examples: gofax-relay users add mary --role operator
              gofax-relay users add bob@example.com --role viewer
    """
    address = _address(config)
    database = opened(config)
    user = Users(database).add(name, Role(role), _act(database, who, why))
    if user is None:
        raise failure(f"there is a user {name}; a new link: gofax-relay users link {name}")
    _print_link(address, database, user)


@users.command("link")
@click.argument("name", type=Name())
@store_option
@with_options(*PERSON)
def link_user(name: str, config: Config, who: str, why: str | None) -> None:
    """Take a user's password away, end all sessions, and print a new link.

    \b
    Example: gofax-relay users link mary --why 'password forgotten'
    """
    address = _address(config)
    database = existing(config)
    user = Users(database).renew(name, _act(database, who, why))
    if user is None:
        raise failure(f"no user {name}: gofax-relay users list")
    _print_link(address, database, user)


@users.command("role")
@click.argument("name", type=Name())
@store_option
@role_option
@with_options(*PERSON)
def change_role(name: str, config: Config, role: str, who: str, why: str | None) -> None:
    """Give a user another role; sessions with the old one end.

    \b
    Example: gofax-relay users role mary --role admin
    """
    database = existing(config)
    if not Users(database).change_role(name, Role(role), _act(database, who, why)):
        raise failure(f"no user {name}: gofax-relay users list")
    print_lines([f"{name} is now {role}"])


@users.command("remove")
@click.argument("name", type=Name())
@store_option
@with_options(*PERSON)
def remove_user(name: str, config: Config, who: str, why: str | None) -> None:
    """Remove a user and end all sessions.

    \b
    Example: gofax-relay users remove mary
    """
    database = existing(config)
    if not Users(database).remove(name, _act(database, who, why)):
        raise failure(f"no user {name}: gofax-relay users list")
    print_lines([f"{name} is removed"])


@users.command("end-sessions")
@store_option
@with_options(*PERSON)
def end_sessions(config: Config, who: str, why: str | None) -> None:
    """End all sessions and one-time links of all users, by a new secret that signs them.

    For when others may have a copy of the store: with its secret they could sign in as anybody.
    Passwords stay.

    \b
    Example: gofax-relay users end-sessions --why 'a backup was stolen'
    """
    database = existing(config)
    Users(database).change_secret(_act(database, who, why))
    print_lines(["all sessions and one-time links are over"])


@click.group(cls=ListingGroup)
def tokens() -> None:
    """Make and revoke the tokens with which programs call the API.

    \b
    Examples: gofax-relay tokens add reports --scope read --for 90d
              gofax-relay tokens
    """


@tokens.command("list")
@store_option
@json_option
def list_tokens(config: Config, as_json: bool) -> None:
    """List the tokens; what their bearers show is not kept. The default.

    \b
    Example: gofax-relay tokens list
    """
    database = existing(config)
    found, now = Tokens(database).all(), database.clock()
    if as_json:
        for token in found:
            print_json(token_json(token))
        return
    rows = [
        {
            "name": token.name,
            "scopes": " ".join(sorted(token.scopes)),
            "expires": _expiry(token, now),
            "last used": table_time(token.used_at)[:10],
            "made by": token.created_by,
            "token": token.id,
        }
        for token in found
    ]
    print_table(_TOKENS, rows, empty="no tokens: gofax-relay tokens add NAME --scope read")


@tokens.command("add")
@click.argument("name", type=Name())
@store_option
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([each.value for each in Scope]),
    multiple=True,
    required=True,
    help="read looks, operate resends and pauses, admin administers; repeatable.",
)
@click.option("--for", "length", type=Age(), help="How long it works, such as 90d.")
@with_options(*PERSON)
@json_option
def add_token(
    name: str,
    config: Config,
    scopes: tuple[str, ...],
    length: timedelta | None,
    who: str,
    why: str | None,
    as_json: bool,
) -> None:
    """Make a token and print it, once: only its digest is kept.

    \b
    Examples: gofax-relay tokens add reports --scope read --for 90d
              gofax-relay tokens add helpdesk-bot --scope operate
    """
    database = opened(config)
    act = _act(database, who, why)
    expires_at = act.at + length if length else None
    made = Tokens(database).add(name, scopes_of(scopes), act, expires_at=expires_at)
    if made is None:
        raise failure(f"there is a token {name}: gofax-relay tokens remove {name}")
    token, shown = made
    if as_json:
        print_json({**token_json(token), "token": shown})
    else:
        print_lines([shown])


@tokens.command("remove")
@click.argument("name", type=Name())
@store_option
@with_options(*PERSON)
def remove_token(name: str, config: Config, who: str, why: str | None) -> None:
    """Revoke a token, by its name or id.

    \b
    Example: gofax-relay tokens remove reports
    """
    database = existing(config)
    if not Tokens(database).remove(name, _act(database, who, why)):
        raise failure(f"no token {name}: gofax-relay tokens list")
    print_lines([f"{name} is revoked"])


def _address(config: Config) -> str:
    """Return where the link leads; asked for before anything is changed."""
    if config.admin is None:
        raise failure("admin: off in the config: there is no console to sign in to")
    if config.admin.url is None:
        said = "note: the link works on this machine alone, or through a tunnel to it; admin.url"
        click.echo(f"{said} in the config is the address that others reach", err=True)
    return config.admin.address


def _print_link(address: str, database: Database, user: User) -> None:
    print_lines([link_for(user, Users(database), address=address)])


def _expiry(token: Token, now: datetime) -> str:
    if token.expires_at is None:
        return "never"
    is_over = token.expires_at <= now
    return "expired" if is_over else table_time(token.expires_at)


def _act(database: Database, who: str, why: str | None) -> Act:
    return Act(who=who, why=why, at=database.clock())
