"""The commands with which people mend what did not arrive: list, resend, replay, settle, pause."""

from __future__ import annotations

import os
import pwd
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial, wraps
from typing import Any, Literal, cast

import click

from relay.commands import bulk, output
from relay.commands.bulk import BulkOptions, count
from relay.commands.options import (
    Moment,
    Number,
    Rate,
    Words,
    config_option,
    json_option,
    limit_option,
    opened,
)
from relay.config.model import Config
from relay.rules import recovery, routing
from relay.rules.delivery import State
from relay.rules.recovery import FoundDelivery, FoundEvent
from relay.store import Recovery
from relay.store.search import STOPPED, Filter, Unknown

Command = Callable[..., None]


def _os_user() -> str:
    """Return who runs this process, as the system knows it, not as the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _states(*choices: State) -> Callable[[Command], Command]:
    return click.option(
        "--state",
        "states",
        type=click.Choice([state.value for state in choices]),
        multiple=True,
        help="Only those in this state; may be given more than once.",
    )


_OF_EVENTS = (
    click.option(
        "--since",
        type=Moment(),
        help="Only events received since: 2h or 3d (ago), 2026-11-24, 2026-11-24T09:00Z.",
    ),
    click.option("--until", type=Moment(), help="Only events received before."),
    click.option("--endpoint", type=Words(), help="Only events of the endpoint of this name."),
    click.option("--customer", type=Number(), help="Only events of this customer's number."),
    click.option("--type", "type_", type=Words(), help="Only events of this type (SMS_REPLY)."),
)
_OF_DELIVERIES = (
    click.option(
        "--destination",
        "destinations",
        type=Words(),
        multiple=True,
        help="Only this destination; may be given more than once.",
    ),
    click.option(
        "--reason", type=Words(), help="Only this reason, whole; * in it stands for anything."
    ),
)
_ACT = (
    click.option("--why", type=Words(), help="Why you do this; kept with what you did."),
    click.option("--who", type=Words(), default=_os_user, help="Who does this; default: you."),
)
_BULK = (
    click.option("--dry-run", is_flag=True, help="Show what would happen, and change nothing."),
    click.option("--rate", type=Rate(), help="At most so many, such as 100/10s."),
    click.option("--yes", is_flag=True, help="Do not ask whether to go on."),
)


def _with(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _filtered(command: Command) -> Command:
    """Pack the options of a filter into one value, *wanted*."""

    @wraps(command)
    def packed(*, states: Sequence[str] = (), type_: str | None, **given: Any) -> None:
        names = ("destinations", "reason", "since", "until", "endpoint", "customer")
        of_filter = {name: given.pop(name) for name in names if name in given}
        _check_span(of_filter.get("since"), of_filter.get("until"))
        _point_out_endpoint(given["config"], of_filter.get("endpoint"))
        given["wanted"] = Filter(
            states=tuple(State(state) for state in states), type=type_, **of_filter
        )
        command(**given)

    return packed


def _mannered(command: Command) -> Command:
    """Pack who, why and how into one value, *manner*."""

    @wraps(command)
    def packed(**given: Any) -> None:
        names = ("who", "why", "as_json", "dry_run", "yes", "rate")
        of_manner = {name: given.pop(name) for name in names if name in given}
        command(manner=BulkOptions(**of_manner), **given)

    return packed


@click.command()
@config_option
@_states(*STOPPED)
@_with(*_OF_DELIVERIES, *_OF_EVENTS, json_option, limit_option)
@click.option("--group", is_flag=True, help="Count them by destination and reason.")
@_filtered
def dead(config: Config, wanted: Filter, as_json: bool, limit: int | None, group: bool) -> None:
    """List the deliveries that are dead or held, oldest first.

    \b
    Examples: gofax-relay dead --group
              gofax-relay dead --destination crm --since 2d
              gofax-relay dead --reason 'refused: *' --json
    """
    desk = _desk(config, wanted.destinations)
    wanted = replace(wanted, states=wanted.states or STOPPED)
    if group:
        output.show_piles(desk.piles(wanted)[:limit], as_json=as_json)
        return
    cases = (case for page in desk.pages(wanted) for case in page)
    output.show_cases(deque(cases, maxlen=limit) if limit else cases, as_json=as_json)


@click.command()
@click.argument("names", nargs=-1, type=Words(), metavar="[DELIVERY|EVENT|MESSAGE_ID]...")
@config_option
@_states(State.DEAD, State.HELD, State.PENDING, State.DELIVERED)
@_with(*_OF_DELIVERIES, *_OF_EVENTS)
@click.option("--all-dead", is_flag=True, help="Everything that is dead.")
@click.option("--again", is_flag=True, help="Also what was delivered: makes a second effect.")
@_with(*_BULK, *_ACT, json_option)
@_filtered
@_mannered
def resend(
    config: Config,
    names: Sequence[str],
    wanted: Filter,
    manner: BulkOptions,
    all_dead: bool,
    again: bool,
) -> None:
    """Give deliveries a new series of attempts.

    Name deliveries or events (of an event: the newest delivery to each destination), or give a
    filter, which means what is dead unless --state says otherwise. What is sent again after it was
    dead is late: it goes outside of the order of its conversation. One that is held and stops its
    conversation takes its place again.

    \b
    Examples: gofax-relay resend abc123 --why 'the token was wrong'
              gofax-relay resend dlv_0193a1b2c3d4…
              gofax-relay resend --destination crm --reason 'refused: answered 400*' --dry-run
              gofax-relay resend --all-dead --rate 100/10s
    """
    desk = _desk(config, wanted.destinations)
    decide = partial(recovery.resend, again=again, now=desk.clock())
    if names:
        _refuse_filters(replace(wanted, destinations=(), states=()), all_dead=all_dead)
        found = bulk.found(desk.named, names)
        cases = {name: _meant(each, wanted) for name, each in found.items()}
        bulk.by_name(desk, cases, decide, manner)
        return
    wanted = _bulk_filter(wanted, all_dead=all_dead, again=again)
    total = _confirm_resend(desk, wanted, manner)

    def do(page: Sequence[FoundDelivery]) -> Sequence[bulk.Done]:
        steps = [decide(case) for case in page]
        return bulk.take_steps(desk, steps, manner, show=manner.dry_run)

    pages = desk.pages(wanted, size=manner.batch)
    bulk.by_page(pages, do, verb="resent", total=total, manner=manner)


@click.command()
@click.argument("names", nargs=-1, type=Words(), metavar="[EVENT|MESSAGE_ID]...")
@config_option
@click.option(
    "--destination",
    "only",
    type=Words(),
    multiple=True,
    help="Add deliveries to this destination only; may be given more than once.",
)
@_with(*_OF_EVENTS)
@click.option("--again", is_flag=True, help="Also to where it was delivered: a second effect.")
@_with(*_BULK, *_ACT, json_option)
@_filtered
@_mannered
def replay(
    config: Config,
    names: Sequence[str],
    only: Sequence[str],
    wanted: Filter,
    manner: BulkOptions,
    again: bool,
) -> None:
    """Send events through today's routes, and add the deliveries that are missing.

    Shows for each event where its routes sent it when it came and where those of today do. What
    was delivered is left alone unless you say --again. New deliveries are late: they go outside of
    the order of their conversation.

    \b
    Examples: gofax-relay replay abc123 --dry-run
              gofax-relay replay --since 2026-11-24 --destination helpdesk --rate 60/60s
    """
    desk = _desk(config, only)

    def decide(filed: FoundEvent) -> recovery.Replay:
        today = routing.match(filed.event, config.routes).destinations
        return recovery.replay(filed, today, only=only, again=again)

    if names:
        _refuse_filters(wanted)
        found = bulk.found(desk.filed, names)
        bulk.replay_by_name(desk, found.values(), decide, manner)
        return
    if wanted == Filter():
        raise click.UsageError("name events, or give a filter such as --since 2d")
    total = desk.count_events(wanted)
    events = count(total, "event", "events")
    manner.confirm(f"Replay {events} through today's routes?", number=total)

    def do(page: Sequence[FoundEvent]) -> Sequence[bulk.Done]:
        replays = [decide(filed) for filed in page]
        return bulk.take_replays(desk, replays, manner, show=manner.dry_run)

    pages = desk.event_pages(wanted, size=manner.batch)
    bulk.by_page(pages, do, verb="added", total=total, manner=manner)


@click.command()
@click.argument("names", nargs=-1, required=True, type=Words(), metavar="DELIVERY...")
@config_option
@click.option(
    "--as",
    "end",
    type=click.Choice([State.DELIVERED.value, State.DEAD.value]),
    required=True,
    help="How it ended.",
)
@click.option("--dry-run", is_flag=True, help="Show what would happen, and change nothing.")
@_with(*_ACT, json_option)
@_mannered
def settle(config: Config, names: Sequence[str], end: str, manner: BulkOptions) -> None:
    """Say how a delivery ended that is held, dead, or being tried again.

    Its conversation goes on if it waited for that.

    \b
    Examples: gofax-relay settle dlv_0193a1b2c3d4… --as delivered --why 'it is in the ticket'
              gofax-relay settle dlv_0193a1b2c3d4… --as dead
    """
    desk = _desk(config)
    decide = partial(recovery.settle, end=cast(Literal[State.DELIVERED, State.DEAD], State(end)))
    found = bulk.found(partial(_one, desk), names)
    bulk.by_name(desk, found, decide, manner)


@click.command()
@click.argument("destination", type=Words())
@config_option
@_with(*_ACT)
def pause(config: Config, destination: str, who: str, why: str | None) -> None:
    """Deliver nothing to DESTINATION until it is resumed; what comes for it waits.

    \b
    Example: gofax-relay pause helpdesk --why 'maintenance until 6 pm'
    """
    desk = _desk(config)
    _check_destination(destination, config.destinations)
    manner = BulkOptions(who=who, why=why, as_json=False)
    if desk.pause(destination, manner.act(desk)):
        click.echo(f"{destination} is paused; what comes for it waits")
    else:
        click.echo(f"{destination} is paused already")


@click.command()
@click.argument("destination", type=Words())
@config_option
@_with(*_ACT)
def resume(config: Config, destination: str, who: str, why: str | None) -> None:
    """Deliver to DESTINATION again, whoever or whatever paused it.

    \b
    Example: gofax-relay resume helpdesk
    """
    desk = _desk(config)
    _check_destination(destination, [*config.destinations, *desk.paused()])
    manner = BulkOptions(who=who, why=why, as_json=False)
    cause = desk.resume(destination, manner.act(desk))
    if cause is None:
        click.echo(f"{destination} is not paused")
    else:
        click.echo(f"{destination} is served again (it was paused: {cause})")


def _desk(config: Config, destinations: Sequence[str] = ()) -> Recovery:
    """Open the store; point out destinations that only it may know."""
    for name in destinations:
        if name not in config.destinations:
            have = ", ".join(config.destinations) or "none"
            click.echo(
                f'note: no destination named "{name}" in the config (have: {have})', err=True
            )
    return Recovery(opened(config))


def _check_span(since: datetime | None, until: datetime | None) -> None:
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since is not before --until: nothing can be between them")


def _point_out_endpoint(config: Config, name: str | None) -> None:
    have = [each.name for each in config.endpoints]
    if name is not None and name not in have:
        click.echo(
            f'note: no endpoint named "{name}" in the config (have: {", ".join(have)})', err=True
        )


def _check_destination(name: str, known: Mapping[str, Any] | Sequence[str]) -> None:
    if name not in known:
        have = ", ".join(known) or "none"
        raise click.UsageError(f'no destination named "{name}" (have: {have})')


def _one(desk: Recovery, name: str) -> Sequence[FoundDelivery]:
    """Find the one delivery that *name* means."""
    cases = desk.named(name)
    if len(cases) > 1:
        which = ", ".join(f"{case.id} ({case.destination}, {case.state})" for case in cases)
        raise Unknown(f'"{name}" has several deliveries, name one of {which}')
    return cases


def _meant(cases: Sequence[FoundDelivery], wanted: Filter) -> Sequence[FoundDelivery]:
    """Return those of *cases* that are in the destinations and states that are wanted."""
    return [
        case
        for case in cases
        if (not wanted.destinations or case.destination in wanted.destinations)
        and (not wanted.states or case.state in wanted.states)
    ]


def _refuse_filters(wanted: Filter, *, all_dead: bool = False) -> None:
    if wanted != Filter() or all_dead:
        raise click.UsageError("give names or a filter, not both")


def _bulk_filter(wanted: Filter, *, all_dead: bool, again: bool) -> Filter:
    """Return what a filter means: what is dead, unless it says more."""
    if wanted == Filter() and not all_dead:
        raise click.UsageError(
            "name deliveries or events, give a filter such as --destination crm, or --all-dead"
        )
    if all_dead and wanted.states:
        raise click.UsageError("give --all-dead or --state, not both")
    if State.DELIVERED in wanted.states and not again:
        raise click.UsageError("--state delivered makes second effects: add --again to want that")
    return replace(wanted, states=wanted.states or (State.DEAD,))


def _confirm_resend(desk: Recovery, wanted: Filter, manner: BulkOptions) -> int:
    """Ask whether to resend what *wanted* means, and return how many that are."""
    total = desk.count(wanted)
    if total and not manner.yes and not manner.dry_run:
        for pile in desk.piles(wanted)[:5]:
            manner.say(f"{pile.number:>8,}  {pile.destination}  {pile.reason}")
    deliveries = count(total, "delivery", "deliveries")
    manner.confirm(f"Resend {deliveries}?", number=total)
    return total
