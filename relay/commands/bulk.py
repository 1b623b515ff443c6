"""Carries out resends and replays, by name or page by page: shown, counted and stoppable."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from relay.acts import recovering
from relay.acts.bulk import BulkAct
from relay.acts.person import Person
from relay.acts.recovering import Changed, Done, Replayed, UnknownNames
from relay.commands.options import FAILED, confirm
from relay.commands.output import print_json
from relay.commands.tables import failure, print_lines
from relay.rules.recovery import Change, FoundDelivery, FoundEvent, Replay, ReplayStep
from relay.rules.units import RateLimit
from relay.shapes.recovery import says_of, then_and_now
from relay.shapes.words import count
from relay.store import Recovery
from relay.store.ids import new_id

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class BulkOptions:
    """Who does it, why, and how."""

    who: str
    why: str | None
    as_json: bool
    dry_run: bool = False
    yes: bool = False
    rate: RateLimit | None = None
    #: The version of the config whose routes are used.
    config: str | None = None
    #: Names all that this command does, so that it can be undone.
    act_id: str = field(default_factory=partial(new_id, "act"))
    is_undo: bool = False

    @property
    def person(self) -> Person:
        return Person(who=self.who, why=self.why, config=self.config, act_id=self.act_id)

    def say(self, line: str) -> None:
        """Print a line for people; with --json it goes to standard error."""
        print_lines([line], err=self.as_json)

    def say_end(self, *, changed: bool) -> None:
        """Say that nothing was changed, or how to take back what was."""
        if self.dry_run:
            self.say("nothing was changed")
        elif changed and not self.is_undo:
            hint = f"to take back what has not been sent: gofax-relay undo {self.act_id}"
            print_lines([hint], err=True)

    def confirm(self, question: str, *, number: int) -> None:
        """Ask whether to continue, unless --yes was given or there is nothing to do."""
        if self.yes or self.dry_run or not number:
            return
        confirm(question, look="--dry-run", err=self.as_json)


def found(find: Callable[[str], T], names: Iterable[str]) -> dict[str, T]:
    """Find everything that is named, or fail with every name that is unknown."""
    try:
        return recovering.find(find, names)
    except UnknownNames as error:
        raise failure(str(error)) from error


def show_changes(made: Sequence[Changed], options: BulkOptions, *, show: bool = False) -> None:
    """Print what was done to each delivery, for programs in any case."""
    for each in made if show or options.as_json else ():
        _show_change(each, as_json=options.as_json)


def show_replays(made: Sequence[Replayed], options: BulkOptions, *, show: bool = False) -> None:
    """Print what was added to each event, for programs in any case."""
    for each in made if show or options.as_json else ():
        _show_replay(each, as_json=options.as_json)


def by_name(
    store: Recovery,
    found: dict[str, Sequence[FoundDelivery]],
    decide: Callable[[FoundDelivery], Change],
    options: BulkOptions,
) -> None:
    """Change the deliveries that were named; exit 1 if a name changed nothing."""
    unchanged = []
    for name, deliveries in found.items():
        changes = [decide(delivery) for delivery in deliveries]
        made = recovering.change(store, changes, options.person, dry_run=options.dry_run)
        show_changes(made, options, show=True)
        if not deliveries:
            options.say(f"{name}: no such delivery; gofax-relay explain {name} says why")
        if not any(each.is_done for each in made):
            unchanged.append(name)
    options.say_end(changed=len(unchanged) < len(found))
    if unchanged:
        sys.exit(FAILED)


def replay_by_name(
    store: Recovery,
    events: Iterable[FoundEvent],
    decide: Callable[[FoundEvent], Replay],
    options: BulkOptions,
) -> None:
    """Replay the events that were named; exit 1 if one of them cannot be replayed."""
    done: list[Done] = []
    replays = [decide(event) for event in events]
    for each in replays:
        made = recovering.add(store, [each], options.person, dry_run=options.dry_run)
        show_replays(made, options, show=True)
        done += [said for one in made for said in one.done]
    options.say_end(changed=any(is_done for is_done, _ in done))
    if any(each.refused for each in replays):
        sys.exit(FAILED)


def by_page(act: BulkAct, options: BulkOptions) -> None:
    """Do page after page and print how many; exit 1 if it was stopped before the end."""
    total = act.progress.total
    quiet = options.dry_run or options.as_json
    finished = False
    try:
        with (
            stoppable(act.stop),
            progress(act.verb, total=None if quiet else total) as advance,
        ):
            finished = act.run(advance=advance)
    finally:
        # Report even if the store went away: what was done is done.
        _report(act, options)
        if not finished:
            seen = act.progress.seen
            options.say(f"stopped after {seen:,} of {total:,}; the others are unchanged")
    if not finished:
        sys.exit(FAILED)


def _report(act: BulkAct, options: BulkOptions) -> None:
    done = act.progress
    would = "would have " if options.dry_run else ""
    options.say(f"{would}{act.verb} {count(done.done, 'delivery', 'deliveries')}")
    for says, number in done.left.items():
        options.say(f"left {number:,}: {says}")
    options.say_end(changed=bool(done.done))


@contextmanager
def stoppable(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM set *stop*, so that no batch is cut in the middle."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def progress(what: str, *, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal if *total* is given; the yielded function advances it."""
    if total is None or not sys.stderr.isatty():
        yield lambda count: None
        return
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def _show_change(made: Changed, *, as_json: bool) -> None:
    """Print what was done, or would be done, to a delivery."""
    if as_json:
        print_json(made.json)
        return
    delivery = made.change.delivery
    message = delivery.message_id or delivery.event_id
    named = f"{delivery.id} ({message} to {delivery.destination}, {delivery.state})"
    print_lines([f"{named}: {made.says}"])


def _show_replay(made: Replayed, *, as_json: bool) -> None:
    """Print what a replay did, or would do, to an event: its destinations then and now."""
    if as_json:
        print_json(made.json)
        return
    print_lines(_replay_lines(made.replay, made.added))


def _replay_lines(replay: Replay, added: Sequence[ReplayStep]) -> Iterator[str]:
    event = replay.found.event
    yield f"{event.id} ({event.message_id or 'no messageId'}) {event.type}"
    if replay.refused:
        yield f"  {replay.refused}"
    elif not replay.steps:
        yield "  no route matches today, and none did when it came"
    for step in replay.steps:
        sign = "+" if step in added else " " if step.now else "-"
        yield f"  {sign} {step.destination}: {then_and_now(step)}; {says_of(step, added)}"
