"""Options: how their values are read, and those that commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from sender.attempt import Retries, Target
from sender.delivery import DEFAULT_TIMEOUT, check_url
from sender.errors import SenderError
from sender.profiles import Profile
from sender.store import IN_MEMORY, NoStore, Store, StoreError
from sender.trust import Trust

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
        raise click.BadParameter(f"{value!r} is not a time-out: give seconds up to 3600, like 2.5")
    return number


def rate(value: str) -> float:
    """Take how many a second, as ``5/s`` or ``5``."""
    number = _number(value.removesuffix("/s"))
    if not 0.001 <= number < math.inf:
        raise click.BadParameter(f"{value!r} is not a rate: give a number a second, like 5/s")
    return number


def _number(value: str) -> float:
    return float(value) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value, re.ASCII) else math.nan


def moment(value: str) -> datetime:
    """Take a time, or how long ago it was: ``2026-11-24``, ``2026-11-24T09:30``, ``90m``."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", value, re.ASCII)
    if found:
        return datetime.now(UTC) - int(found[1]) * _UNITS[found[2]]
    try:
        read = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a time: give one like 2026-11-24T09:30, or how long ago: 90m, 7d"
        ) from error
    return read.astimezone(UTC)


def statuses(value: str) -> tuple[int, int]:
    """Take a status or a class of them: ``503``, ``5xx``."""
    if re.fullmatch(r"[1-5]xx", value):
        return int(value[0]) * 100, int(value[0]) * 100 + 99
    if re.fullmatch(r"[1-5][0-9][0-9]", value, re.ASCII):
        return int(value), int(value)
    raise click.BadParameter(f"{value!r} is not a status: give one like 503, or 5xx")


@dataclass(frozen=True, kw_only=True, slots=True)
class Aim:
    """Where to post, and how, as the options say."""

    url: str | None
    secret: str | None = field(repr=False)
    timeout: float
    trust: Trust

    def target(self, **more: Any) -> Target:
        """Return the target that ``--url`` names; there must be one."""
        assert self.url is not None
        return Target(
            url=self.url, secret=self.secret, timeout=self.timeout, trust=self.trust, **more
        )

    def target_of(self, profile: Profile) -> Target:
        """Return the target that *profile* is, with its own credentials."""
        return Target(
            url=profile.url,
            secret=profile.secret,
            basic=profile.basic,
            timeout=self.timeout,
            trust=self.trust,
            profile=profile.name,
        )


def target_options(command: F) -> F:
    """Add the options of every command that posts; they come as an ``aim``."""

    @wraps(command)
    def aimed(
        *args: Any,
        url: str | None,
        secret: str | None,
        timeout: float,
        ca: Path | None,
        insecure: bool,
        **rest: Any,
    ) -> Any:
        if ca and insecure:
            raise click.UsageError("--ca and --insecure exclude each other: leave one out")
        trust = Trust(ca=ca, insecure=insecure)
        if ca:
            _checked(trust)
        return command(
            *args, aim=Aim(url=url, secret=secret, timeout=timeout, trust=trust), **rest
        )

    return _with(_TARGET_OPTIONS, cast(F, aimed))


def retry_options(command: F) -> F:
    """Add the options of retries; they come as ``retries``."""

    @wraps(command)
    def retrying(*args: Any, retries: int, retry_wait: float, **rest: Any) -> Any:
        return command(*args, retries=Retries(count=retries, wait=retry_wait), **rest)

    return _with(_RETRY_OPTIONS, cast(F, retrying))


def store_option(command: F) -> F:
    """Add the option of the store, which comes open as ``store``."""

    @wraps(command)
    def stored(*args: Any, store_file: Path | None, **rest: Any) -> Any:
        with Store(_chosen(store_file)) as store:
            return command(*args, store=store, **rest)

    return _with([_STORE_OPTION], cast(F, stored))


def log_option(command: F) -> F:
    """Like :func:`store_option`, for a command that works without: only a wrong file ends it."""

    @wraps(command)
    def stored(*args: Any, store_file: Path | None, **rest: Any) -> Any:
        try:
            opened = Store(_chosen(store_file))
        except NoStore:
            raise
        except StoreError as error:
            click.echo(f"not kept: {error}", err=True)
            opened = Store(IN_MEMORY)
        with opened as store:
            return command(*args, store=store, **rest)

    return _with([_STORE_OPTION], cast(F, stored))


def default_store() -> Path:
    """Return this user's file, in the system's folder for applications."""
    return Path(click.get_app_dir("gofax-sender")) / "sender.db"


def _chosen(given: Path | None) -> Path:
    context = click.get_current_context()
    if context.parent and context.get_parameter_source("store_file") is not _COMMANDLINE:
        # gofax-sender log --store FILE show 1
        given = context.parent.params.get("store_file") or given
    return given or default_store()


def _checked(trust: Trust) -> None:
    try:
        trust.context()
    except SenderError as error:
        raise click.BadParameter(str(error), param_hint="--ca") from error


def _with(options: Sequence[Callable[[F], F]], command: F) -> F:
    for option in reversed(options):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print an object a line.")

_COMMANDLINE = click.core.ParameterSource.COMMANDLINE
_STORE_OPTION = click.option(
    "--store",
    "store_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    envvar="GOFAX_SENDER_STORE",
    show_envvar=True,
    help="File of profiles and log, instead of the one in your own folder.",
)
_TARGET_OPTIONS = (
    click.option("--url", type=url, metavar="URL", help="The endpoint to post to."),
    click.option(
        "--secret",
        type=secret,
        metavar="S",
        envvar="GOFAX_SIGNING_SECRET",
        show_envvar=True,
        help="Signing secret for --url; without one, nothing is signed.",
    ),
    click.option(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        default=DEFAULT_TIMEOUT,
        show_default=True,
        help="For the whole call, from connecting to the end of the answer.",
    ),
    click.option(
        "--ca",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="CA certificates to trust instead of the public ones.",
    ),
    click.option("--insecure", is_flag=True, help="Accept any TLS certificate. GoFax does not."),
)
_RETRY_OPTIONS = (
    click.option(
        "--retries",
        type=click.IntRange(0, 100),
        default=0,
        show_default=True,
        envvar="GOFAX_SENDER_RETRIES",
        show_envvar=True,
        help="Further tries after no answer, 429 or 5xx.",
    ),
    click.option(
        "--retry-wait",
        type=seconds,
        metavar="SECONDS",
        default=1.0,
        show_default=True,
        envvar="GOFAX_SENDER_RETRY_WAIT",
        show_envvar=True,
        help="Wait before the first retry; doubled for each further one.",
    ),
)
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
