"""Options that commands share, how their values are read, and opening the store."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click

from relay import migrations
from relay.clock import wall
from relay.commands.times import ZONE, shown_time, zone
from relay.config import certificates, installed
from relay.config.certificates import Unfit
from relay.config.document import FILE, VARIABLE, ConfigError, Document
from relay.config.load import Need, load_document
from relay.config.model import Config
from relay.config.retention import LONGEST_AGE
from relay.migrations import NoTables, Unusable
from relay.rules import payload, units
from relay.rules.units import RateLimit
from relay.store import Database, Queries, StoreUnavailable
from relay.store.connect import is_missing

Command = Callable[..., None]

#: Exit codes.
FAILED, USAGE = 1, 2


class NoStore(click.ClickException):
    """The relay was never started: there is nothing to look at."""


class LoadedFile(click.ParamType[tuple[Config, Document]]):
    """A path to a config file, which is read and validated as soon as it is given."""

    name = "file"

    def __init__(self, need: Need = Need.ALL) -> None:
        self._need = need

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> Any:
        try:
            config, document = load_document(
                Path(value), find_connector=installed.find, need=self._need
            )
        except ConfigError as error:
            click.echo(error, err=True)
            raise click.exceptions.Exit(USAGE) from error
        if ctx is not None:
            ctx.meta[ZONE] = config.zone
        return config, document


class ConfigFile(LoadedFile):
    """A path to a config file, without the document in which it is written."""

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> Any:
        if isinstance(value, Config):
            return value
        config, _ = super().convert(value, param, ctx)
        return config


class Moment(click.ParamType[datetime]):
    """A time: an age, or a date with or without a time, in `time_zone` unless it has a zone."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        read = payload.moment(value, zone=zone())
        if read is not None:
            return read
        try:
            return wall() - units.duration(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r}: write 2h or 3d (ago), 2026-11-24 or 2026-11-24T09:00Z", param)


class Age(click.ParamType[timedelta]):
    """A length of time such as 90d."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> timedelta:
        try:
            age = units.duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param)
        if not timedelta() < age <= LONGEST_AGE:
            self.fail(f"{value!r}: more than 0s, at most {LONGEST_AGE.days}d", param)
        return age


class Rate(click.ParamType[RateLimit]):
    """A count in any span of time, such as 100/10s."""

    name = "rate"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> RateLimit:
        try:
            return units.rate(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param)


class Text(click.ParamType[str]):
    """Text without characters that a database cannot hold."""

    name = "text"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> str:
        text = payload.clean(str(value)).strip()
        if not text:
            self.fail("is empty", param)
        return text


class Number(Text):
    """A phone number, in any form."""

    name = "number"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        return payload.number(text) or text


def os_user() -> str:
    """Return the user of this process from the system, not from the environment."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def with_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds *options*, in the order in which the help shows them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_config_option = partial(
    click.option,
    "--config",
    default=FILE,
    envvar=VARIABLE,
    show_default=True,
    show_envvar=True,
    # Times on the command line are in the time zone that it names.
    is_eager=True,
    help="YAML file with endpoints, destinations and routes.",
)
config_option = _config_option(type=ConfigFile())
#: For commands that deliver nothing themselves: destinations may lack their secrets.
receiving_option = _config_option(type=ConfigFile(Need.ENDPOINTS))
#: For commands that need no secrets of destinations or endpoints.
secretless_option = _config_option(type=ConfigFile(Need.NO_SECRETS))
#: For commands that only work on the store.
store_option = _config_option(type=ConfigFile(Need.STORE))
loaded_option = _config_option("loaded", type=LoadedFile())
config_path_option = _config_option("path", type=click.Path(path_type=Path))
who_option = click.option(
    "--who", type=Text(), default=os_user, help="Who does this; default: you."
)
PERSON = (
    click.option("--why", type=Text(), help="Why you do this; kept with the action."),
    who_option,
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
hide_text_option = click.option(
    "--hide-text", is_flag=True, help="Leave out what customers and the business wrote."
)
limit_option = click.option(
    "--limit", type=click.IntRange(1, 2**31 - 1), help="Show only the newest of them."
)


def confirm(question: str, *, look: str = "", err: bool = False) -> None:
    """Ask whether to continue, and end if not; without a terminal, name the option that does.

    *look* is the option that shows what would happen, if the command has one.
    """
    if not sys.stdin.isatty():
        first = f", or {look} to look first" if look else ""
        raise click.UsageError(f"{question} Add --yes to continue without being asked{first}.")
    click.confirm(question, abort=True, err=err)


def require_certificate(config: Config, document: Document) -> None:
    """Make sure that the certificate can be served. Raises :class:`ConfigError`."""
    if config.tls is None:
        return
    try:
        certificates.read(config.tls, now=wall()).close()
    except Unfit as error:
        fault = document.at(("tls", error.key), str(error))
        raise ConfigError(document.path, [fault]) from error


def opened(config: Config, *, make: bool = True) -> Database:
    """Open the store and bring its tables up to date; *make* it if there is none yet.

    It is closed when the command has ended.
    """
    try:
        database = migrations.opened(config, make=make)
    except NoTables as error:
        raise _no_store(config) from error
    except (Unusable, StoreUnavailable) as error:
        raise click.ClickException(str(error)) from error
    if context := click.get_current_context(silent=True):
        context.call_on_close(database.close)
    return database


def existing(config: Config) -> Database:
    """Open the store for a command that needs what is in it, and never makes one."""
    if is_missing(config.store):
        raise _no_store(config)
    return opened(config, make=False)


def _no_store(config: Config) -> NoStore:
    return NoStore(f"{config.store_name}: no store yet: start gofax-relay serve")


def queries_of(config: Config) -> Queries:
    """Return the queries of the store of *config*, which must exist."""
    return Queries(existing(config), tell=_note)


def _note(said: str, time: datetime | None) -> None:
    """Tell what a person should know of a search, beside what it found."""
    click.echo(f"note: {said.format(time=time and shown_time(time))}", err=True)
