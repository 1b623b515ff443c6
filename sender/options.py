"""How the values of options are read, and the options that commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from sender.delivery import DEFAULT_TIMEOUT, check_url
from sender.errors import SenderError

F = TypeVar("F", bound=Callable[..., Any])


def text(value: str) -> str:
    """Take what UTF-8 can carry; an argument in another encoding arrives broken."""
    if any("\ud800" <= each <= "\udfff" for each in value):
        raise click.BadParameter("is not UTF-8: check the encoding of the terminal")
    return value


def url(value: str) -> str:
    """Take an http or https URL."""
    try:
        check_url(value)
    except SenderError as error:
        raise click.BadParameter(str(error)) from error
    return value


def secret(value: str) -> str:
    """Take any secret but an empty one."""
    if not value:
        raise click.BadParameter("is empty: give a secret, or leave the option out")
    return value


def credentials(value: str) -> str:
    """Take ``user:password``."""
    if ":" not in value:
        raise click.BadParameter("has no colon: give user:password")
    return value


def seconds(value: str | float) -> float:
    """Take a time-out."""
    number = _number(str(value))
    if not 0 < number <= 3600:
        raise click.BadParameter(f"{value!r} is no time-out: give seconds up to 3600, like 2.5")
    return number


def rate(value: str) -> float:
    """Take how many a second, as ``5/s`` or ``5``."""
    number = _number(value.removesuffix("/s"))
    if not 0.001 <= number < math.inf:
        raise click.BadParameter(f"{value!r} is no rate: give a number a second, like 5/s")
    return number


def _number(value: str) -> float:
    return float(value) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value, re.ASCII) else math.nan


def target_options(command: F) -> F:
    """Add what every command that posts has in common."""
    for option in reversed(_TARGET_OPTIONS):
        command = option(command)
    return command


_TARGET_OPTIONS = (
    click.option("--url", type=url, metavar="URL", help="The endpoint to post to."),
    click.option(
        "--secret",
        type=secret,
        metavar="S",
        envvar="GOFAX_SIGNING_SECRET",
        show_envvar=True,
        help="Signing secret; without one, nothing is signed.",
    ),
    click.option(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        default=DEFAULT_TIMEOUT,
        show_default=True,
        help="For the whole call, from connecting to the end of the answer.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print an object a line."),
)
