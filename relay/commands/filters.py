"""Options that say which events, requests or deliveries a person means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, Literal

import click

from relay.commands.options import Command, Moment, Number, Text, json_option, limit_option
from relay.config.model import Config
from relay.rules import text
from relay.rules.delivery import State
from relay.rules.text import FEWEST_DIGITS
from relay.rules.wording import Wording
from relay.store.search import Filter

#: How a listing is printed.
Format = Literal["table", "json", "csv"]


class NumberEnd(Text):
    """A customer's number in any form, or its last digits, as :func:`text.ending` writes it."""

    name = "number"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> str:
        ending = text.ending(super().convert(value, param, ctx))
        if not ending:
            self.fail(f"{value!r}: write a number, its last digits, or a name", param)
        if ending.isdigit() and len(ending) < FEWEST_DIGITS:
            self.fail(f"{value!r}: too many numbers end so: {FEWEST_DIGITS} digits or more", param)
        return ending


class Words(Text):
    """Words of a text, the last of which may be the beginning of one."""

    name = "words"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> Any:
        wording = Wording.of(super().convert(value, param, ctx))
        if wording is None:
            self.fail(f"{value!r}: nothing to search for: write a word or a number", param)
        return wording


EVENT_FILTERS = (
    click.option(
        "--since",
        type=Moment(),
        help="Only events received since: 2h or 3d (ago), 2026-11-24, 2026-11-24T09:00Z.",
    ),
    click.option("--until", type=Moment(), help="Only events received before."),
    click.option("--endpoint", type=Text(), help="Only events of this endpoint."),
    click.option("--customer", type=Number(), help="Only events of this customer's number."),
    click.option("--type", "type_", type=Text(), help="Only events of this type (SMS_REPLY)."),
)
text_option = click.option(
    "--text",
    "wording",
    type=Words(),
    help="Only those with all of these words, the last of which may go on.",
)
FORMATS = (
    json_option,
    click.option("--csv", "as_csv", is_flag=True, help="Print a table for a spreadsheet."),
)


def listing(*standings: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of a listing of what has one of *standings*.

    The command is given them as *which*, *format*, *limit* and *follow*.
    """
    options = (
        click.option("--customer", "ending", type=NumberEnd(),
                     help="Only those of this customer: a number or its last digits."),
        text_option,
        click.option("--message-id", type=Text(), help="Only those with this messageId."),
        click.option("--since", type=Moment(),
                     help="Only those since: 2h or 3d (ago), 2026-11-24, 2026-11-24T09:00Z."),
        click.option("--until", type=Moment(), help="Only those before."),
        click.option("--destination", "destinations", type=Text(), multiple=True,
                     help="Only those with a delivery to this destination; repeatable."),
        click.option("--state", "states", type=click.Choice([each.value for each in State]),
                     multiple=True, help="Only those with a delivery in this state; repeatable."),
        click.option("--type", "type_", type=Text(), help="Only those of this type (SMS_REPLY)."),
        click.option("--endpoint", type=Text(), help="Only those of this endpoint."),
        click.option("--standing", "standings", type=click.Choice(standings), multiple=True,
                     help="Only those that became this; repeatable."),
        click.option("--follow", is_flag=True, help="Go on showing what comes, until Ctrl-C."),
        *FORMATS,
        limit_option,
    )  # fmt: skip

    def decorate(command: Command) -> Command:
        @wraps(command)
        def packed(
            *, as_json: bool, as_csv: bool, states: Sequence[str], type_: str | None, **given: Any
        ) -> None:
            names = (
                "ending", "wording", "message_id", "since", "until", "destinations", "endpoint",
                "standings",
            )  # fmt: skip
            of_filter = {name: given.pop(name) for name in names}
            check_span(of_filter["since"], of_filter["until"])
            point_out_endpoint(given["config"], of_filter["endpoint"])
            point_out_destinations(given["config"], of_filter["destinations"])
            which = Filter(states=tuple(map(State, states)), type=type_, **of_filter)
            command(which=which, format=format_of(as_json=as_json, as_csv=as_csv), **given)

        for option in reversed(options):
            packed = option(packed)
        return packed

    return decorate


def format_of(*, as_json: bool, as_csv: bool) -> Format:
    """Return how to print a listing."""
    if as_json and as_csv:
        raise click.UsageError("give --json or --csv, not both")
    return "json" if as_json else "csv" if as_csv else "table"


def point_out_destinations(config: Config, names: Sequence[str]) -> None:
    for name in names:
        if name not in config.destinations:
            have = ", ".join(config.destinations) or "none"
            click.echo(
                f'note: no destination named "{name}" in the config (have: {have})', err=True
            )


def check_span(since: datetime | None, until: datetime | None) -> None:
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since is not before --until: nothing is between them")


def point_out_endpoint(config: Config, name: str | None) -> None:
    have = [each.name for each in config.endpoints]
    if name is not None and name not in have:
        click.echo(
            f'note: no endpoint named "{name}" in the config (have: {", ".join(have)})', err=True
        )
