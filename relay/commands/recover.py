"""The commands that mend what did not arrive: list, resend, replay, settle, pause."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial, wraps
from typing import Any, cast

import click

from relay.acts import bulk as acts
from relay.acts import recovering
from relay.acts.recovering import End
from relay.commands import bulk
from relay.commands.bulk import BulkOptions
from relay.commands.filters import (
    EVENT_FILTERS,
    check_span,
    point_out_destinations,
    point_out_endpoint,
)
from relay.commands.options import (
    PERSON,
    Age,
    Command,
    Rate,
    Text,
    existing,
    json_option,
    limit_option,
    opened,
    secretless_option,
    store_option,
    with_options,
)
from relay.commands.running import point_out_changes
from relay.commands.stopped import show_groups, show_stopped
from relay.commands.times import shown_time
from relay.config.effective import version_if_complete
from relay.config.model import Config
from relay.rules import recovery
from relay.rules.delivery import State
from relay.rules.recovery import FoundDelivery
from relay.shapes.words import count
from relay.store import Queries, Recovery
from relay.store.search import STOPPED, Filter
from relay.store.undo import Acts

#: A destination's faults show in deliveries that have not been delivered.
_UNFINISHED = tuple(state for state in State if state is not State.DELIVERED)


def _states(*choices: State) -> Callable[[Command], Command]:
    return click.option(
        "--state",
        "states",
        type=click.Choice([state.value for state in choices]),
        multiple=True,
        help="Only in this state; repeatable.",
    )


_DELIVERY_FILTERS = (
    click.option(
        "--destination",
        "destinations",
        type=Text(),
        multiple=True,
        help="Only this destination; repeatable.",
    ),
    click.option("--reason", type=Text(), help="Only this whole reason; * stands for anything."),
)
_BULK = (
    click.option("--dry-run", is_flag=True, help="Show what would happen; change nothing."),
    click.option("--rate", type=Rate(), help="At most this many, such as 100/10s."),
    click.option("--yes", is_flag=True, help="Do not ask whether to continue."),
)


def _with_filter(command: Command) -> Command:
    """Pack the options of a filter into one value, *which*."""

    @wraps(command)
    def packed(*, states: Sequence[str] = (), type_: str | None, **given: Any) -> None:
        names = ("destinations", "reason", "since", "until", "endpoint", "customer")
        of_filter = {name: given.pop(name) for name in names if name in given}
        check_span(of_filter.get("since"), of_filter.get("until"))
        point_out_endpoint(given["config"], of_filter.get("endpoint"))
        given["which"] = Filter(
            states=tuple(State(state) for state in states), type=type_, **of_filter
        )
        command(**given)

    return packed


def _with_bulk_options(command: Command) -> Command:
    """Pack who, why and how into one value, *options*."""

    @wraps(command)
    def packed(**given: Any) -> None:
        names = ("who", "why", "as_json", "dry_run", "yes", "rate")
        given_options = {name: given.pop(name) for name in names if name in given}
        command(options=BulkOptions(**given_options), **given)

    return packed


@click.command()
@store_option
@_states(*STOPPED)
@with_options(*_DELIVERY_FILTERS, *EVENT_FILTERS, json_option, limit_option)
@click.option("--group", is_flag=True, help="Count by destination and reason.")
@_with_filter
def dead(config: Config, which: Filter, as_json: bool, limit: int | None, group: bool) -> None:
    """List dead and held deliveries, oldest first.

    \b
    Examples: gofax-relay dead --group
              gofax-relay dead --destination crm --since 2d
              gofax-relay dead --reason 'refused: *' --json
    """
    point_out_destinations(config, which.destinations)
    database = existing(config)
    store = Recovery(database)
    which = replace(which, states=which.states or STOPPED)
    if group:
        show_groups(store.groups(which)[:limit], as_json=as_json)
        return
    stopped = (each for page in store.pages(which) for each in page)
    shown = deque(stopped, maxlen=limit) if limit else stopped
    show_stopped(Queries(database), shown, as_json=as_json)


@click.command()
@click.argument("names", nargs=-1, type=Text(), metavar="[DELIVERY|EVENT|MESSAGE_ID]...")
@store_option
@_states(State.DEAD, State.HELD, State.PENDING, State.DELIVERED)
@with_options(*_DELIVERY_FILTERS, *EVENT_FILTERS)
@click.option("--all-dead", is_flag=True, help="Every dead delivery.")
@click.option("--again", is_flag=True, help="Also delivered ones: makes a second effect.")
@with_options(*_BULK, *PERSON, json_option)
@_with_filter
@_with_bulk_options
def resend(
    config: Config,
    names: Sequence[str],
    which: Filter,
    options: BulkOptions,
    all_dead: bool,
    again: bool,
) -> None:
    """Give deliveries a new series of attempts.

    Name deliveries or events, or give a filter. An event stands for its newest delivery to each
    destination. A filter selects dead deliveries unless --state says otherwise.

    A dead delivery that is sent again is late: it goes outside the order of its conversation. A
    held delivery that stops its conversation goes in its place.

    \b
    Examples: gofax-relay resend abc123 --why 'the token was wrong'
              gofax-relay resend dlv_0193a1b2c3d4…
              gofax-relay resend --destination crm --reason 'refused: answered 400*' --dry-run
              gofax-relay resend --all-dead --rate 100/10s
    """
    point_out_destinations(config, which.destinations)
    database = existing(config)
    point_out_changes(config, database)
    store = Recovery(database)
    decide = recovering.resending(store, again=again)
    if names:
        _refuse_filters(replace(which, destinations=(), states=()), all_dead=all_dead)
        found = bulk.found(store.deliveries_named, names)
        meant = {name: _meant(each, which) for name, each in found.items()}
        bulk.by_name(store, meant, decide, options)
        return
    which = _bulk_filter(which, all_dead=all_dead, again=again)
    act = acts.resend(
        store,
        which,
        options.person,
        again=again,
        rate=options.rate,
        dry_run=options.dry_run,
        show=partial(bulk.show_changes, options=options, show=options.dry_run),
    )
    _confirm(store, which, options, question="Resend ", total=act.progress.total)
    bulk.by_page(act, options)


@click.command()
@click.argument("names", nargs=-1, type=Text(), metavar="[EVENT|MESSAGE_ID]...")
@secretless_option
@click.option(
    "--destination",
    "only",
    type=Text(),
    multiple=True,
    help="Add deliveries to this destination only; repeatable.",
)
@with_options(*EVENT_FILTERS)
@click.option("--again", is_flag=True, help="Also where it was delivered: makes a second effect.")
@with_options(*_BULK, *PERSON, json_option)
@_with_filter
@_with_bulk_options
def replay(
    config: Config,
    names: Sequence[str],
    only: Sequence[str],
    which: Filter,
    options: BulkOptions,
    again: bool,
) -> None:
    """Send events through today's routes, and add missing deliveries.

    Shows for each event its destinations when it came and today. Delivered ones are left alone
    unless you add --again. New deliveries are late: they go outside the order of their
    conversation.

    \b
    Examples: gofax-relay replay abc123 --dry-run
              gofax-relay replay --since 2026-11-24 --destination helpdesk --rate 60/60s
    """
    point_out_destinations(config, only)
    database = existing(config)
    point_out_changes(config, database)
    store = Recovery(database)
    options = replace(options, config=version_if_complete(config))
    if names:
        _refuse_filters(which)
        found = bulk.found(store.event_named, names)
        decide = recovering.replaying(config, only=only, again=again)
        bulk.replay_by_name(store, found.values(), decide, options)
        return
    if which == Filter():
        raise click.UsageError("name events, or give a filter such as --since 2d")
    act = acts.replay(
        config,
        store,
        which,
        options.person,
        only=only,
        again=again,
        rate=options.rate,
        dry_run=options.dry_run,
        show=partial(bulk.show_replays, options=options, show=options.dry_run),
    )
    total = act.progress.total
    events = count(total, "event", "events")
    options.confirm(f"Replay {events} through today's routes?", number=total)
    bulk.by_page(act, options)


@click.command()
@click.argument("names", nargs=-1, type=Text(), metavar="[DELIVERY]...")
@store_option
@click.option(
    "--as",
    "end",
    type=click.Choice([State.DELIVERED.value, State.DEAD.value]),
    required=True,
    help="How it ended.",
)
@_states(State.HELD, State.DEAD, State.PENDING)
@with_options(*_DELIVERY_FILTERS, *EVENT_FILTERS, *_BULK, *PERSON, json_option)
@_with_filter
@_with_bulk_options
def settle(
    config: Config, names: Sequence[str], end: str, which: Filter, options: BulkOptions
) -> None:
    """Say how a delivery ended: one that is held, dead, or waiting for its next attempt.

    A conversation that waited for it goes on. A filter selects held deliveries unless --state says
    otherwise.

    \b
    Examples: gofax-relay settle dlv_0193a1b2c3d4… --as delivered --why 'it is in the ticket'
              gofax-relay settle --destination chat --since 2d --as dead --dry-run
    """
    point_out_destinations(config, which.destinations)
    store = Recovery(existing(config))
    ended = cast(End, State(end))
    if names:
        _refuse_filters(which)
        found = bulk.found(partial(recovering.one_delivery, store), names)
        bulk.by_name(store, found, partial(recovery.settle, end=ended), options)
        return
    if which == Filter():
        raise click.UsageError("name deliveries, or give a filter such as --destination crm")
    which = replace(which, states=which.states or (State.HELD,))
    act = acts.settle(
        store,
        which,
        options.person,
        end=ended,
        rate=options.rate,
        dry_run=options.dry_run,
        show=partial(bulk.show_changes, options=options, show=options.dry_run),
    )
    _confirm(store, which, options, question=f"Settle as {end}: ", total=act.progress.total)
    bulk.by_page(act, options)


@click.command()
@click.argument("names", nargs=-1, type=Text(), metavar="[DESTINATION]...")
@store_option
@click.option("--for", "length", type=Age(), help="Serve it again after this time, such as 2h.")
@_states(*_UNFINISHED)
@with_options(*_DELIVERY_FILTERS, *EVENT_FILTERS, *PERSON)
@_with_filter
def pause(
    config: Config,
    names: Sequence[str],
    length: timedelta | None,
    which: Filter,
    who: str,
    why: str | None,
) -> None:
    """Deliver nothing to DESTINATION until it is resumed; new deliveries wait.

    A filter means the destinations of all deliveries that it selects and that are not delivered.

    \b
    Examples: gofax-relay pause helpdesk --for 2h --why maintenance
              gofax-relay pause --reason 'refused: answered 400*' --since 1h
    """
    _check_choice(names, which)
    _check_destinations(names, config.destinations)
    # A destination may be paused before the relay starts for the first time.
    store = Recovery(opened(config) if names else existing(config))
    options = BulkOptions(who=who, why=why, as_json=False)
    paused = []
    for name in names or _selected(store, which):
        act = options.person.act(store.clock())
        until = act.at + length if length else None
        ends = f" until {shown_time(until)}" if until else ""
        if store.pause(name, act, until=until):
            click.echo(f"{name} is paused{ends}; new deliveries wait")
            paused.append(name)
        else:
            click.echo(f"{name} is already paused")
    options.say_end(changed=len(paused) > 1)


@click.command()
@click.argument("names", nargs=-1, type=Text(), metavar="[DESTINATION]...")
@store_option
@_states(*_UNFINISHED)
@with_options(*_DELIVERY_FILTERS, *EVENT_FILTERS, *PERSON)
@_with_filter
def resume(config: Config, names: Sequence[str], which: Filter, who: str, why: str | None) -> None:
    """Deliver to DESTINATION again, whatever paused it.

    A filter means the destinations of all deliveries that it selects and that are not delivered.

    \b
    Examples: gofax-relay resume helpdesk
              gofax-relay resume --state pending --since 2d
    """
    _check_choice(names, which)
    store = Recovery(existing(config))
    _check_destinations(names, [*config.destinations, *store.paused()])
    options = BulkOptions(who=who, why=why, as_json=False)
    for name in names or _selected(store, which):
        cause = store.resume(name, options.person.act(store.clock()))
        if cause is None:
            click.echo(f"{name} is not paused")
        else:
            click.echo(f"{name} is served again (it was paused: {cause})")


@click.command()
@click.argument("name", type=Text(), metavar="ACT")
@store_option
@with_options(*_BULK, *PERSON, json_option)
@_with_bulk_options
def undo(config: Config, name: str, options: BulkOptions) -> None:
    """Take back what a resend, replay, settle or pause did, where nothing was sent since.

    ACT is the name that the command printed. A delivery that was tried or changed since is left as
    it is. So is one whose conversation went on.

    \b
    Examples: gofax-relay undo act_0193a1b2c3d4… --dry-run
              gofax-relay undo act_0193a1b2c3d4… --yes
    """
    database = existing(config)
    store, known = Recovery(database), Acts(database)
    total = bulk.found(known.count, [name])[name]
    options = replace(options, is_undo=True)
    served = recovering.serve_again(store, known, name, options.person, dry_run=options.dry_run)
    for destination in served:
        options.say(f"{destination}: {'would be' if options.dry_run else 'is'} served again")
    if not total:
        options.say_end(changed=False)
        return
    options.confirm(f"Take back {count(total, 'change', 'changes')}?", number=total)
    act = acts.undo(
        store,
        known,
        name,
        options.person,
        rate=options.rate,
        dry_run=options.dry_run,
        show=partial(bulk.show_changes, options=options, show=options.dry_run),
    )
    bulk.by_page(act, options)


def _check_choice(names: Sequence[str], which: Filter) -> None:
    """Make sure that destinations are either named, or meant by a filter."""
    if names:
        _refuse_filters(which)
    elif which == Filter():
        raise click.UsageError("name destinations, or give a filter such as --since 2h")


def _check_destinations(names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            have = ", ".join(known) or "none"
            raise click.UsageError(f'no destination named "{name}" (have: {have})')


def _selected(store: Recovery, which: Filter) -> Sequence[str]:
    """Return the destinations that a filter means."""
    found = store.destinations(replace(which, states=which.states or _UNFINISHED))
    if not found:
        click.echo("no delivery is meant: nothing was changed", err=True)
    return found


def _meant(deliveries: Sequence[FoundDelivery], which: Filter) -> Sequence[FoundDelivery]:
    """Return those of *deliveries* that are in the destinations and states that *which* names."""
    return [
        each
        for each in deliveries
        if (not which.destinations or each.destination in which.destinations)
        and (not which.states or each.state in which.states)
    ]


def _refuse_filters(which: Filter, *, all_dead: bool = False) -> None:
    if which != Filter() or all_dead:
        raise click.UsageError("give names or a filter, not both")


def _bulk_filter(which: Filter, *, all_dead: bool, again: bool) -> Filter:
    """Complete a filter: dead deliveries, unless it names states."""
    if which == Filter() and not all_dead:
        raise click.UsageError(
            "name deliveries or events, give a filter such as --destination crm, or --all-dead"
        )
    if all_dead and which.states:
        raise click.UsageError("give --all-dead or --state, not both")
    if State.DELIVERED in which.states and not again:
        raise click.UsageError("--state delivered makes second effects: add --again")
    return replace(which, states=which.states or (State.DEAD,))


def _confirm(
    store: Recovery, which: Filter, options: BulkOptions, *, question: str, total: int
) -> None:
    """Ask whether to do it to what *which* selects."""
    if total and not options.yes and not options.dry_run:
        for group in store.groups(which)[:5]:
            options.say(f"{group.number:>8,}  {group.destination}  {group.reason}")
    deliveries = count(total, "delivery", "deliveries")
    options.confirm(f"{question}{deliveries}?", number=total)
