"""The problems of a relay, and a try of the channels that tell of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from relay.clock import wall
from relay.commands.groups import Group, ListingGroup
from relay.commands.options import (
    PERSON,
    config_option,
    existing,
    json_option,
    store_option,
    with_options,
)
from relay.commands.output import print_json
from relay.commands.tables import Column, failure, print_lines, print_table, table_time
from relay.config.model import AlertChannel, Config
from relay.rules.problems import Problem
from relay.shapes.problems import problem_json, state_of
from relay.shapes.words import count
from relay.store.actions import Act
from relay.store.problems import Problems
from relay.telling import channels

_COLUMNS = (
    Column(name="opened", extra=2),
    Column(name="kind"),
    Column(name="subject", least=8),
    Column(name="state", extra=1),
    Column(name="problem", extra=3),
    Column(name="what is wrong", least=20, wraps=True),
)


@click.group(cls=ListingGroup)
def problems() -> None:
    """List what needs attention, and note who has taken it on.

    \b
    Examples: gofax-relay problems
              gofax-relay problems ack crm
    """


@problems.command("list")
@store_option
@json_option
@click.option(
    "--resolved", type=click.IntRange(1, 10_000), help="Show the newest resolved ones, too."
)
def list_(config: Config, as_json: bool, resolved: int | None) -> None:
    """List the open problems, oldest first. The default.

    \b
    Examples: gofax-relay problems
              gofax-relay problems --resolved 20
              gofax-relay problems --json | grep '"level":"error"'
    """
    store = Problems(existing(config))
    past = store.resolved(limit=resolved) if resolved else []
    _show([*past, *store.unresolved()], as_json=as_json)


@problems.command()
@store_option
@click.argument("names", nargs=-1, required=True, metavar="ID|SUBJECT|KIND…")
@with_options(*PERSON)
def ack(config: Config, names: Sequence[str], who: str, why: str | None) -> None:
    """Note that somebody knows: acknowledged problems are not told again until they are over.

    \b
    Examples: gofax-relay problems ack prb_01936f
              gofax-relay problems ack crm
              gofax-relay problems ack dead
    """
    database = existing(config)
    store = Problems(database)
    unresolved = store.unresolved()
    meant = [each for name in names for each in _named(unresolved, name)]
    store.acknowledge(meant, Act(who=who, why=why, at=database.clock()))
    print_lines([f"acknowledged: {each.said}" for each in meant])


@click.group(cls=Group)
def alerts() -> None:
    """Test the channels that send alerts.

    \b
    Example: gofax-relay alerts test
    """


@alerts.command()
@config_option
@click.argument("names", nargs=-1, metavar="[CHANNEL]…")
def test(config: Config, names: Sequence[str]) -> None:
    """Send a message to each channel (or those named), and say what became of it.

    \b
    Examples: gofax-relay alerts test
              gofax-relay alerts test mailto-1
    """
    if not config.alerts:
        raise failure("the config names no alerts: docs/watching.md shows how")
    chosen = [_channel(config, name) for name in names] or config.alerts
    failed = 0
    for channel in chosen:
        reason = channels.test(config, channel, at=wall())
        failed += bool(reason)
        print_lines([f"{channel.name}: {reason or 'sent'}"])
    if failed:
        raise failure(f"{count(failed, 'channel', 'channels')} failed")


def _channel(config: Config, name: str) -> AlertChannel:
    for each in config.alerts:
        if each.name == name:
            return each
    have = ", ".join(each.name for each in config.alerts)
    raise failure(f"no channel named {name} (have: {have})")


def _named(unresolved: Sequence[Problem], name: str) -> Sequence[Problem]:
    is_id = name.startswith("prb_")
    found = [
        each
        for each in unresolved
        if name in (each.subject, each.kind) or (is_id and each.id.startswith(name))
    ]
    if not found:
        raise failure(f"no open problem has the id, subject or kind {name}: gofax-relay problems")
    return found


def _show(found: Iterable[Problem], *, as_json: bool) -> None:
    if as_json:
        for each in found:
            print_json(problem_json(each))
        return
    rows = [
        {
            "opened": table_time(each.opened_at),
            "kind": each.kind.replace("_", " "),
            "subject": each.subject,
            "state": state_of(each),
            "problem": each.id,
            "what is wrong": each.said,
        }
        for each in found
    ]
    print_table(_COLUMNS, rows, empty="no problems")
